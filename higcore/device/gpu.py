"""CUDA devices: is there one to use, and if not, what is missing; its memory, its stream.

Nothing here imports CuPy or numba.cuda before a GPU array shows up or a device is asked for.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import sys

from ..validation import check_choice

DEVICES = ("auto", "cpu", "gpu")
OLDEST_CUDA = (12, 0)


def choose_device(device: str = "auto") -> tuple[str, str]:
    """Resolve ``"auto" | "cpu" | "gpu"`` to ``("cpu" or "gpu", reason)``.

    ``"auto"`` takes a GPU if one can be used. The reason is a clause that says which GPU it is, or
    what is missing and, if that can be installed, how.

    Raises
    ------
    ValueError
        If ``device`` is none of the three.
    RuntimeError
        If ``"gpu"`` is asked for and cannot be used; the message says why.

    Examples
    --------
    >>> choose_device("cpu")
    ('cpu', 'the CPU was asked for')
    """
    check_choice("device", device, DEVICES)
    if device == "cpu":
        return "cpu", "the CPU was asked for"
    missing = obstacle()
    if missing and device == "gpu":
        raise RuntimeError(f"device 'gpu' cannot be used: {missing}")
    return ("cpu", f"no GPU: {missing}") if missing else ("gpu", device_name())


def obstacle() -> str | None:
    """What keeps a GPU from being used, as a clause with the pip line that helps; None if nothing.

    Everything is installed by one of two extras; the driver decides which.
    """
    driver = driver_version()
    if driver is None:
        return "no NVIDIA driver was found"
    if driver < OLDEST_CUDA:
        return f"the NVIDIA driver knows CUDA {_dotted(driver)}, and 12.0 is needed; update it"
    line = f"pip install 'higcore[cuda{13 if driver >= (13, 0) else 12}]'"
    try:
        import cupy
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "cupy"
        return f"CuPy {'is not installed' if missing else f'cannot be imported: {error}'}; {line}"
    built_for = _version(cupy.cuda.runtime.runtimeGetVersion())
    if built_for[0] > driver[0]:
        return (
            f"CuPy was built for CUDA {_dotted(built_for)}, and the driver knows "
            f"{_dotted(driver)}; pip uninstall cupy-cuda{built_for[0]}x and {line}"
        )
    try:
        if cupy.cuda.runtime.getDeviceCount() == 0:
            return "the NVIDIA driver shows no device"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CUDA finds no usable device ({error})"
    try:
        for library in ("cublas", "cusolver"):
            importlib.import_module(f"cupy_backends.cuda.libs.{library}")
    except ImportError as error:
        return f"a library of CUDA is not installed ({error}); {line}"
    if importlib.util.find_spec("numba_cuda") is None:
        return f"numba-cuda is not installed; {line}"
    return None


def driver_version() -> tuple[int, int] | None:
    """(major, minor) of the newest CUDA that the NVIDIA driver knows; None without a driver."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int(0)
    return _version(number.value) if library.cuDriverGetVersion(ctypes.byref(number)) == 0 else None


def _version(number):
    """(12, 4) of CUDA's 12040."""
    return number // 1000, number % 1000 // 10


def _dotted(version):
    return ".".join(map(str, version))


def device_name() -> str:
    """Name of the current CUDA device and its compute capability."""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
    capability = _dotted((properties["major"], properties["minor"]))
    return f"{properties['name'].decode()}, compute capability {capability}"


def available_memory() -> int:
    """Bytes that CuPy's memory pool can still hand out."""
    import cupy

    pool = cupy.get_default_memory_pool()
    free: int = cupy.cuda.runtime.memGetInfo()[0] + pool.free_bytes()
    limit = pool.get_limit()  # 0 for none
    return min(free, limit - pool.used_bytes()) if limit else free


def release_memory() -> None:
    """Give the blocks that nobody holds any more back to the device, for other programs."""
    sys.modules["cupy"].get_default_memory_pool().free_all_blocks()


def synchronize() -> None:
    """Wait until the current device has done all that it was asked."""
    sys.modules["cupy"].cuda.Device().synchronize()


def current_stream() -> int:
    """Address of CuPy's current stream; 0 for the default stream, and without CuPy."""
    return sys.modules["cupy"].cuda.get_current_stream().ptr if "cupy" in sys.modules else 0
