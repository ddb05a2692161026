"""Which run a `Result` is of, in plain text: what a run and the one it resumes must agree in."""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from ..backend import Array, is_array, to_host
from ..problem import Batch, FreshData, Problem, Shuffled
from ..protocols import Optimizer
from ..validation import is_optimizer

PARTS = ("network", "solver", "loss", "optimizer", "optimizer_parts")  # as `describe` says them
JUDGES = ("test_data", "validation_data")
DATA = ("data_seed", "train_data", *JUDGES)
IMPLIED = (*DATA, "optimizer_parts")  # where others differ, these are not worth a word
BEFORE = {
    "shuffle": False,
    "validation_data": None,
    "ridge": 0.0,
}  # of a run that does not say these
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
    | (?P<implied> ,\ (?:weights=None|paper=True)(?=[,)]) )
    """,
    re.VERBOSE,
)
PAIR = re.compile(r"(?<==)\(([^(),]+), \1\)")  # one number for both, as Poisson2D takes it


def identity(
    problem: Problem, optimizer: Optimizer, batch: int, seed: int, validation: Batch | None = None
) -> dict[str, Any]:
    """What a run and the one it resumes must agree in; of fresh data, seed and first sample."""
    return {
        "problem": problem.name,
        "network": describe(problem.network),
        "parameters": int(problem.size),
        "solver": describe(problem.solver),
        "loss": describe(problem.loss),
        "batch_mean": bool(problem.batch_mean),
        "ridge": float(problem.ridge),
        "samples": int(problem.train.count),
        "dtype": str(problem.sample.x.dtype),
        "optimizer": describe(optimizer),
        "optimizer_parts": ", ".join(inner_parts(optimizer)) or None,
        "batch": int(batch),
        "seed": int(seed),
        "shuffle": isinstance(problem.train, Shuffled),
        "data_seed": int(problem.train.seed) if isinstance(problem.train, FreshData) else None,
        "train_data": _digest(*problem.sample),
        "test_data": _digest(*problem.test),
        "validation_data": None if validation is None else _digest(*validation),
    }


def differences(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Names of what two identities differ in, of all that both say; older ones say less."""
    said = BEFORE | was
    return [name for name in now if name in said and not _agree(name, said[name], now[name])]


def check_same_run(was: dict[str, Any], now: dict[str, Any], other_data: bool = False) -> None:
    """Raise unless two identities are of one run or, if they may have, differ in data alone."""
    if not was:
        raise ValueError(
            "resume does not say which run it is from; begin a new run from its parameters: "
            "fit(..., theta=resume.theta)"
        )
    found, of_data = differences(was, now), {"samples", *DATA}
    if other_data:
        found = [name for name in found if name not in of_data]
    if differing := [name for name in found if name not in IMPLIED] or found:
        said = (f"{k} {(BEFORE | was)[k]}, this run has {now[k]}" for k in differing)
        hint = "" if set(found) - of_data else "; other_data=True goes on with other data"
        raise ValueError(f"resume was made for {'; for '.join(said)}{hint}")


def _agree(name, was, now):
    return was == now or (name in PARTS and canonical(str(was)) == canonical(str(now)))


def canonical(text: str) -> str:
    """What `describe` says of a part, with equal values spelled alike; to compare, not to show.

    1 and 1.0 are equal in Python, as are 0.0 and -0.0, True and 1, or a number of NumPy's. A list
    is as good as a tuple, a dtype as its name, and a pair of equal numbers as one number. Earlier
    checkpoints hold the text only, so it is the text that is compared, and what went without saying
    in earlier versions, a loss without weights and the paper's `GaussNewton`, still does.
    """
    return PAIR.sub(r"\1", SPELLINGS.sub(_spelled, text))


def _spelled(match):
    kind = match.lastgroup
    if kind == "implied":
        return ""
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
    Attributes that begin with an underscore are left out. Of a function it is the name, with the
    defaults and the plain values that it closes over.
    """
    if isinstance(part, MethodType):
        return f"{describe(part.__self__)}.{part.__name__}"
    if isinstance(part, FunctionType):
        name, values = part.__name__, _known(part)
    elif type(part).__repr__ is not object.__repr__:
        return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(part))
    else:
        name, values = type(part).__name__, _public(part)
    said = ", ".join(f"{k}={_text(v)}" for k, v in values.items() if _text(v) is not None)
    return f"{name}({said})" if said else name


def inner_parts(part: object, path: str = "", outer: tuple[object, ...] = ()) -> Iterator[str]:
    """What an optimizer holds, and what that holds, by name: optimizers, and what can be called.

    What `describe` says of the optimizer need not tell it: of a class without a repr it leaves it
    out, and of a function it has but the name.
    """
    for name, value in _held(part):
        is_outer = any(value is other for other in outer)  # a function may hold itself
        if (callable(value) or is_optimizer(value)) and not is_outer:
            yield f"{path}{name}={describe(value)}"
            yield from inner_parts(value, f"{path}{name}.", (*outer, value))


def _held(part):
    """Names and values of what an optimizer or a function is made of; none of any other thing."""
    made = functools.cached_property  # which are there once they were asked for
    if isinstance(part, FunctionType):
        named = _known(part)
    elif isinstance(part, functools.partial):
        named = {"func": part.func, "args": part.args} | part.keywords
    elif is_optimizer(part):
        cls, named = type(part), _public(part)
        named = {k: v for k, v in named.items() if not isinstance(getattr(cls, k, None), made)}
    else:
        named = {}
    for name, value in named.items():
        if not isinstance(value, (tuple, list, dict)):
            yield name, value
            continue
        items = value.items() if isinstance(value, dict) else enumerate(value)
        yield from ((f"{name}[{k!r}]", item) for k, item in items)


def _known(function):
    """Values that a function closes over, and its defaults."""
    defaults = {"defaults": function.__defaults__} if function.__defaults__ else {}
    known = inspect.getclosurevars(function).nonlocals
    return {**known, **defaults, **(function.__kwdefaults__ or {})}


def _public(part):
    attributes = getattr(part, "__dict__", {})
    return {name: value for name, value in attributes.items() if name[0] != "_"}


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
