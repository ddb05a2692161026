"""An npz file with a JSON header and a checksum of all its bytes; reading it executes nothing.

It is a zip archive of npy files, nothing compressed, that `numpy.load` opens as any other. The
archive's comment, which ends the file, is ``higcore sha256 `` and 64 hexadecimal digits: the
SHA-256 of every byte before these digits. ``header.npy`` holds JSON as one byte string.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .files import replacing

SEAL = b"higcore sha256 "
DIGITS = 64
CHUNK = 2**20  # bytes hashed at a time
NUMBERS = "biufc"  # kinds of dtype: bool, int, uint, float, complex


def write(path: str | Path, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write a header, a dict for JSON, and a dict of arrays; atomic, see `files.replacing`.

    dtype and shape of every array are added to the header. No array is copied.
    """
    for name, array in arrays.items():
        _check_kind(name, array.dtype, NUMBERS)
    table = {k: {"dtype": a.dtype.str, "shape": list(a.shape)} for k, a in arrays.items()}
    members = {"header": np.array(json.dumps(header | {"arrays": table}).encode())} | arrays
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


def check_seal(stream: BinaryIO) -> bool:
    """True if a file bears a seal, False if none; raise if the seal belongs to other bytes."""
    end = stream.seek(0, os.SEEK_END) - DIGITS
    stream.seek(max(0, end - len(SEAL)))
    if stream.read(len(SEAL)) != SEAL:
        return False
    stream.seek(end)
    if stream.read() != _digest(stream, end):
        raise ValueError("its checksum is not that of its bytes, some of which were altered")
    return True


def _digest(stream, end):
    """SHA-256 of the first ``end`` bytes, as hexadecimal digits."""
    digest = hashlib.sha256()
    stream.seek(0)
    for first in range(0, end, CHUNK):
        digest.update(stream.read(min(CHUNK, end - first)))
    return digest.hexdigest().encode()


def open_archive(stream: BinaryIO) -> zipfile.ZipFile:
    """Return the `zipfile.ZipFile`, once nothing in it takes more room than the file itself."""
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


def read_header(archive: zipfile.ZipFile) -> dict[str, Any]:
    """Return the header, a dict."""
    if "header.npy" not in archive.namelist():
        raise ValueError("it is an npz file without a header")
    header = json.loads(_read(archive, "header", "SU").item())
    if not isinstance(header, dict):
        raise ValueError(f"its header is a {type(header).__name__}")
    return header


def read_arrays(
    archive: zipfile.ZipFile, table: dict[str, Any] | None = None
) -> dict[str, np.ndarray]:
    """Return the dict of arrays, exactly those of the header's ``table`` if it is given."""
    names = [name.removesuffix(".npy") for name in archive.namelist() if name != "header.npy"]
    if table is not None and set(names) != set(table):
        missing, extra = sorted(set(table) - set(names)), sorted(set(names) - set(table))
        raise ValueError(f"its arrays are not those of its header: {missing=}, {extra=}")
    arrays = {name: _read(archive, name, NUMBERS) for name in names}
    for name, layout in (table or {}).items():
        found = {"dtype": arrays[name].dtype.str, "shape": list(arrays[name].shape)}
        if found != layout:
            raise ValueError(f"array {name!r} is {found}, but the header says {layout}")
    return arrays


def _read(archive, name, kinds):
    """Return one array, allocated only after the shape it claims agrees with the bytes it has."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as member:
        try:
            np.lib.format.read_magic(member)
            shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        except ValueError as error:
            raise ValueError(f"array {name!r} has no npy header of version 1.0") from error
        stored = info.file_size - member.tell()
    _check_kind(name, dtype, kinds)
    if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != stored:
        raise ValueError(f"array {name!r} {shape} of {dtype} cannot be its {stored} bytes")
    with archive.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _check_kind(name, dtype, kinds):
    if dtype.kind not in kinds:
        raise ValueError(f"array {name!r} has dtype {dtype}; a checkpoint holds numbers only")
