# ruff: noqa: SIM905  lists of names read better as text
"""A stand-in for CuPy that runs on the host and is stricter: no array turns into NumPy's unasked.

Every array hides a NumPy array. Mixing it with a NumPy array, handing it to a NumPy function, or
converting it is a TypeError, as in CuPy; `ndarray.get` is the way back. float(), int() and bool()
of an array are allowed, as in CuPy, where they wait for the device: `waits` counts them. Only names
that CuPy has exist (compared with CuPy's own where that is installed), and its quirks that matter
here are kept: `linalg.eigh` of a zero matrix is NaN, a full memory pool raises OutOfMemoryError.
"""

import functools
import gc
import importlib.machinery
import sys
import types
import weakref
from contextlib import contextmanager

import numpy as np

from higcore.kernels import RangeKernel

NAMES = """
    allclose arange ascontiguousarray broadcast_to column_stack concatenate cos diag empty
    empty_like eye full isfinite ldexp matmul maximum minimum multiply ones ones_like repeat roll
    sin sqrt stack tanh tile tril triu where zeros zeros_like
""".split()
LINALG_NAMES = "cholesky eigh inv norm pinv qr solve svd".split()
ATTRIBUTES = "dtype flags itemsize nbytes ndim shape size strides".split()
METHODS = """
    all any astype copy diagonal max mean min reshape sum swapaxes trace transpose
""".split()
OPERATORS = "add sub mul truediv floordiv mod pow matmul lt le gt ge eq ne and or xor".split()

live = set()  # every array that somebody still holds
waits = 0  # conversions to Python numbers: each would wait for the device


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


class watched:
    """Memory of a device, looked at with every new array once there is a ``limit`` in bytes."""

    limit, peak = None, 0

    @classmethod
    def look(cls, size):
        used = used_bytes()
        cls.peak = max(cls.peak, used)
        if used > cls.limit:
            raise OutOfMemoryError(f"out of memory allocating {size} bytes")


@contextmanager
def memory(limit=2**40):
    """Within it, arrays may hold ``limit`` bytes together; yields what knows their peak."""
    watched.limit, watched.peak = limit, used_bytes()
    try:
        yield watched
    finally:
        watched.limit, watched.peak = None, 0


class ndarray:
    """A NumPy array behind glass."""

    __module__ = "cupy"
    __array_ufunc__ = None  # NumPy arrays and scalars leave operators to this class
    __hash__ = None

    def __init__(self, hidden):
        self.hidden = hidden
        live.add(Identity(self))
        if watched.limit is not None:
            watched.look(hidden.nbytes)

    def __array__(self, *_, **__):
        raise TypeError("implicit conversion to a NumPy array; use .get()")

    def __array_function__(self, function, *_):
        raise TypeError(f"numpy.{function.__name__} was handed a device array")

    def get(self):
        """Copy to the host; waits for the device."""
        count_wait()
        return self.hidden.copy()

    @property
    def T(self):
        return ndarray(self.hidden.T)

    @property
    def imag(self):
        return ndarray(self.hidden.imag)

    def __getitem__(self, index):
        return ndarray(np.asarray(self.hidden[inside(index)]))

    def __setitem__(self, index, value):
        self.hidden[inside(index)] = inside(value)

    def __iter__(self):
        return (self[k] for k in range(len(self)))

    def __len__(self):
        return len(self.hidden)

    def __neg__(self):
        return ndarray(np.asarray(-self.hidden))

    def __invert__(self):
        return ndarray(np.asarray(~self.hidden))

    def __abs__(self):
        return ndarray(np.asarray(abs(self.hidden)))

    def __float__(self):
        return as_number(self, float)

    def __int__(self):
        return as_number(self, int)

    def __bool__(self):
        return as_number(self, bool)

    def __repr__(self):
        return f"strict {self.hidden!r}"


class Identity:
    """A weakly held array that is told apart by identity: arrays themselves have no hash."""

    def __init__(self, array):
        self.array = weakref.ref(array, lambda _: live.discard(self))


def used_bytes():
    """Bytes of the buffers under all arrays that somebody holds."""
    arrays = [a.hidden for item in list(live) if (a := item.array()) is not None]
    return sum({id(base := root(a)): base.nbytes for a in arrays}.values())


def root(array):
    """The array that owns the memory of a view."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def count_wait():
    global waits
    waits += 1


def as_number(array, kind):
    count_wait()
    return kind(array.hidden)


def inside(value):
    """The NumPy arrays behind what a function was given; a bare NumPy array is an intruder."""
    if isinstance(value, ndarray):
        return value.hidden
    if isinstance(value, np.ndarray):
        raise TypeError(f"a NumPy array {value.shape} met a device array")
    if isinstance(value, (tuple, list)):
        return type(value)(map(inside, value))
    return value


def outside(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return ndarray(np.asarray(value))
    return tuple(map(outside, value)) if isinstance(value, tuple) else value


def strict(function):
    """A NumPy function for device arrays."""

    @functools.wraps(function)
    def call(*args, **options):
        into = options.get("out")
        found = function(*map(inside, args), **{k: inside(v) for k, v in options.items()})
        return into if into is not None else outside(found)

    return call


def asarray(value, dtype=None):
    """The one function that takes NumPy arrays: it copies them to the device."""
    if isinstance(value, ndarray):
        return ndarray(value.hidden.astype(dtype or value.dtype, copy=False))
    return ndarray(np.array(value, dtype))


def eigh(a):
    """CuPy's, and cuSOLVER's, is NaN for a zero matrix."""
    if not a.hidden.any():
        return ndarray(np.full(len(a), np.nan)), ndarray(np.full(a.shape, np.nan))
    return outside(tuple(np.linalg.eigh(a.hidden)))


def operator(name, reflected):
    method = f"__{'r' if reflected else ''}{name}__"

    def apply(self, other):
        return outside(getattr(self.hidden, method)(inside(other)))

    return method, apply


def in_place(name):
    method = f"__i{name}__"

    def apply(self, other):
        getattr(self.hidden, method)(inside(other))
        return self

    return method, apply


def passed_on(name):
    return property(lambda self: getattr(self.hidden, name))


def strict_method(name):
    return lambda self, *args, **options: outside(
        getattr(self.hidden, name)(*map(inside, args), **options)
    )


for name in OPERATORS:
    setattr(ndarray, *operator(name, reflected=False))
    if name not in ("lt", "le", "gt", "ge", "eq", "ne"):
        setattr(ndarray, *operator(name, reflected=True))
        setattr(ndarray, *in_place(name))
for name in ATTRIBUTES:
    setattr(ndarray, name, passed_on(name))
for name in METHODS:
    setattr(ndarray, name, strict_method(name))


class Pool:
    """The memory pool's figures; blocks are kept, as far as memory is `watched`."""

    used_bytes = staticmethod(used_bytes)
    total_bytes = staticmethod(lambda: max(watched.peak, used_bytes()))
    free_bytes = staticmethod(lambda: 0)
    get_limit = staticmethod(lambda: 0)

    @staticmethod
    def free_all_blocks():
        gc.collect()
        watched.peak = used_bytes()


def namespace(name, **members):
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    vars(module).update(members)
    return module


def module():
    """The stand-in for ``import cupy``."""
    runtime = namespace(
        "cupy.cuda.runtime",
        memGetInfo=lambda: (max((watched.limit or 2**40) - used_bytes(), 0), 2**40),
        getDeviceCount=lambda: 1,
        runtimeGetVersion=lambda: 13000,
    )
    device = types.SimpleNamespace(synchronize=count_wait)
    members = {name: strict(getattr(np, name)) for name in NAMES}
    members |= {"float32": np.float32, "float64": np.float64, "asarray": asarray}
    linalg = {name: strict(getattr(np.linalg, name)) for name in LINALG_NAMES} | {"eigh": eigh}
    return namespace(
        "cupy",
        **members,
        ndarray=ndarray,
        linalg=namespace("cupy.linalg", **linalg),
        cuda=namespace("cupy.cuda", runtime=runtime, Device=lambda: device),
        get_default_memory_pool=Pool,
    )


failures_raise = False


@contextmanager
def errstate(linalg):
    """As CuPy's: whether a decomposition that failed raises."""
    global failures_raise
    before, failures_raise = failures_raise, linalg == "raise"
    try:
        yield
    finally:
        failures_raise = before


@contextmanager
def installed(monkeypatch):
    """``import cupy`` gives the stand-in, and kernels run on what its arrays hide."""
    on_host = RangeKernel.__call__

    def launch(kernel, n, args, scratch, cotangents):
        on_host(kernel, n, *map(inside, args), scratch=scratch, cotangents=cotangents)

    stand_in = module()
    cupyx = namespace("cupyx", errstate=errstate)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cupyx", cupyx)
        patch.setitem(sys.modules, "cupy", stand_in)
        patch.setattr(RangeKernel, "_cuda", property(lambda self: functools.partial(launch, self)))
        yield stand_in
