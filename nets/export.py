"""What was learned, in a file that needs no higcore: Python with NumPy alone, or ONNX.

Both write a network's layers one after the other, know `Dense`, `Conv` and `Conv1d` with the
activations of `nets.activations`, and refuse any other. What was written is run and compared with
the network before it takes the place of ``path``.
"""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np

from higcore.backend import Array, to_host
from higcore.training.files import file_path, replacing
from higcore.training.identity import describe
from higcore.validation import check_arrays, check_finite
from higcore.version import __version__

from .activations import ACTIVATIONS, Bounded
from .layers import Conv, Conv1d, Dense
from .network import Network
from .windows import shifts

SAMPLES = 16  # on which what was written is compared
ROUNDING = 1000  # how far it may be off, in units of eps times the largest output
OPSET, IR_VERSION = 17, 8  # of ONNX 1.12, of 2022: what runs such models knows them
NUMBERS_A_LINE = 4
VALUES = {  # of activations, in Python
    "tanh": "np.tanh(a)",
    "relu": "np.maximum(a, 0)",
    "bounded": "np.clip(low_{k} + width_{k} * ((1 + np.tanh(a)) / 2), low_{k}, high_{k})",
}
OPERATORS = {"tanh": "Tanh", "relu": "Relu"}  # in ONNX


def export_numpy(path: str | Path, network: Network, theta: Array) -> None:
    """Write a Python file with a function ``network(x)`` -> u and the parameters in it.

    It needs NumPy alone, computes in theta's dtype, and holds every parameter exactly, as decimals.

    Parameters
    ----------
    path : str or Path
        The file, such as ``"controller.py"``; it is replaced as a whole or not at all.
    network : Network
        An `MLP`, a `ConvNet1d`, a `ConvNet2d` or a `Network` of their layers.
    theta : array (t,)
        Its parameters, NumPy or CuPy.

    Raises
    ------
    TypeError
        If a layer, or its activation, is none that can be written.
    ValueError
        If the network gives other numbers than its layers, one after the other, do.
    OSError
        If the file cannot be written.
    """
    theta = _exportable(path, network, theta)
    text = "\n".join(_program(network, theta))
    with replacing(path, len(text)) as partial:
        partial.write_text(text, encoding="utf-8")
        _compare(network, theta, runpy.run_path(str(partial))["network"])


def export_onnx(path: str | Path, network: Network, theta: Array) -> None:
    """Write an ONNX model with input ``x`` (b, n_0) and output ``u`` (b, |u|), in theta's dtype.

    It takes ``pip install onnx`` (the extra ``onnx``). The operators are those of opset 17, in
    float64 only those that onnxruntime has for it.

    Parameters
    ----------
    path, network, theta
        As for `export_numpy`.

    Raises
    ------
    ImportError
        If onnx is not installed.
    TypeError, ValueError, OSError
        As `export_numpy` does.
    """
    theta = _exportable(path, network, theta)
    try:
        from onnx.reference import ReferenceEvaluator
    except ImportError as error:
        raise ImportError("export_onnx needs onnx: pip install 'higcore[onnx]'") from error
    written = _model(network, theta).SerializeToString()
    with replacing(path, len(written)) as partial:
        partial.write_bytes(written)
        model: Any = ReferenceEvaluator(str(partial))
        _compare(network, theta, lambda x: model.run(None, {"x": x})[0])


def _exportable(path, network, theta):
    """theta on the host, or raise before anything is written."""
    file_path(path)
    if not isinstance(network, Network):
        inside = "; its attribute network may be one" if hasattr(network, "network") else ""
        raise TypeError(f"network must be a nets.Network, got {type(network).__name__}{inside}")
    check_arrays(theta=(theta, (network.size,)))
    check_finite("theta", theta)
    for k, layer in enumerate(network.layers, start=1):
        if type(layer) not in (Dense, Conv, Conv1d) or not _activation(layer):
            raise TypeError(
                f"layer {k} of network, {describe(layer)}, cannot be exported; Dense and Conv "
                f"with {', '.join(ACTIVATIONS)} or Bounded can"
            )
    return to_host(theta)


def _activation(layer):
    """Name of a layer's activation, "" for one that is not known."""
    if type(layer.activation) is Bounded:
        return "bounded"
    return next((name for name, known in ACTIVATIONS.items() if known == layer.activation), "")


def _compare(network, theta, written):
    """Raise unless what was written gives the network's numbers."""
    rng, sizes = np.random.default_rng(0), (SAMPLES, network.input_size)
    x = rng.standard_normal(sizes).astype(theta.dtype)
    u, found = network(theta, x), written(x)
    limit = ROUNDING * np.finfo(u.dtype).eps * abs(u).max()
    error = abs(found - u).max() if found.shape == u.shape else np.inf
    if not (error <= limit and found.dtype == u.dtype):
        raise ValueError(
            f"network {describe(network)} gives other numbers than its layers, one after the "
            f"other: they differ by {error:.1g}, where {limit:.1g} is rounding; nothing was written"
        )


def _program(network, theta):
    """The lines of a Python file."""
    yield f'"""u = network(x), which was learned; written by higcore {__version__}."""\n'
    yield "import numpy as np\n"
    yield f"MADE_OF = {describe(network)!r}"
    yield f"DTYPE = np.{theta.dtype}\n"
    for name, array in (network.parameters(theta) | _boxes(network, theta)).items():
        yield from _assignment(name, array)
    n_in, n_out = network.input_size, network.output_size
    yield "\ndef network(x):"
    yield f'    """Return u (b, {n_out}) for inputs x (b, {n_in})."""'
    yield "    a = np.asarray(x, DTYPE)"
    yield f"    if a.ndim != 2 or a.shape[1] != {n_in}:"
    yield f'        raise ValueError(f"x must have shape (b, {n_in}), got {{a.shape}}")'
    for k, layer in enumerate(network.layers, start=1):
        yield from _statements(k, layer)
    yield "    return a\n"


def _boxes(network, theta):
    """Bounds by name, and how far apart they are, as arrays."""
    named: dict[str, Array] = {}
    for k, layer in enumerate(network.layers, start=1):
        if isinstance(layer.activation, Bounded):
            sides = zip(("low", "high", "width"), layer.activation.box(theta), strict=True)
            named |= {f"{name}_{k}": side for name, side in sides}
    return named


def _assignment(name, array):
    """An array as decimals that give its bits back: those of its numbers in float64."""
    numbers = [repr(number) for number in array.ravel().tolist()]
    yield f"{name} = np.array(["
    for first in range(0, len(numbers), NUMBERS_A_LINE):
        yield f"    {', '.join(numbers[first : first + NUMBERS_A_LINE])},"
    yield f"], DTYPE).reshape({array.shape})"


def _statements(k, layer):
    """One layer on a."""
    if isinstance(layer, Conv):
        yield f"    a = a.reshape({_field(layer)})"
        if layer.channels_first:
            yield "    a = np.moveaxis(a, 1, -1)"
        if any(layer.padding):
            yield f"    a = np.pad(a, {[(0, 0), *[layer.padding] * layer.axes, (0, 0)]})"
        yield f"    a = sum({_shifts(k, layer)}) + bias_{k}"
    else:
        yield f"    a = a @ weights_{k} + bias_{k}"
    if (name := _activation(layer)) != "linear":
        yield f"    a = {VALUES[name].format(k=k)}"
    if isinstance(layer, Conv):
        yield f"    a = a.reshape(-1, {layer.n_out})"


def _shifts(k, layer):
    """What every tap of a convolution sees, times its weights."""
    taps, step = [f"k{j}" for j in range(1, layer.axes + 1)], layer.step
    first = taps if step == 1 else [f"{step} * {tap}" for tap in taps]
    seen = (f"{lo} : {lo} + {n}" for lo, n in zip(first, layer.grid_out, strict=True))
    over = " ".join(f"for {tap} in range({layer.width})" for tap in taps)
    return f"a[:, {', '.join(seen)}] @ weights_{k}[{', '.join(taps)}] {over}"


def _field(layer):
    """Shape of what a convolution is handed."""
    if layer.channels_first:
        return (-1, layer.channels, *layer.grid)
    return (-1, *layer.grid, layer.channels)


class _Graph:
    """Nodes of ONNX one after the other, and the constants that they take."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, name, array):
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def add(self, operator, *inputs, **attributes):
        """Name of the result."""
        from onnx import helper

        name = f"a_{len(self.nodes) + 1}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name


def _model(network, theta):
    """The network as a model of ONNX, checked."""
    from onnx import checker, helper

    graph, a = _Graph(), "x"
    for k, layer in enumerate(network.layers, start=1):
        a = _add_layer(graph, k, layer, a, theta)
    graph.nodes[-1].output[0] = "u"
    kind = helper.np_dtype_to_tensor_dtype(theta.dtype)
    sides = {"x": network.input_size, "u": network.output_size}
    x, u = (helper.make_tensor_value_info(name, kind, ["b", n]) for name, n in sides.items())
    whole = helper.make_graph(graph.nodes, "network", [x], [u], graph.constants)
    model = helper.make_model(
        whole,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="higcore",
        producer_version=__version__,
        doc_string=describe(network),
    )
    checker.check_model(model, full_check=True)
    return model


def _add_layer(graph, k, layer, a, theta):
    """One layer on a; the patches of a convolution are gathered, as `Conv.patches` are."""
    weights, bias = layer.parameters(theta)
    if isinstance(layer, Conv):
        a = _add_patches(graph, k, layer, a, weights.dtype)
    a = graph.add("MatMul", a, graph.constant(f"weights_{k}", weights))
    a = graph.add("Add", a, graph.constant(f"bias_{k}", bias))
    name = _activation(layer)
    if name == "bounded":
        a = _add_box(graph, k, layer.activation.box(theta), a)
    elif name != "linear":
        a = graph.add(OPERATORS[name], a)
    if isinstance(layer, Conv):
        a = graph.add("Reshape", a, graph.constant(f"flat_{k}", np.array([-1, layer.n_out])))
    return a


def _add_patches(graph, k, layer, a, dtype):
    """What the positions of a convolution see: places on the grid with its zeros, in a line."""
    a = graph.add("Reshape", a, graph.constant(f"field_{k}", np.array(_field(layer))))
    if layer.channels_first:
        a = graph.add("Transpose", a, perm=[0, *range(2, layer.axes + 2), 1])
    if any(layer.padding):
        before, after = ([0, *[zeros] * layer.axes, 0] for zeros in layer.padding)
        zeros = graph.constant(f"zeros_{k}", np.array([*before, *after]))
        a = graph.add("Pad", a, zeros, graph.constant(f"zero_{k}", dtype.type(0)))
    grid = [n + sum(layer.padding) for n in layer.grid]
    if layer.axes > 1:
        line = np.array([-1, math.prod(grid), layer.channels])
        a = graph.add("Reshape", a, graph.constant(f"line_{k}", line))
    a = graph.add("Gather", a, graph.constant(f"seen_{k}", _seen(layer, grid)), axis=1)
    shape = np.array([-1, layer.positions, layer.fan_in])
    return graph.add("Reshape", a, graph.constant(f"patches_{k}", shape))


def _seen(layer, grid):
    """Where on the grid, its points in a line, the taps of every position are: (P, width^d)."""
    points = np.arange(math.prod(grid)).reshape(grid)
    windows = shifts(tuple(grid), layer.width, layer.step)
    return np.stack([points[window].ravel() for window in windows], axis=1)


def _add_box(graph, k, box, a):
    """low + width ((1 + tanh a) / 2), and what keeps rounding within."""
    halves = [box[0].dtype.type(number) for number in (1, 0.5)]
    names = (f"{name}_{k}" for name in ("low", "high", "width", "one", "half"))
    low, high, width, one, half = map(graph.constant, names, (*box, *halves))
    a = graph.add("Mul", graph.add("Add", graph.add("Tanh", a), one), half)
    a = graph.add("Add", graph.add("Mul", a, width), low)
    return graph.add("Min", graph.add("Max", a, low), high)
