"""Runs on disk: save, load, and a callback that saves from time to time.

A checkpoint is one sealed npz file (`files`): ``theta``, that of the best state as ``best.theta``,
the optimizer's arrays under ``optimizer.<name>``, and a header with everything else. Loading
executes nothing. Version 2 knows no best state, and no validation loss in a row of the history.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import textwrap
import time
from contextlib import suppress
from itertools import starmap
from pathlib import Path
from types import NoneType
from typing import Any, get_type_hints

import numpy as np

from ..backend import same, to_host
from ..half_inverse import HalfInverseInfo
from ..validation import (
    NonFiniteError,
    check_array,
    check_choice,
    check_finite,
    check_like,
    check_real,
)
from ..version import __version__
from .diagnostics import Diagnostics, StepDiagnostics
from .files import file_path, make_folder, read_sealed, write_sealed
from .progress import tell
from .result import Best, Epoch, History, Result, State, is_lost

FORMAT, OLDEST, VERSION = "higcore checkpoint", 2, 3
PREFIX, BEST = "optimizer.", "best.theta"  # in the names of arrays
# What JSON may hold for the annotations of a result and its state.
KINDS = {int: (int,), float: (int, float), str: (str,), dict[str, Any]: (dict,)}


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
    write_sealed(path, header, arrays)


def load_checkpoint(path: str | Path) -> Result:
    """Return the `Result` that `save_checkpoint` wrote, with NumPy arrays.

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
    with file.open("rb") as stream:
        try:
            header, arrays, is_sealed = read_sealed(stream)
            _check_version(header, is_sealed)
            return _unpack(header, arrays)
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
    keep : {"last", "best"}
        ``"best"`` saves whenever an evaluation is the best so far, at once, and nothing else; so
        give it to ``on_epoch``. Its ``theta`` is then that of the best state. With ``"last"`` it is
        the latest, and ``Result.best`` beside it.

    Examples
    --------
    >>> callback = Checkpoints("run.npz", every=60.0)  # fit(..., on_epoch=[callback])
    """

    def __init__(self, path: str | Path, every: float = 30.0, keep: str = "last") -> None:
        check_real("every", every, 0.0)
        check_choice("keep", keep, ("last", "best"))
        self.path, self.every, self.keep = file_path(path), every, keep
        make_folder(self.path)
        self._last_try, self._failing = time.monotonic(), False
        self._best_saved: tuple[int, float] | None = None  # its step and loss

    def __call__(self, result: Result) -> None:
        """Save ``result`` if it is time to, or the best so far."""
        # The clock of another machine, on which the callback was made, may be ahead of this one.
        is_time = not 0 <= time.monotonic() - self._last_try < self.every
        if self._is_new_best(result) if self.keep == "best" else is_time:
            self._save(result)

    def finish(self, result: Result) -> None:
        """Save the end of a run, if it got anywhere."""
        row = next(iter(result.history), None)
        got_anywhere = result.steps and row and not is_lost(result.test_loss, row.test_loss)
        if self._is_new_best(result) if self.keep == "best" else got_anywhere:
            self._failing = False  # the end is worth a warning of its own
            self._save(result)

    def _is_new_best(self, result):
        """Whether the latest evaluation is the best of the run, and not saved yet."""
        best, rows = result.best, result.history
        is_latest = best is not None and bool(rows) and rows[-1].step == best.step
        return is_latest and self._best_saved != (best.step, best.loss)

    def _save(self, result):
        try:
            save_checkpoint(self.path, result)
            self._failing = False
            self._best_saved = result.best and (result.best.step, result.best.loss)
        except OSError as error:
            if not self._failing:
                tell(logging.WARNING, "The run was not saved: %s", error)
            self._failing = True
        self._last_try = time.monotonic()


def _pack(result: Result) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    state, best, plain = result.state, result.best, {}
    arrays = {"theta": to_host(result.theta)} | ({BEST: to_host(best.theta)} if best else {})
    for name, value in state.optimizer.items():
        if not (isinstance(name, str) and name.isprintable()):
            raise TypeError(f"names in the optimizer's state must be printable text, got {name!r}")
        if hasattr(value, "shape"):
            is_scalar = isinstance(value, np.generic)
            arrays[PREFIX + name] = np.asarray(value) if is_scalar else to_host(value)
        else:
            plain[name] = _plain(name, value)
    known_info = isinstance(state.info, HalfInverseInfo)  # what users' optimizers say is not kept
    header = {
        "format": FORMAT,
        "version": VERSION,
        "higcore": __version__,
        "fields": {k: value for k, value in vars(result).items() if k not in ("state", "best")},
        "state": state._replace(theta=None, optimizer=plain, info=None)._asdict(),
        "info": dataclasses.asdict(state.info) if known_info else None,
        "best": best and best._replace(theta=None)._asdict(),
    }
    return header, arrays


def _plain(name, value):
    """``value``, if it comes back from JSON as it is."""
    with suppress(TypeError, ValueError, RecursionError):
        if same(json.loads(json.dumps(value)), value):
            return value
    raise TypeError(
        f"{name!r} in the optimizer's state is a {type(value).__name__}; a checkpoint holds "
        "arrays, numbers and text, and lists and dicts of numbers and text"
    )


def _check_version(header, is_sealed):
    if not isinstance(header, dict):
        raise ValueError(f"its header is a {type(header).__name__}")
    if header.get("format") != FORMAT:
        raise ValueError(f"its header says format {header.get('format')!r}, not {FORMAT!r}")
    version = header.get("version")
    if not isinstance(version, int) or version < OLDEST:
        raise ValueError(f"its version is {version!r}, which there never was")
    if version > VERSION:
        raise ValueError(
            f"it is of version {version}, written by higcore {header.get('higcore')}; "
            f"this higcore {__version__} reads up to version {VERSION}, so upgrade higcore"
        )
    if not is_sealed:
        raise ValueError("its checksum is missing, so some of its bytes were altered or cut off")


def _unpack(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Result:
    """The `Result` of a header and arrays, after checks that it is one."""
    fields, state, info = header["fields"], header["state"], header["info"]
    best = header.get("best")  # None in version 2
    entries = _check_arrays(arrays, best is not None)
    result = Result(**fields | {
        "state": State(**state | {
            "theta": arrays["theta"],
            "optimizer": state["optimizer"] | entries,
            "info": None if info is None else HalfInverseInfo(**info),
        }),
        "history": History(starmap(Epoch, fields["history"])),
        "diagnostics": Diagnostics(starmap(StepDiagnostics, fields["diagnostics"])),
        "best": None if best is None else Best(**best | {"theta": arrays[BEST]}),
    })  # fmt: skip
    _check_kinds(result)
    return result


def _check_arrays(arrays, has_best):
    """Those of the optimizer by name, after a look at the others, all of which must be there."""
    names = ("theta", BEST) if has_best else ("theta",)
    if missing := [name for name in names if name not in arrays]:
        raise ValueError(f"array {missing[0]!r} is missing")
    check_array("theta", arrays["theta"], ("t",))
    for name in names:
        check_like(name, arrays[name], arrays["theta"].shape, theta=arrays["theta"])
        check_finite(name, arrays[name])
    others = [name for name in arrays if name not in names]
    if odd := [name for name in others if not name.startswith(PREFIX)]:
        raise ValueError(f"array {odd[0]!r} does not belong in a checkpoint")
    return {name.removeprefix(PREFIX): arrays[name] for name in others}


def _check_kinds(result):
    for record in (result, result.state, *filter(None, [result.best])):
        for name, hint in get_type_hints(type(record)).items():
            value, kinds = getattr(record, name), KINDS.get(hint, (object,))
            if not isinstance(value, kinds):
                raise ValueError(f"{name} is of type {type(value)}, not {kinds[-1]}")
    found = {type(figure) for row in (*result.history, *result.diagnostics) for figure in row}
    if odd := [kind for kind in found if not issubclass(kind, (int, float, NoneType))]:
        raise ValueError(f"history and diagnostics hold numbers, not {odd[0]}")
