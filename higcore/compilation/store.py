"""Compiled code on the disk, a file for each: named by what it was made of, sealed, never trusted.

Numba's own cache knows the file of a function, and not the values that the function reads; its
index is written by several processes at a time. Here the name of a file is a digest of everything
that decides what is in it, so that nothing can be found under a wrong name, and the file begins
with a digest of the rest: one that is cut off or garbled is compiled anew.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import platform
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from numba.core.caching import FunctionCache, NullCache
from numba.core.compiler_lock import global_compiler_lock
from numba.core.serialize import dumps
from numba.extending import register_jitable

from .readings import Sources

VERSIONS = (numba.__version__, llvmlite.__version__, np.__version__, platform.python_version())
KEPT = 64  # files of one function: of other signatures, and of what it was made of before
NOWHERE = (
    "Kernels are compiled anew in every process, some seconds for each of them: no folder for "
    "compiled code can be written (%s). Set NUMBA_CACHE_DIR to one that can."
)

log = logging.getLogger("higcore")
_told: set[str] = set()


def compile_kept(
    function: Callable[..., Any],
    sources: Sources,
    name: str,
    fastmath: Collection[str] = (),
    divides_by_zero: bool = False,
) -> Any:
    """`numba.njit` of ``function``, kept on the disk under the fingerprint of its ``sources``.

    ``name`` begins the names of its files; ``fastmath`` is what LLVM may do to sums, here and in
    all that it can reach; a division by 0 raises unless it ``divides_by_zero``. What cannot be
    kept, for want of a folder or because some of what it reads has no content that could be told,
    is compiled in every process.
    """
    make_callable(sources, fastmath)
    errors = "numpy" if divides_by_zero else "python"
    options: dict[str, Any] = {"fastmath": set(fastmath), "error_model": errors}
    dispatcher: Any = numba.njit(nogil=True, **options)(function)
    fingerprint = sources.fingerprint()
    if fingerprint is None:
        log.info("%s is compiled anew in every process", name)
    else:
        # Numba has no public place for a cache of one's own; `enable_caching` does just this.
        key = f"{fingerprint} {sorted(fastmath)} {errors} {VERSIONS}"
        try:
            dispatcher._cache = Store(name, key)
        except RuntimeError as error:  # what Numba raises where it finds no folder
            _tell(error)
            dispatcher._cache = NullCache()
    return dispatcher


def make_callable(sources: Sources, fastmath: Collection[str] = ()) -> None:
    """Let compiled code call all plain functions that it can reach."""
    for function in sources.functions:
        register_jitable(fastmath=set(fastmath))(function)


def _tell(reason):
    """Say once in a process that nothing is kept."""
    if NOWHERE not in _told:
        _told.add(NOWHERE)
        log.warning(NOWHERE, reason)


class Store(FunctionCache):
    """The files of one function; Numba asks for and hands over its compiled signatures."""

    def __init__(self, name: str, key: str) -> None:
        super().__init__(_tell)  # all of them where Numba keeps what is compiled of this file
        self.name, self.key = name.strip("<>_"), key

    def _path(self, signature: Any, codegen: Any) -> Path:
        text = f"{self.key} {signature} {codegen.magic_tuple()}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:32]
        return Path(self.cache_path) / f"{self.name}-{digest}.higcore"

    def _load_overload(self, signature: Any, target_context: Any) -> Any:
        """The compiled code of a signature; None if there is none that is whole."""
        path = self._path(signature, target_context.codegen())
        try:
            digest, _, data = path.read_bytes().partition(b"\n")
            if hashlib.sha256(data).hexdigest().encode() == digest:
                return self._impl.rebuild(target_context, pickle.loads(data))
            log.info("%s is damaged; compiled anew", path)
        except FileNotFoundError:
            pass
        except Exception as error:  # whatever is wrong with what is kept, it can be made again
            log.info("%s cannot be read (%r); compiled anew", path, error)
        return None

    def _save_overload(self, signature: Any, data: Any) -> None:
        if not self._impl.check_cachable(data):
            return
        path = self._path(signature, data.codegen)
        code = dumps(self._impl.reduce(data))
        partial = path.with_suffix(f".{os.getpid()}.partial")  # one thread compiles at a time
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(hashlib.sha256(code).hexdigest().encode() + b"\n" + code)
            os.replace(partial, path)
            self._remove_oldest(path.parent)
        except OSError as error:
            _tell(error)

    def _remove_oldest(self, folder):
        files = folder.glob(f"{self.name}-*")
        with suppress(OSError):  # another process may be doing the same
            for path in sorted(files, key=os.path.getmtime)[:-KEPT]:
                path.unlink()


# Numba's lock, and the one around every call into LLVM, in the order in which Numba takes them.
LOCKS = (global_compiler_lock, llvmlite.binding.ffi.lib._lock)


def _release():
    for lock in reversed(LOCKS):
        lock.__exit__(None, None, None)


# A child made while another thread compiles would wait for locks that nobody opens.
if hasattr(os, "register_at_fork"):
    for lock in reversed(LOCKS):  # what is registered last is called first, before a fork
        os.register_at_fork(before=lock.__enter__)
    os.register_at_fork(after_in_parent=_release, after_in_child=_release)
