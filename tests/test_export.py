"""Exported networks give the numbers of the network, and need nothing of this library."""

import importlib.util
import runpy
import subprocess
import sys

import numpy as np
import pytest
import strict_cupy

from nets import MLP, ConvNet1d, ConvNet2d, Network, export, export_numpy, export_onnx
from nets.activations import Activation, Bounded
from nets.layers import Dense

NETS = {
    "tanh": MLP((3, 8, 5, 4)),
    "relu": MLP((3, 8, 4), "relu"),
    "one layer": MLP((3, 2), "linear"),
    "bounded": MLP((3, 8, 2), bounds=(-0.1, [0.3, 2])),
    "conv": ConvNet1d(9, 2, [3, 4], 3, 5),
    "conv, bounded": ConvNet1d(6, 1, [2], 4, 3, "relu", bounds=(-1, 1)),
    "conv, field": ConvNet2d((5, 4), 2, [3, 2], 3, steps=(1, 2)),
    "conv, field, bounded": ConvNet2d(4, 1, [2], 2, bounds=(-1, 1)),
    "conv, field, valid": ConvNet2d((5, 6), 2, [3, 2], 2, 3, "relu", padded=False, steps=(1, 2)),
    "conv on top": Network(ConvNet1d(9, 2, [3, 4], 3, 5).layers[:2]),
}
DTYPES = [np.float64, np.float32]
has_onnx = pytest.mark.skipif(
    importlib.util.find_spec("onnx") is None, reason="onnx is not installed"
)


def trained(name, dtype, rng):
    net = NETS[name]
    theta = rng.standard_normal(net.size).astype(dtype)
    return net, theta, rng.standard_normal((7, net.input_size)).astype(dtype)


def assert_same_numbers(found, net, theta, x):
    u = net(theta, x)
    assert found.dtype == u.dtype
    assert found.shape == u.shape
    assert abs(found - u).max() < 100 * np.finfo(u.dtype).eps * abs(u).max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NETS)
def test_the_python_file_is_the_network(name, dtype, rng, tmp_path):
    net, theta, x = trained(name, dtype, rng)
    path = tmp_path / "learned.py"
    export_numpy(path, net, theta)
    written = runpy.run_path(str(path))
    assert_same_numbers(written["network"](x), net, theta, x)
    for parameter, array in net.parameters(theta).items():  # bit for bit
        assert written[parameter].dtype == dtype
        assert (written[parameter] == array).all()
    if "conv" not in name:
        assert (written["network"](x) == net(theta, x)).all()
    with pytest.raises(ValueError, match=r"x must have shape \(b, \d+\), got"):
        written["network"](x[0])


def test_the_python_file_needs_numpy_alone(rng, tmp_path):
    net, theta, _ = trained("conv", np.float64, rng)
    export_numpy(tmp_path / "learned.py", net, theta)
    program = (
        "import learned, sys; assert not {'higcore', 'nets', 'numba', 'scipy'} & {*sys.modules}"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr


def test_a_repr_is_text_in_the_file(rng, tmp_path):
    """Whatever a class of one's own calls itself, it is not run."""
    kind = type("Odd", (MLP,), {"__repr__": lambda self: '"""\nraise SystemExit\n"""'})
    net = kind((3, 2))
    export_numpy(tmp_path / "learned.py", net, net.init(rng))
    assert runpy.run_path(str(tmp_path / "learned.py"))["MADE_OF"] == repr(net)


@has_onnx
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NETS)
def test_the_onnx_model_is_the_network(name, dtype, rng, tmp_path):
    import onnx
    from onnx.reference import ReferenceEvaluator

    net, theta, x = trained(name, dtype, rng)
    path = tmp_path / "learned.onnx"
    export_onnx(path, net, theta)
    model = onnx.load(path)
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["x", "u"]
    assert [opset.version for opset in model.opset_import] == [17]
    for samples in (x, x[:1]):
        (u,) = ReferenceEvaluator(model).run(None, {"x": samples})
        assert_same_numbers(u, net, theta, samples)


@has_onnx
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NETS)
def test_the_onnx_model_in_onnxruntime(name, dtype, rng, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    net, theta, x = trained(name, dtype, rng)
    export_onnx(tmp_path / "learned.onnx", net, theta)
    session = runtime.InferenceSession(
        tmp_path / "learned.onnx", providers=["CPUExecutionProvider"]
    )
    for samples in (x, x[:1]):
        (u,) = session.run(None, {"x": samples})
        assert_same_numbers(u, net, theta, samples)


EXPORTERS = [export_numpy, pytest.param(export_onnx, marks=has_onnx)]


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_parameters_on_a_device(exporter, rng, tmp_path, monkeypatch):
    net, theta, _ = trained("tanh", np.float64, rng)
    exporter(tmp_path / "host", net, theta)
    with strict_cupy.installed(monkeypatch) as xp:
        exporter(tmp_path / "device", net, xp.asarray(theta))
    assert (tmp_path / "host").read_bytes() == (tmp_path / "device").read_bytes()


class Own(Dense):
    """Might do anything."""


SINE = Activation(np.sin, np.cos)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Own(3, 2, "tanh", 0), r"layer 1 of network, Own\(3, 2, 'tanh', 0\), cannot be exported"),
        (Dense(3, 2, SINE, 0), "layer 1 of network, Dense.* cannot be exported; Dense and Conv "),
        (Dense(3, 2, type("Mine", (Bounded,), {})(0.0, 1.0), 0), "cannot be exported"),
    ],
)
def test_what_is_not_known_is_refused(exporter, layer, message, tmp_path):
    with pytest.raises(TypeError, match=message):
        exporter(tmp_path / "learned.py", Network([layer]), np.ones(8))
    assert list(tmp_path.iterdir()) == []


class Scaled(MLP):
    """More than its layers."""

    def forward(self, theta, x):
        return super().forward(theta, 2 * x)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_network_that_does_more_than_its_layers_is_refused(exporter, rng, tmp_path):
    path = tmp_path / "learned.py"
    path.write_text("what was there")
    net = Scaled((3, 2))
    with pytest.raises(ValueError, match="gives other numbers than its layers"):
        exporter(path, net, net.init(rng))
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_text() == "what was there"


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_of_any_size_are_exact(dtype, tmp_path):
    info = np.finfo(dtype)
    theta = np.array([info.tiny, -0.0, info.smallest_subnormal, 1 / dtype(3)], dtype)
    net = MLP((3, 1))
    export_numpy(tmp_path / "learned.py", net, theta)
    written = runpy.run_path(str(tmp_path / "learned.py"))
    found = np.append(written["weights_1"].ravel(), written["bias_1"])
    assert found.tobytes() == theta.tobytes()


def test_without_onnx(monkeypatch, rng, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setitem(sys.modules, "onnx.reference", None)
    with pytest.raises(ImportError, match=r"export_onnx needs onnx: pip install 'higcore\[onnx\]'"):
        export_onnx(tmp_path / "learned.onnx", NETS["tanh"], NETS["tanh"].init(rng))


def test_what_was_written_is_what_is_compared(monkeypatch, rng, tmp_path):
    monkeypatch.setitem(export.VALUES, "tanh", "np.sinh(a)")
    with pytest.raises(ValueError, match="gives other numbers"):
        export_numpy(tmp_path / "learned.py", NETS["tanh"], NETS["tanh"].init(rng))
