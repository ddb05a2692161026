"""Which run a `Result` is of, in plain text: what a run and the one it resumes must agree in."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import numpy as np

from ..backend import Array, is_array, to_host
from ..problem import Batch, Problem
from ..protocols import Optimizer

PARTS = ("network", "solver", "loss", "optimizer")  # which are there as `describe` says them
DATA = ("data_seed", "train_data", "test_data")
DIGITS = 16  # hexadecimal ones of a digest: 64 bits

# What one value may look like in more than one way, and before it what is to be left as it is.
DTYPE = r"(?:float|u?int|complex)\d+"
SPELLINGS = re.compile(
    rf"""
      (?P<dtype> dtype\('({DTYPE})'\) | <class\ 'numpy\.({DTYPE})'> | '<?([fiuc]\d|{DTYPE})' )
    | (?P<left> sha256\ [0-9a-f]+ | '(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" )
    | np\.(?P<kind> (?:float|u?int)\d+ )\( (?P<scalar> [-+.\w]+ ) \)
    | (?P<number> (?<![\w.)]) [-+]? (?:\d+\.?\d*|\.\d+) (?:[eE][-+]?\d+)? (?![\w.]) )
    | (?P<truth> (?:np\.)? \b (?:True|False) _? \b )
    | (?P<bracket> ,?\] | \[ | ,(?=\)) )
    """,
    re.VERBOSE,
)
PAIR = re.compile(r"(?<==)\(([^(),]+), \1\)")  # one number for both, as Poisson2D takes it


def identity(problem: Problem, optimizer: Optimizer, batch: int, seed: int) -> dict[str, Any]:
    """What a run and the one it resumes must agree in; of fresh data, seed and first sample."""
    return {
        "problem": problem.name,
        "network": describe(problem.network),
        "parameters": int(problem.network.size),
        "solver": describe(problem.solver),
        "loss": describe(problem.loss),
        "batch_mean": bool(problem.batch_mean),
        "samples": int(problem.train.count),
        "dtype": str(problem.sample.x.dtype),
        "optimizer": describe(optimizer),
        "batch": int(batch),
        "seed": int(seed),
        "data_seed": None if isinstance(problem.train, Batch) else int(problem.train.seed),
        "train_data": _digest(*problem.sample),
        "test_data": _digest(*problem.test),
    }


def check_same_run(was: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise unless two identities agree in all that both say; older checkpoints say less."""
    if not was:
        raise ValueError(
            "resume does not say which run it is from; begin a new run from its parameters: "
            "fit(..., theta=resume.theta)"
        )
    both = [name for name in now if name in was and not _agree(name, was[name], now[name])]
    # Of other sizes or another dtype, the data are others for sure: not worth a word.
    if differing := [name for name in both if name not in DATA] or both:
        raise ValueError(
            "resume was made for "
            + "; for ".join(f"{name} {was[name]}, this run has {now[name]}" for name in differing)
        )


def _agree(name, was, now):
    return was == now or (name in PARTS and canonical(str(was)) == canonical(str(now)))


def canonical(text: str) -> str:
    """What `describe` says of a part, with equal values spelled alike; to compare, not to show.

    1 and 1.0 are equal in Python, as are 0.0 and -0.0, True and 1, or a number of NumPy's. A list
    is as good as a tuple, a dtype as its name, and a pair of equal numbers as one number. Earlier
    checkpoints hold the text only, so it is the text that is compared.
    """
    return PAIR.sub(r"\1", SPELLINGS.sub(_spelled, text))


def _spelled(match):
    kind = match.lastgroup
    if kind == "dtype":
        return np.dtype(next(filter(None, match.groups()[1:4]))).name
    if kind == "number":
        return _number(match[kind])
    if kind == "scalar":
        return _number(repr(getattr(np, match["kind"])(match[kind]).item()))
    if kind == "truth":
        return str(int("True" in match[kind]))
    if kind == "bracket":
        return {"[": "(", ",": ""}.get(match[kind], ")")
    return match[0]


def _number(text):
    try:
        return str(int(text))
    except ValueError:
        value = float(text)
        return str(int(value)) if value.is_integer() else repr(value)


def describe(part: object) -> str:
    """The repr without memory addresses; of a class that has none, name and plain attributes.

    Plain are numbers, text, None, lists and tuples of them, and arrays, as dtype, shape and digest.
    Attributes that begin with an underscore are left out.
    """
    name = type(part).__name__
    if type(part).__repr__ is not object.__repr__:
        return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(part))
    attributes = {k: _text(v) for k, v in getattr(part, "__dict__", {}).items() if k[0] != "_"}
    said = ", ".join(f"{k}={text}" for k, text in attributes.items() if text is not None)
    return f"{name}({said})" if said else name


def _text(value):
    """A plain value as text; None for any other."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, complex, str)):
        return repr(value)
    if isinstance(value, (tuple, list)):
        items = [_text(item) for item in value]
        return None if None in items else f"({', '.join(items)})"
    if is_array(value):
        return f"{value.dtype} {value.shape} {_digest(value)}"
    return None


def _digest(*arrays: Array) -> str:
    """The first digits of the SHA-256 of the bytes of arrays, the same on every device."""
    digest = hashlib.sha256()
    for array in arrays:
        if not array.dtype.hasobject:  # whose bytes are addresses
            digest.update(np.ascontiguousarray(to_host(array)).reshape(-1).view(np.uint8).data)
    return f"sha256 {digest.hexdigest()[:DIGITS]}"
