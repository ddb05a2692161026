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
STEM = 40  # characters of a name that its partial file repeats: names may have 255 bytes
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


def make_folder(path: Path) -> None:
    """Make the folder that ``path`` names a file in, if need be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        place = f"its folder {str(path.parent)!r} cannot be made"
        raise OSError(error.errno, _unwritable(path, error) + f": {place}") from error


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
        If writing fails, with a sentence that names ``path``; on a full disk it says how much room
        there is.
    """
    target = file_path(path)
    make_folder(target)
    _remove_abandoned(target)
    # A name for every call: threads and signal handlers may write the same path at a time.
    label = f"{os.getpid()}-{next(_calls)}"
    partial = target.with_name(f".{target.stem[:STEM]}.{label}.partial{target.suffix}")
    try:
        yield partial
        with open(partial, "r+b") as stream:
            os.fsync(stream.fileno())
        os.replace(partial, target)
    except OSError as error:
        _discard(partial)  # before free bytes are counted
        if error.errno in NO_ROOM:
            raise OSError(error.errno, _no_room(target, size, error)) from error
        if str(error.filename) == str(partial):  # a name that the caller never gave
            raise OSError(error.errno, _unwritable(target, error)) from error
        raise
    finally:
        _discard(partial)
    _flush_folder(target.parent)


def _remove_abandoned(path):
    for stem in {path.stem, path.stem[:STEM]}:  # the whole one: in files of earlier versions
        name, suffix = glob.escape(stem), glob.escape(path.suffix)
        for partial in path.parent.glob(f".{name}.*.partial{suffix}"):
            with suppress(OSError):  # another process may be doing the same
                if time.time() - partial.stat().st_mtime > ABANDONED:
                    partial.unlink()


def _discard(partial):
    with suppress(OSError):  # what went wrong before is what is to be told
        partial.unlink()


def _unwritable(path, error):
    return f"path {str(path)!r} could not be written ({os.strerror(error.errno)})"


def _no_room(path, size, error):
    size = "an unknown number of" if size is None else f"about {size}"
    free = shutil.disk_usage(path.parent).free
    kept = "the previous file is kept" if path.exists() else "there was no previous file"
    room = f"it takes {size} bytes, and {free} are free on its disk"
    return f"{_unwritable(path, error)}: {room}; {kept}"


def _flush_folder(folder):
    """Put a rename on the disk, where the platform and the file system let folders be flushed."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
