"""A file that takes the place of another only when it is whole and on the disk."""

from __future__ import annotations

import errno
import glob
import itertools
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk, quota and file size limit
ABANDONED = 3600.0  # seconds without a write, after which the writer of a partial file is dead

_calls = itertools.count()


def file_path(path: object) -> Path:
    """Return ``path`` as a `Path`; raise unless it can be the name of a file."""
    if not isinstance(path, (str, os.PathLike)) or not str(path) or "\0" in str(path):
        raise TypeError(f"path must be a str or Path that names a file, got {path!r}")
    named = Path(path)
    if named.is_dir():
        raise IsADirectoryError(f"path {str(path)!r} is a folder, not a file such as 'run.npz'")
    return named


@contextmanager
def replacing(path: str | Path, size: int | None = None) -> Iterator[Path]:
    """Context manager: a temporary path that takes the place of ``path`` if all goes well.

    What was written there is flushed to the disk and then renamed, and the rename is flushed too:
    a process that is killed, or a machine that stops, leaves the old file or the new one. If
    anything fails, the temporary file is removed and the old one stays. A killed process cannot
    remove its own; the next call for the same path does, once it is an hour old.

    Parameters
    ----------
    path : str or Path
        The file to write; its folder is made if need be.
    size : int, optional
        About how many bytes will be written, for the message if there is no room for them.

    Raises
    ------
    OSError
        If writing fails; on a full disk with a sentence that says how much room there is.
    """
    target = file_path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    # A name for every call: threads and signal handlers may write the same path at a time.
    label = f"{os.getpid()}-{next(_calls)}"
    partial = target.with_name(f".{target.stem}.{label}.partial{target.suffix}")
    try:
        yield partial
        with open(partial, "r+b") as stream:
            os.fsync(stream.fileno())
        os.replace(partial, target)
    except OSError as error:
        partial.unlink(missing_ok=True)  # before free bytes are counted
        if error.errno not in NO_ROOM:
            raise
        raise OSError(error.errno, _no_room(target, size, error)) from error
    finally:
        partial.unlink(missing_ok=True)
    _flush_folder(target.parent)


def _remove_abandoned(path):
    name, suffix = glob.escape(path.stem), glob.escape(path.suffix)
    for partial in path.parent.glob(f".{name}.*.partial{suffix}"):
        with suppress(OSError):  # another process may be doing the same
            if time.time() - partial.stat().st_mtime > ABANDONED:
                partial.unlink()


def _no_room(path, size, error):
    size = "an unknown number of" if size is None else f"about {size}"
    free = shutil.disk_usage(path.parent).free
    kept = "the previous file is kept" if path.exists() else "there was no previous file"
    return (
        f"{str(path)!r} could not be written ({os.strerror(error.errno)}): it takes {size} bytes, "
        f"and {free} are free on its disk; {kept}"
    )


def _flush_folder(folder):
    """Put a rename on the disk, where the platform and the file system let folders be flushed."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
