"""Save and load a run: one npz file, written aside and renamed; loading executes nothing."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np

from .backend import to_host
from .half_inverse import HalfInverseInfo
from .training import Epoch, Result, State

FORMAT = "higcore checkpoint 1"


def save_checkpoint(path, result):
    """Write ``result`` so that `fit` can go on from it bit for bit.

    The file is complete or absent: it is written under a temporary name, flushed to the disk and
    renamed.

    Parameters
    ----------
    path : str or Path
        Where; an existing file is replaced. Conventionally ends in ``.npz``.
    result : Result
        The run; arrays on a GPU are copied to the host.
    """
    path = Path(path)
    state = result.state
    optimizer = {k: v for k, v in state.optimizer.items() if not hasattr(v, "shape")}
    arrays = {
        f"optimizer.{k}": to_host(v) for k, v in state.optimizer.items() if k not in optimizer
    }
    fields = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    del fields["state"]
    known_info = isinstance(state.info, HalfInverseInfo)  # what users' optimizers say is not kept
    header = {
        "format": FORMAT,
        "fields": fields,
        "state": state._replace(theta=None, optimizer=optimizer, info=None)._asdict(),
        "info": dataclasses.asdict(state.info) if known_info else None,
    }
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as stream:
        np.savez(stream, header=json.dumps(header), theta=to_host(state.theta), **arrays)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)


def load_checkpoint(path):
    """Return the `Result` that `save_checkpoint` wrote, with NumPy arrays.

    Raises
    ------
    ValueError
        If the file is not a checkpoint of this version, or damaged.
    """
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            arrays = {name: file[name] for name in file.files if name != "header"}
        if header["format"] != FORMAT:
            raise ValueError(f"its format is {header['format']!r}, expected {FORMAT!r}")
        optimizer = header["state"]["optimizer"]
        optimizer |= {k.partition(".")[2]: v for k, v in arrays.items() if k != "theta"}
        info = HalfInverseInfo(**header["info"]) if header["info"] else None
        values = header["state"] | {"theta": arrays["theta"], "optimizer": optimizer, "info": info}
        fields = header["fields"]
        fields["history"] = [Epoch(*row) for row in fields["history"]]
        return Result(state=State(**values), **fields)
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"path {str(path)!r} is no usable checkpoint: {error}") from error
