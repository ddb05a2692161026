"""Runs on disk: save, load, and a callback that saves from time to time.

A checkpoint is one sealed npz file (`sealed_npz`): ``theta``, the optimizer's arrays under
``optimizer.<name>``, and a header with everything else. Loading executes nothing.
"""

from __future__ import annotations

import dataclasses
import logging
import textwrap
import time
import typing
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np

from . import sealed_npz
from .backend import to_host
from .diagnostics import StepDiagnostics
from .files import file_path, make_folder
from .half_inverse import HalfInverseInfo
from .progress import tell
from .result import Diagnostics, Epoch, History, Result, State, is_lost
from .validation import NonFiniteError, check_array, check_finite, check_real
from .version import __version__

T = TypeVar("T")
Row = TypeVar("Row", bound=NamedTuple)

FORMAT, VERSION = "higcore checkpoint", 2
FORMAT_1 = "higcore checkpoint 1"  # without a checksum; its identity was one string


def save_checkpoint(path: str | Path, result: Result) -> None:
    """Write ``result`` so that `fit` can go on from it bit for bit.

    Whatever happens meanwhile, ``path`` holds the earlier file or the new one, complete.

    Parameters
    ----------
    path : str or Path
        Where; an existing file is replaced. Conventionally ends in ``.npz``.
    result : Result
        The run; arrays on a GPU are copied to the host. The optimizer's state may hold arrays of
        numbers, plain numbers and text, and lists and dicts of these two.

    Raises
    ------
    TypeError, ValueError
        If ``result`` could not be loaded again, as with NaN in theta; nothing is written.
    OSError
        If the file cannot be written; the message names ``path``, and on a full disk it says how
        many bytes are needed and free.
    """
    if not isinstance(result, Result):
        raise TypeError(f"result must be a Result, such as fit returns, got {result!r}")
    path = file_path(path)
    header, arrays = _pack(result)
    _unpack(header, arrays)
    sealed_npz.write(path, header, arrays)


def load_checkpoint(path: str | Path) -> Result:
    """Return the `Result` that `save_checkpoint` wrote, with NumPy arrays.

    Files of format 1 are read too, but `fit` does not resume from them, because they do not say
    which network, solver and dtype their run had.

    Raises
    ------
    ValueError
        If the file is no checkpoint, or damaged, or of a newer version. The message says which.
    OSError
        If it cannot be opened.
    """
    file = file_path(path)
    refusal = f"path {str(path)!r} is no usable checkpoint: "
    if file.exists() and not file.is_file():  # reading a pipe would never end
        raise ValueError(refusal + "it is no regular file")
    with open(file, "rb") as stream:
        try:
            return _read(stream)
        except Exception as error:
            is_sentence = type(error) in (ValueError, NonFiniteError)
            name = type(error).__name__
            reason = str(error) if is_sentence else f"it cannot be read ({name}: {error})"
            raise ValueError(refusal + textwrap.shorten(reason, 400)) from error


class Checkpoints:
    """Callback for `fit` that saves the run from time to time, and at its end.

    The end is saved whenever the last save was and whatever ended the run, unless its test loss is
    lost: a run that diverged leaves what was saved before.

    A save that fails because the disk is full, or for another reason of the file system, does not
    end the run: the logger ``higcore`` warns once until a save succeeds again, and the next one is
    tried after ``every`` seconds.

    Parameters
    ----------
    path : str or Path
        Where; see `save_checkpoint`. Its folder is made at once.
    every : float
        Least time between two saves in seconds; 0 saves at every call. The first save is made this
        long after the making of the callback.

    Examples
    --------
    >>> callback = Checkpoints("run.npz", every=60.0)  # fit(..., on_epoch=[callback])
    """

    def __init__(self, path: str | Path, every: float = 30.0) -> None:
        check_real("every", every, 0.0)
        self.path, self.every = file_path(path), every
        make_folder(self.path)
        self._last_try, self._failing = time.monotonic(), False

    def __call__(self, result: Result) -> None:
        """Save ``result`` if it is time to."""
        # The clock of another machine, on which the callback was made, may be ahead of this one.
        if 0 <= time.monotonic() - self._last_try < self.every:
            return
        self._save(result)

    def finish(self, result: Result) -> None:
        """Save the end of a run, if it got anywhere."""
        row = next(iter(result.history), None)
        if result.steps and row and not is_lost(result.test_loss, row.test_loss):
            self._failing = False  # the end is worth a warning of its own
            self._save(result)

    def _save(self, result):
        try:
            save_checkpoint(self.path, result)
            self._failing = False
        except OSError as error:
            if not self._failing:
                tell(logging.WARNING, "The run was not saved: %s", error)
            self._failing = True
        self._last_try = time.monotonic()


def _pack(result: Result) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of a result."""
    state, plain = result.state, {}
    arrays = {"theta": to_host(state.theta)}
    for name, value in state.optimizer.items():
        _check_entry(name, value)
        if hasattr(value, "shape"):
            is_scalar = isinstance(value, np.generic)
            arrays[f"optimizer.{name}"] = np.asarray(value) if is_scalar else to_host(value)
        else:
            plain[name] = value
    fields = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    del fields["state"]
    known_info = isinstance(state.info, HalfInverseInfo)  # what users' optimizers say is not kept
    header = {
        "format": FORMAT,
        "version": VERSION,
        "higcore": __version__,
        "fields": fields,
        "state": state._replace(theta=None, optimizer=plain, info=None)._asdict(),
        "info": dataclasses.asdict(state.info) if known_info else None,
    }
    return header, arrays


def _check_entry(name, value):
    if not (isinstance(name, str) and name.isprintable()):
        raise TypeError(f"names in the optimizer's state must be printable text, got {name!r}")
    if not (hasattr(value, "shape") or _is_plain(value)):
        raise TypeError(
            f"{name!r} in the optimizer's state is a {type(value).__name__}; a checkpoint holds "
            "arrays, numbers and text, and lists and dicts of numbers and text"
        )


def _is_plain(value):
    """Whether ``value`` comes back from JSON as it is."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _read(stream: BinaryIO) -> Result:
    sealed = sealed_npz.check_seal(stream)
    with sealed_npz.open_archive(stream) as archive:
        header = sealed_npz.read_header(archive)
        if header.get("format") == FORMAT_1:
            header["fields"]["identity"] = {}
            return _unpack(header, sealed_npz.read_arrays(archive))
        _check_version(header, sealed)
        return _unpack(header, sealed_npz.read_arrays(archive, header["arrays"]))


def _check_version(header, sealed):
    if header.get("format") != FORMAT:
        raise ValueError(f"its header says format {header.get('format')!r}, not {FORMAT!r}")
    version = header.get("version")
    if not isinstance(version, int) or version < VERSION:
        raise ValueError(f"its version is {version!r}, which there never was")
    if version > VERSION:
        raise ValueError(
            f"it is of version {version}, written by higcore {header.get('higcore')}; "
            f"this higcore {__version__} reads up to version {VERSION}, so upgrade higcore"
        )
    if not sealed:
        raise ValueError("its checksum is missing, so some of its bytes were altered or cut off")


def _unpack(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Result:
    """The `Result` of a header and arrays, after checks that it is one."""
    if "theta" not in arrays:
        raise ValueError("array 'theta' is missing")
    check_array("theta", arrays["theta"], ("t",))
    check_finite("theta", arrays["theta"])
    fields, info, optimizer = header["fields"], header["info"], dict(header["state"]["optimizer"])
    for name, array in arrays.items():
        place, _, key = name.partition(".")
        if place == "optimizer":
            optimizer[key] = array
        elif name != "theta":
            raise ValueError(f"array {name!r} does not belong in a checkpoint")
    rest = {"theta": arrays["theta"], "optimizer": optimizer, "info": None}
    if info is not None:
        rest["info"] = _build(HalfInverseInfo, {"sigma_min": 0.0} | info)  # not in format 1
    return _build(Result, fields | {
        "state": _build(State, header["state"] | rest),
        "history": History(_rows(Epoch, fields["history"])),
        "diagnostics": Diagnostics(_rows(StepDiagnostics, fields.get("diagnostics", []))),
    })  # fmt: skip


def _rows(kind: type[Row], rows: list[list[Any]]) -> list[Row]:
    """NamedTuples from rows of numbers; whole columns are checked, as there may be 10^5 rows."""
    columns = zip(*rows, strict=True) if rows else [()] * len(kind._fields)
    _check_types(kind, dict(zip(kind._fields, columns, strict=True)))
    return [kind(*row) for row in rows]


def _build(kind: type[T], values: dict[str, Any]) -> T:
    _check_types(kind, {name: [value] for name, value in values.items()})
    return kind(**values)


def _check_types(kind, columns):
    """Raise unless the values of every column have the type that ``kind`` declares for it."""
    hints = typing.get_type_hints(kind)
    for name, values in columns.items():
        declared = hints[name]
        for found in set(map(type, values)):
            if not _is_type(found, declared):
                raise ValueError(f"{kind.__name__}.{name} is of type {found}, not {declared}")


def _is_type(found, declared):
    if declared is typing.Any:
        return True
    declared = getattr(declared, "__origin__", declared)  # list of list[str]
    return issubclass(float if found is int else found, declared) or issubclass(found, declared)
