"""What becomes of learned parameters: predict, call, parameters by name; docs/using.md runs."""

import importlib.util
import re

import numpy as np
import pytest
from pages import blocks_of, run

from higcore import Batch, Problem
from higcore.losses import SquaredError
from nets import MLP, ConvNet1d, Network
from nets.layers import Dense
from solvers import OscillatorChain

NETS = [MLP((3, 5, 2)), MLP((3, 2), bounds=(0, [1, 2])), ConvNet1d(7, 2, [3, 4], 3, 5)]


@pytest.mark.parametrize("onnx", [False, True])
def test_the_page_runs(onnx, tmp_path):
    if onnx and importlib.util.find_spec("onnx") is None:
        pytest.skip("onnx is not installed")
    blocks = [block for block in blocks_of("using") if onnx or "onnx" not in block]
    printed = run([*blocks, "print(abs(y).max(), result.test_loss)"], tmp_path)
    assert (tmp_path / "controller.onnx").exists() is onnx
    largest, loss = map(float, printed.split())
    assert loss < 0.1
    assert largest < 0.3  # brought nearly to rest


@pytest.mark.parametrize("net", NETS, ids=repr)
def test_a_call_is_forward(net, rng, xp):
    theta = xp.asarray(rng.standard_normal(net.size))
    x = xp.asarray(rng.standard_normal((4, net.input_size)))
    assert (net(theta, x) == net.forward(theta, x)[0]).all()


@pytest.mark.parametrize("net", NETS, ids=repr)
def test_parameters_there_and_back(net, rng, xp):
    theta = xp.asarray(rng.standard_normal(net.size).astype(np.float32))
    named = net.parameters(theta)
    back = net.flat(dict(reversed(named.items())))  # by name, in any order
    assert back.dtype == np.float32
    assert (back == theta).all()
    back[:] = 0
    assert (theta != 0).all()
    named["weights_1"][...] = 0
    assert (theta[: named["weights_1"].size] == 0).all()
    assert (theta[named["weights_1"].size :] != 0).all()


def test_names_and_shapes():
    shapes = [{n: p.shape for n, p in net.parameters(np.ones(net.size)).items()} for net in NETS]
    assert shapes[0] == {
        "weights_1": (3, 5), "bias_1": (5,), "weights_2": (5, 2), "bias_2": (2,)
    }  # fmt: skip
    assert shapes[2] == {
        "weights_1": (3, 2, 3), "bias_1": (3,), "weights_2": (3, 3, 4), "bias_2": (4,),
        "weights_3": (12, 5), "bias_3": (5,),
    }  # fmt: skip


def test_named_weights_are_those_of_the_formula(rng):
    """A convolution written with W[k, channel, feature]."""
    net = ConvNet1d(5, 2, [3], 2, 1, activation="linear")
    theta, x = rng.standard_normal(net.size), rng.standard_normal((4, 10))
    named, signal = net.parameters(theta), x.reshape(4, 2, 5)
    W, w = named["weights_1"], named["weights_2"].reshape(4, 3)
    shifts = sum(np.einsum("icp,cf->ipf", signal[:, :, k : k + 4], W[k]) for k in range(2))
    u = np.einsum("ipf,pf->i", shifts + named["bias_1"], w) + named["bias_2"]
    assert np.allclose(net(theta, x)[:, 0], u, rtol=1e-12)


class Sines:
    """A layer of one's own, of which ``given`` says what it gives by name."""

    n_in = n_out = size = 2
    start = 6

    def __init__(self, given=None):
        if given:
            self.named_parameters = given


def with_sines(given=None):
    return Network([Dense(2, 2, "tanh", 0), Sines(given)])


def test_a_layer_of_ones_own_takes_part(rng):
    net, theta = with_sines(lambda theta: {"omega": theta[6:8]}), rng.standard_normal(8)
    assert [*net.parameters(theta)] == ["weights_1", "bias_1", "omega_2"]
    assert (net.flat(net.parameters(theta)) == theta).all()
    assert (net.flat({n: p.copy() for n, p in net.parameters(theta).items()}) == theta).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "layer 2, Sines, must have named_parameters(theta) -> {name: view of theta}"),
        (lambda theta: {"omega": theta[6:7]}, "named_parameters of layer 2, Sines, must give all"),
        (lambda theta: {}, "must give all of its 2 parameters, got shapes []"),
    ],
)
def test_a_layer_that_does_not_say_its_parameters(given, message):
    for call in (Network.parameters, lambda net, theta: net.flat({})):
        with pytest.raises(TypeError, match=re.escape(message)):
            call(with_sines(given), np.ones(8))


def test_layers_may_lie_in_theta_in_any_order(rng):
    net, theta = Network([Dense(3, 5, "tanh", 12), Dense(5, 2, "linear", 0)]), rng.random(32)
    assert (net.parameters(theta)["weights_2"].ravel() == theta[:10]).all()
    assert (net.flat(net.parameters(theta)) == theta).all()


@pytest.fixture
def problem(rng):
    x, z, target = rng.random((3, 5, 4))
    data = Batch(x, z[:, :3], target)
    return Problem(MLP((3, 12)), OscillatorChain(steps=12), SquaredError(), data, data)


def test_predict_needs_no_target(problem, rng):
    theta, (x, z, _) = problem.network.init(rng), problem.test
    expected = problem.predict(theta, problem.test)
    for found in (
        problem.predict(theta, x=x, net_input=z),
        problem.predict(theta, Batch(x, z, None)),
    ):
        for one, other in zip(found, expected, strict=True):
            assert (one == other).all()
    with pytest.raises(TypeError, match=r"batch\.target must be a NumPy or CuPy array"):
        problem.evaluate(theta, Batch(x, z, None))


def test_predict_where_the_arrays_are(problem, rng, xp):
    theta, (x, z, _) = xp.asarray(problem.network.init(rng)), map(xp.asarray, problem.test)
    u, y = problem.predict(theta, x=x, net_input=z)
    assert type(u) is type(y) is type(theta)
    assert y.shape == (5, 4)
