"""ConvNet2d: values by SciPy's convolve2d, derivatives by dot, Taylor and complex step of that."""

import tracemalloc

import numpy as np
import pytest
from oracles import central_difference_jacobian, complex_step_jacobian
from scipy.signal import convolve2d

from higcore import StackedJacobian, check_network, dot_test, half_inverse, taylor_test
from nets import ConvNet1d, ConvNet2d, Network, parts
from nets.layers import Conv, Conv1d, Dense

NETS = {
    "padded": ConvNet2d((4, 5), 1, [3, 2], 3),
    "steps": ConvNet2d(5, 2, [2, 2], 3, steps=(1, 2), activation="relu"),
    "even width": ConvNet2d((4, 3), 2, [3], 2, bounds=(-0.5, 2)),
    "valid": ConvNet2d((6, 7), 2, [3], 3, padded=False),
    "valid, steps, dense": ConvNet2d((6, 7), 2, [2, 3], 2, 3, padded=False, steps=(1, 2)),
    "dense": ConvNet2d((3, 4), 1, [2], 3, 3, bounds=([0, -1, 0], 2)),
    "wider than the grid": ConvNet2d((2, 1), 1, [2], 5),
}
every_net = pytest.mark.parametrize("net", NETS.values(), ids=NETS)


def oracle(net, theta, x):
    """The network by SciPy's full convolution, cut; real or complex theta, or complex x."""
    grid, channels, features, _, outputs, name = net.settings
    act = {"tanh": np.tanh, "relu": lambda z: z * (z.real > 0)}[name]
    weights = list(net.parameters(theta.real).values())
    imaginary = list(net.parameters(theta.imag.copy()).values())
    weights = [w + 1j * v for w, v in zip(weights, imaginary, strict=True)]
    field = x.reshape(len(x), channels, *grid)
    steps = [*net.steps, *([1] if outputs is None else [])]
    for k, step in enumerate(steps):
        z = convolved(field, weights[2 * k], weights[2 * k + 1], step, net.padded)
        field = act(z) if k < len(features) else z
    z = np.moveaxis(field, 1, -1).reshape(len(x), -1)
    if outputs is not None:
        z = z @ weights[-2] + weights[-1]
    if net.bounds is not None:
        low, high = (np.asarray(side) for side in (net.bounds.low, net.bounds.high))
        z = low + (high - low) * (1 + np.tanh(z)) / 2
    return z


def convolved(field, kernel, bias, step, padded):
    """(b, c, n_1, n_2) by a kernel (width, width, c, f): taps ``step`` apart, then what is seen."""
    width = len(kernel)
    reach = (width - 1) * step
    spread = np.zeros((reach + 1, reach + 1, *kernel.shape[2:]), kernel.dtype)
    spread[::step, ::step] = kernel
    first, last = (reach - reach // 2, reach // 2) if padded else (reach, reach)
    out = []
    for image in field:
        for f, constant in enumerate(bias):
            pairs = zip(image, spread[::-1, ::-1, :, f].transpose(2, 0, 1), strict=True)
            full = sum(convolve2d(channel, taps) for channel, taps in pairs) + constant
            out.append(full[first : len(full) - last, first : full.shape[1] - last])
    return np.stack(out).reshape(len(field), len(bias), *out[0].shape)


def host(array):
    return array if isinstance(array, np.ndarray) else array.get()


@every_net
def test_forward_is_a_convolution(net, rng, xp):
    theta, x = rng.standard_normal(net.size), rng.standard_normal((3, net.input_size))
    u, _ = net.forward(xp.asarray(theta), xp.asarray(x))
    reference = oracle(net, theta, x).real
    assert u.shape == reference.shape == (3, net.output_size)
    assert np.abs(host(u) - reference).max() < 1e-13 * np.abs(reference).max()


@every_net
def test_dot_test_of_200_pairs(net, rng, xp):
    theta = xp.asarray(rng.standard_normal(net.size))
    _, tape = net.forward(theta, xp.asarray(rng.standard_normal((2, net.input_size))))
    for _ in range(200 if xp is np else 20):
        v = xp.asarray(rng.standard_normal(net.size))
        w = xp.asarray(rng.standard_normal((2, net.output_size)))
        mismatch = dot_test(
            lambda v: net.tangent(theta, tape, v), lambda w: net.backward(theta, tape, w), v, w
        )
        assert mismatch < 1e-12


@pytest.mark.parametrize("name", ["padded", "valid, steps, dense"])
def test_taylor_orders(name, rng):
    net = NETS[name]
    x, theta = rng.standard_normal((3, net.input_size)), rng.standard_normal(net.size)
    orders = taylor_test(
        lambda p: net.forward(p, x)[0],
        lambda p, d: net.tangent(p, net.forward(p, x)[1], d),
        theta,
        rng.standard_normal(net.size),
        step=1e-3,
    )
    assert all(abs(order - 2) < 0.05 for order in orders)


@every_net
@pytest.mark.parametrize("tile", [None, 1])
def test_rows_and_gram_are_those_of_the_complex_step(net, tile, rng):
    theta, x = rng.standard_normal(net.size), rng.standard_normal((2, net.input_size))
    S = rng.standard_normal((2, 3, net.output_size))
    J = StackedJacobian(net, theta, net.forward(theta, x)[1], S, tile)
    du = complex_step_jacobian(lambda p: oracle(net, p, x), theta)
    reference = (S @ du.reshape(2, net.output_size, -1)).reshape(6, -1)
    scale = np.abs(reference).max()
    assert np.abs(J.dense() - reference).max() < 1e-12 * scale
    assert np.abs(J.gram() - reference @ reference.T).max() < 1e-12 * net.size * scale**2
    assert J.norm_squared() == pytest.approx((reference**2).sum())
    v, w = rng.standard_normal(net.size), rng.standard_normal(6)
    assert np.allclose(J.matvec(v), reference @ v, atol=1e-11 * scale)
    assert np.allclose(J.rmatvec(w), reference.T @ w, atol=1e-11 * scale)


@every_net
def test_pull_is_the_derivative_in_the_input(net, rng):
    theta, x = 0.5 * rng.standard_normal(net.size), rng.standard_normal((2, net.input_size))
    u_bar = rng.standard_normal((2, 2, net.output_size))
    pulled = net.pull(theta, net.forward(theta, x)[1], u_bar)
    for i in range(2):
        S = central_difference_jacobian(lambda v: net(theta, v[None])[0], x[i])
        assert np.allclose(pulled[i], u_bar[i] @ S, atol=1e-8)


@every_net
def test_the_checks_pass(net, xp):
    x = xp.asarray(np.random.default_rng(1).standard_normal((3, net.input_size)))
    check_network(net, x=x, show=False).raise_if_failed()


LAYERS = {
    "two axes": Conv((4, 5), 2, 3, 3, "tanh", 0, padded=True, step=2),
    "channels first": Conv((4, 5), 2, 3, 2, "tanh", 0, channels_first=True),
    "three axes": Conv((3, 4, 3), 2, 2, 2, "relu", 0, channels_first=True, padded=True),
    "one axis": Conv((9,), 2, 3, 3, "tanh", 0, padded=True, step=2),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_products_are_those_with_all_patches(layer, rng, xp):
    """The fast ways beside the definition, `patches` and `scatter`."""
    sizes = (3, layer.n_in), (layer.fan_in, layer.features), (3 * layer.positions, layer.features)
    a, weights, delta = (xp.asarray(rng.standard_normal(size)) for size in sizes)
    pairs = {
        "product": (a, weights),
        "weights_bar": (a, delta),
        "pull": (delta, weights, (3,)),
    }
    for name, arguments in pairs.items():
        plain = host(getattr(Dense, name)(layer, *arguments))
        fast = host(getattr(layer, name)(*arguments))
        assert fast.shape == plain.shape
        assert np.abs(fast - plain).max() < 1e-13 * np.abs(plain).max(), name


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_patches_and_scatter_are_transposes(layer, rng):
    a, bar = rng.standard_normal((2, layer.n_in)), rng.standard_normal((2, *layer.factor_shape[:2]))
    assert layer.patches(a).shape == bar.shape
    left, right = (layer.patches(a) * bar).sum(), (a * layer.scatter(bar, (2,))).sum()
    assert left == pytest.approx(right, rel=1e-12)


def test_three_axes_pass_the_checks():
    first, second = LAYERS["three axes"], Dense(72, 3, "linear", LAYERS["three axes"].size)
    check_network(Network([first, second]), show=False).raise_if_failed()


@pytest.mark.parametrize("samples", [1, 2])
def test_some_samples_at_a_time_are_all_of_them(samples, rng, xp, monkeypatch):
    net = NETS["steps"]
    theta, dtheta = (xp.asarray(rng.standard_normal(net.size)) for _ in range(2))
    x = xp.asarray(rng.standard_normal((5, net.input_size)))
    S = xp.asarray(rng.standard_normal((5, 3, net.output_size)))

    def passes():
        u, tape = net.forward(theta, x)
        blocks = net.rows(theta, tape, S)
        yield from (u, net.tangent(theta, tape, dtheta), net.backward(theta, tape, S[:, 0]))
        yield from (net.pull(theta, tape, S), *(block.delta for block in blocks))

    whole = [host(a) for a in passes()]
    for name in ("NUMBERS_ON_HOST", "NUMBERS_ON_DEVICE"):
        monkeypatch.setattr(parts, name, samples * net.layers[0]._numbers_of_sample())
    in_parts = [host(a) for a in passes()]
    for one, other in zip(in_parts, whole, strict=True):
        assert np.abs(one - other).max() < 1e-13 * np.abs(other).max()
    assert all((one == host(a)).all() for one, a in zip(in_parts, passes(), strict=True))


def test_the_number_of_cores_changes_no_bit(rng, monkeypatch):
    net = ConvNet2d(32, 1, [4], 3)
    theta, x = net.init(rng), rng.standard_normal((40, 1024))
    u, tape = net.forward(theta, x)
    assert net.layers[0]._numbers_of_sample() * 40 > parts.NUMBERS_ON_HOST
    bar = net.backward(theta, tape, u)
    monkeypatch.setattr("higcore.device.threads.cores", lambda: 1)
    assert (net.forward(theta, x)[0] == u).all()
    assert (net.backward(theta, tape, u) == bar).all()


def test_a_pass_holds_the_fields_and_no_patches(rng):
    """Beside the tape: a field or two of all samples, and copies of a few samples' inputs."""
    net, b = ConvNet2d(32, 1, [8, 8, 8], 3), 64
    theta, x = net.init(rng), rng.standard_normal((b, 1024))
    field, patches = 8 * b * 1024 * 8, 8 * b * 1024 * 72
    u, tape = net.forward(theta, x)
    assert sum(a.nbytes for a in tape[1:]) == 3 * field + u.nbytes
    tracemalloc.start()
    try:
        for one_pass, fields in (
            (lambda: net.forward(theta, x), 3.2),
            (lambda: net.tangent(theta, tape, theta), 2.1),
            (lambda: net.backward(theta, tape, u), 2.1),
        ):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            one_pass()
            peak = tracemalloc.get_traced_memory()[1] - before
            assert peak < fields * field + 2e7 < patches
    finally:
        tracemalloc.stop()


def test_parameters_by_name(rng):
    net = NETS["dense"]
    theta = net.init(rng)
    named = net.parameters(theta)
    shapes = {name: array.shape for name, array in named.items()}
    assert shapes == {
        "weights_1": (3, 3, 1, 2), "bias_1": (2,), "weights_2": (24, 3), "bias_2": (3,)
    }  # fmt: skip
    assert (net.flat(named) == theta).all()


def test_float32_stays_float32(rng, monkeypatch):
    monkeypatch.setattr(parts, "NUMBERS_ON_HOST", 1)
    net = NETS["steps"]
    theta = net.init(rng, np.float32)
    u, tape = net.forward(theta, rng.standard_normal((5, net.input_size)).astype(np.float32))
    found = u, net.backward(theta, tape, u), net.tangent(theta, tape, theta)
    assert {array.dtype for array in found} == {np.dtype(np.float32)}


@pytest.mark.parametrize("method", ["svd", "gram", "qr"])
@pytest.mark.parametrize("outputs", [2, None])  # fewer and more rows than parameters
def test_half_inverse_of_a_field(method, outputs, rng):
    net = ConvNet2d((4, 3), 1, [2], 2, outputs)
    theta, x = net.init(rng), rng.standard_normal((5, 12))
    S = np.broadcast_to(np.eye(net.output_size), (5, net.output_size, net.output_size))
    J = StackedJacobian(net, theta, net.forward(theta, x)[1], S)
    assert (J.shape[0] > J.shape[1]) == (outputs is None)
    g = rng.standard_normal(J.shape[0])
    step, _ = half_inverse(J, g, tau=1e-3, method=method)
    reference, _ = half_inverse(J.dense(), g, tau=1e-3, method="svd")
    assert np.linalg.norm(step - reference) < 1e-8 * np.linalg.norm(reference)


def test_reprs_say_all():
    net = ConvNet2d(6, 1, [2], 3, bounds=(0, 1), steps=[2])
    bounds = "bounds=(0.0, 1.0)"
    assert repr(net) == (
        f"ConvNet2d((6, 6), 1, (2,), 3, None, 'tanh', {bounds}, padded=True, steps=(2,))"
    )
    assert repr(net.layers[0]) == "Conv((6, 6), 1, 2, 3, 'tanh', 0, True, True, 2)"
    assert net.output_size == 36


# What a signal's convolution computed before there were fields, written out as it was then.


class Signal(Conv1d):
    """Patches, products and their transposes of one axis."""

    def patches(self, a):
        signal = a.reshape(len(a), self.points, self.channels)
        if self.channels_first:
            signal = a.reshape(len(a), self.channels, self.points).transpose(0, 2, 1)
        taps = [signal[:, k : k + self.positions] for k in range(self.width)]
        return np.concatenate(taps, axis=2)

    def scatter(self, patches, leading):
        taps = patches.reshape(*leading, self.positions, self.width, self.channels)
        out = np.zeros((*leading, self.points, self.channels), patches.dtype)
        for k in range(self.width):
            out[..., k : k + self.positions, :] += taps[..., k, :]
        if self.channels_first:
            out = out.swapaxes(-1, -2)
        return out.reshape(*leading, self.n_in)

    def forward(self, theta, a):
        weights, bias = self.parameters(theta)
        z = self.patches(a) @ weights + bias
        return self.activation.value(z).reshape(len(a), self.n_out)

    def tangent(self, theta, dtheta, a, a_out, da):
        (weights, _), (dweights, dbias) = self.parameters(theta), self.parameters(dtheta)
        dz = self.patches(a) @ dweights + self.patches(da) @ weights + dbias
        return self.activation.slope(a_out) * dz.reshape(len(a), self.n_out)

    def backward(self, theta, theta_bar, a, a_out, a_out_bar):
        weights, _ = self.parameters(theta)
        weights_bar, bias_bar = self.parameters(theta_bar)
        delta = (a_out_bar * self.activation.slope(a_out)).reshape(-1, self.features)
        weights_bar[:] = self.patches(a).reshape(-1, self.fan_in).T @ delta
        bias_bar[:] = delta.sum(axis=0)
        return self.scatter(delta @ weights.T, (len(a),))

    def pull_rows(self, theta, a, a_out, pulled, delta):
        weights, _ = self.parameters(theta)
        return self.scatter(delta.reshape(-1, self.features) @ weights.T, delta.shape[:2])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("b", [1, 16, 300])
def test_signals_keep_every_bit(b, dtype, rng):
    now = ConvNet1d(14, 2, [20, 20, 3], 3, 7)
    layers = [Signal(*layer.settings) for layer in now.layers[:-1]]
    then = Network([*layers, now.layers[-1]])
    theta, dtheta = (rng.standard_normal(now.size).astype(dtype) for _ in range(2))
    x, S = (rng.standard_normal(s).astype(dtype) for s in ((b, 28), (b, 4, 7)))

    def numbers(net):
        u, tape = net.forward(theta, x)
        yield from (u, net.tangent(theta, tape, dtheta), net.backward(theta, tape, S[:, 0]))
        yield net.pull(theta, tape, S)
        for block in net.rows(theta, tape, S):
            yield from (block.a, block.delta)

    for one, other in zip(numbers(now), numbers(then), strict=True):
        assert one.tobytes() == other.tobytes()
