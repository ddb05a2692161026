"""Files that take the place of others only when they are whole and on the disk, under a checksum.

The checksum is that of a sealed npz file: a zip archive of npy files, nothing compressed, that
`numpy.load` opens as any other. Its ``header`` is one byte string of JSON, and the comment of the
archive, which ends the file, is ``higcore sha256 `` and 64 hexadecimal digits: the SHA-256 of every
byte before these digits.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import math
import os
import shutil
import time
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk, quota and file size limit
STEM = 40  # characters of a name that its partial file repeats: names may have 255 bytes
ABANDONED = 3600.0  # seconds without a write, after which the writer of a partial file is dead
SEAL, DIGITS = b"higcore sha256 ", 64
CHUNK = 2**20  # bytes hashed at a time
NUMBERS, TEXT = "biufc", "SU"  # kinds of dtype: bool, int, uint, float, complex; bytes, str


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
        place = f": its folder {str(path.parent)!r} cannot be made"
        raise _unwritable(path, error, place) from error


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
    label = uuid.uuid4().hex
    partial = target.with_name(f".{target.stem[:STEM]}.{label}.partial{target.suffix}")
    try:
        try:
            yield partial
            with open(partial, "r+b") as stream:
                os.fsync(stream.fileno())
            os.replace(partial, target)
        finally:  # before free bytes are counted
            with suppress(OSError):  # what went wrong before is what is to be told
                partial.unlink()
    except OSError as error:
        if error.errno in NO_ROOM:
            raise _unwritable(target, error, _no_room(target, size)) from error
        if str(error.filename) == str(partial):  # a name that the caller never gave
            raise _unwritable(target, error) from error
        raise
    _flush_folder(target.parent)


def _remove_abandoned(path):
    name, suffix = glob.escape(path.stem[:STEM]), glob.escape(path.suffix)
    for partial in path.parent.glob(f".{name}.*.partial{suffix}"):
        with suppress(OSError):  # another process may be doing the same
            if time.time() - partial.stat().st_mtime > ABANDONED:
                partial.unlink()


def _unwritable(path, error, why=""):
    reason = os.strerror(error.errno)
    return OSError(error.errno, f"path {str(path)!r} could not be written ({reason}){why}")


def _no_room(path, size):
    size = "an unknown number of" if size is None else f"about {size}"
    free = shutil.disk_usage(path.parent).free
    kept = "the previous file is kept" if path.exists() else "there was no previous file"
    return f": it takes {size} bytes, and {free} are free on its disk; {kept}"


def _flush_folder(folder):
    """Put a rename on the disk, where the platform and the file system let folders be flushed."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_sealed(path: Path, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write a header, a dict for JSON, and arrays, none of which is copied, under their checksum.

    The file is there as a whole or not at all; see `replacing`.
    """
    for name, array in arrays.items():
        _check_dtype(name, array.dtype, NUMBERS)
    members = {"header": np.array(json.dumps(header).encode())} | arrays
    size = sum(array.nbytes for array in members.values())
    with replacing(path, size) as partial, open(partial, "w+b") as stream:
        with zipfile.ZipFile(stream, "w") as archive:
            archive.comment = SEAL + DIGITS * b"0"
            for name, array in members.items():
                info = zipfile.ZipInfo(f"{name}.npy")
                with archive.open(info, "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, (1, 0), allow_pickle=False)
        end = stream.seek(-DIGITS, os.SEEK_END)
        digest = _digest(stream, end)
        stream.seek(end)
        stream.write(digest)


def _digest(stream, end):
    """SHA-256 of the first ``end`` bytes, as hexadecimal digits."""
    digest = hashlib.sha256()
    stream.seek(0)
    for first in range(0, end, CHUNK):
        digest.update(stream.read(min(CHUNK, end - first)))
    return digest.hexdigest().encode()


def read_sealed(stream: BinaryIO) -> tuple[Any, dict[str, np.ndarray], bool]:
    """Return header and arrays of a file, and whether it bears a checksum, which then is right.

    Nothing is executed, and no more is allocated than the file takes.
    """
    is_sealed = _check_seal(stream)
    with _open(stream) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if "header" not in members:
            raise ValueError("it is an npz file without a header")
        header = json.loads(_read_array(archive, members.pop("header"), TEXT).item())
        arrays = {name: _read_array(archive, info, NUMBERS) for name, info in members.items()}
    return header, arrays, is_sealed


def _check_seal(stream):
    """True if a file bears a seal, False if none; raise if the seal belongs to other bytes."""
    end = stream.seek(0, os.SEEK_END) - DIGITS
    stream.seek(max(0, end - len(SEAL)))
    if stream.read(len(SEAL)) != SEAL:
        return False
    stream.seek(end)
    if stream.read() != _digest(stream, end):
        raise ValueError("its checksum is not that of its bytes, some of which were altered")
    return True


def _open(stream):
    """The archive of a file, once nothing in it takes more room than the file itself."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if stream.read(4) != b"PK\x03\x04":
        raise ValueError("it is no npz file" if size else "it is empty")
    if not zipfile.is_zipfile(stream):
        raise ValueError("it is cut off: it begins as an npz file, but its end is missing")
    archive = zipfile.ZipFile(stream)
    members = archive.infolist()
    if len(members) > len({info.filename for info in members}):
        raise ValueError("it holds an array twice")
    if any(info.compress_type != zipfile.ZIP_STORED for info in members):
        raise ValueError("it is compressed, which a checkpoint never is")
    if sum(info.file_size for info in members) > size:
        raise ValueError(f"its arrays are said to take more than its {size} bytes")
    return archive


def _read_array(archive, info, kinds):
    """One array, allocated only after the shape it claims agrees with the bytes it has."""
    name = info.filename.removesuffix(".npy")
    with archive.open(info) as member:
        try:
            np.lib.format.read_magic(member)
            shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        except ValueError as error:
            raise ValueError(f"array {name!r} has no npy header of version 1.0") from error
        _check_dtype(name, dtype, kinds)
        stored = info.file_size - member.tell()
        if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != stored:
            raise ValueError(f"array {name!r} {shape} of {dtype} cannot be its {stored} bytes")
        member.seek(0)
        return np.lib.format.read_array(member, allow_pickle=False)


def _check_dtype(name, dtype, kinds):
    if dtype.kind not in kinds:
        raise ValueError(f"array {name!r} has dtype {dtype}; a checkpoint holds numbers only")
