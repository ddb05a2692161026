"""ConvNet1d: values by a written-out convolution, derivatives by dot, Taylor and complex step."""

import numpy as np
import pytest
from oracles import complex_step_jacobian

from higcore import StackedJacobian, dot_test, rows, taylor_test
from higcore.rows import gram_definition, gram_terms
from nets import ConvNet1d

NETS = {
    "small": ConvNet1d(points=7, channels=2, features=[3, 4], width=3, outputs=5),
    "wide": ConvNet1d(points=9, channels=1, features=[2], width=5, outputs=3, activation="relu"),
    "no convolution": ConvNet1d(points=4, channels=2, features=[], width=3, outputs=3),
}


def oracle(net, theta, x):
    """The network with explicit sums over positions, shifts and channels; real or complex."""
    features = [layer.features for layer in net.layers[:-1]]
    first = net.layers[0]
    channels, width = (first.channels, first.width) if features else (None, None)
    act = {"tanh": np.tanh, "relu": lambda z: z * (z.real > 0)}
    start, name = 0, "relu" if net is NETS["wide"] else "tanh"
    signal = x.reshape(len(x), channels, -1).transpose(0, 2, 1) if features else x
    for n_out in features:
        n_in = signal.shape[2]
        W = theta[start : start + width * n_in * n_out].reshape(width, n_in, n_out)
        start += W.size
        bias = theta[start : start + n_out]
        start += n_out
        out = np.zeros((len(x), signal.shape[1] - width + 1, n_out), theta.dtype)
        for p in range(out.shape[1]):
            for k in range(width):
                for c in range(n_in):
                    out[:, p] += signal[:, p + k, c, None] * W[k, c]
        signal = act[name](out + bias)
    flat = signal.reshape(len(x), -1)
    W = theta[start : start + flat.shape[1] * net.output_size].reshape(flat.shape[1], -1)
    return flat @ W + theta[start + W.size :]


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_forward_is_the_sum(net, rng, xp):
    theta, x = rng.standard_normal(net.size), rng.standard_normal((4, net.input_size))
    u, _ = net.forward(xp.asarray(theta), xp.asarray(x))
    assert np.allclose(u if xp is np else u.get(), oracle(net, theta, x), atol=1e-12)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_dot_test_of_200_pairs(net, rng, xp):
    theta = xp.asarray(rng.standard_normal(net.size))
    _, tape = net.forward(theta, xp.asarray(rng.standard_normal((4, net.input_size))))
    for _ in range(200):
        v = xp.asarray(rng.standard_normal(net.size))
        w = xp.asarray(rng.standard_normal((4, net.output_size)))
        mismatch = dot_test(
            lambda v: net.tangent(theta, tape, v), lambda w: net.backward(theta, tape, w), v, w
        )
        assert mismatch < 1e-12


def test_taylor_orders(rng):
    net = NETS["small"]
    x, theta = rng.standard_normal((4, net.input_size)), rng.standard_normal(net.size)
    orders = taylor_test(
        lambda p: net.forward(p, x)[0],
        lambda p, d: net.tangent(p, net.forward(p, x)[1], d),
        theta,
        rng.standard_normal(net.size),
        step=1e-3,
    )
    assert all(abs(order - 2) < 0.05 for order in orders)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_rows_and_gram_are_those_of_the_complex_step(net, rng):
    theta, x = rng.standard_normal(net.size), rng.standard_normal((3, net.input_size))
    S = rng.standard_normal((3, 2, net.output_size))
    J = StackedJacobian(net, theta, net.forward(theta, x)[1], S)
    du = complex_step_jacobian(lambda p: oracle(net, p, x), theta)  # (3 outputs, t)
    reference = (S @ du.reshape(3, net.output_size, -1)).reshape(6, -1)
    assert np.abs(J.dense() - reference).max() < 1e-12 * np.abs(reference).max()
    assert np.allclose(J.gram(), reference @ reference.T, rtol=1e-12, atol=1e-11)
    plain = np.empty(2 * [J.shape[0]])
    gram_definition(J.blocks, J.blocks, plain)
    assert np.allclose(plain, J.gram(), rtol=1e-12, atol=1e-11)
    assert J.norm_squared() == pytest.approx((reference**2).sum())
    v, w = rng.standard_normal(net.size), rng.standard_normal(6)
    assert np.allclose(J.matvec(v), reference @ v)
    assert np.allclose(J.rmatvec(w), reference.T @ w)


def test_the_gram_terms_take_the_cheaper_way():
    net = ConvNet1d(points=14, channels=2, features=[20] * 6, width=3, outputs=384)
    theta = net.init(np.random.default_rng(0))
    _, tape = net.forward(theta, np.ones((2, 28)))
    blocks = net.rows(theta, tape, np.ones((2, 3, 384)))
    terms = [len(list(gram_terms(block, block))) for block in blocks]
    assert [block.positions for block in blocks] == [12, 10, 8, 6, 4, 2, 1]
    assert terms == [1, 1, 1, 1, 16, 4, 1]  # explicit rows, or all pairs of positions


def test_pairs_of_positions_make_the_gram_matrix_of_the_dense_rows(rng):
    """The paper's network, random throughout: two of its layers go by pairs of positions."""
    net = ConvNet1d(points=14, channels=2, features=[20] * 6, width=3, outputs=384)
    theta = net.init(rng)
    _, tape = net.forward(theta, rng.standard_normal((3, 28)))
    J = StackedJacobian(net, theta, tape, rng.standard_normal((3, 4, 384)))
    reference = J.dense() @ J.dense().T
    plain = np.empty(reference.shape)
    gram_definition(J.blocks, J.blocks, plain)
    for K in (J.gram(), plain):
        assert np.abs(K - reference).max() < 1e-12 * np.abs(reference).max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tile", [None, 2, 3])
def test_samples_by_samples_make_the_gram_matrix_of_the_dense_rows(tile, dtype, rng, monkeypatch):
    """Of all layers but the last, the first one too; in chunks and tiles that hold some samples."""
    net = ConvNet1d(points=8, channels=2, features=[5, 4], width=3, outputs=6)
    theta = net.init(rng).astype(dtype)
    _, tape = net.forward(theta, rng.standard_normal((7, 16)).astype(dtype))
    S = rng.standard_normal((7, 12, 6)).astype(dtype)
    monkeypatch.setattr(rows, "OF_A_BLOCK", -(10**9))
    monkeypatch.setattr(rows, "CHUNK_BYTES", 3 * 8 * 12 * 7 * 12)
    J = StackedJacobian(net, theta, tape, S, tile)
    J.balanced = tile == 2  # the input of whose bias is one among the others
    assert [block.by_samples for block in J._factors(slice(0, 2))] == [True, True, False]
    D = J.dense().astype(float)
    reference, rounding = D @ D.T, 1e-13 if dtype == np.float64 else 1e-6
    tolerance = rounding * np.abs(reference).max()
    assert np.abs(J.gram() - reference).max() < tolerance
    assert np.abs(np.triu(J.gram(False) - reference)).max() < tolerance
    if tile is None:  # nothing that was there is left
        K = np.full(reference.shape, np.nan)
        rows.gram_in_chunks(J.blocks, J.blocks, K, mirrored=False)
        assert np.abs(np.triu(np.nan_to_num(K - reference, nan=1e9))).max() < tolerance


def test_which_layers_go_sample_by_sample():
    """Where it was measured to be faster; with few rows a sample, calls cost more than they do."""

    def chosen(P, n_in, r):
        return rows.OuterProductRows(np.ones((1, P, n_in)), np.ones((1, r, P, 20)), 0).by_samples

    assert [chosen(*of) for of in ((10, 60, 28), (2, 60, 28), (10, 60, 4), (24, 60, 64))] == 4 * [
        True
    ]
    assert [chosen(*of) for of in ((12, 6, 28), (10, 60, 2), (4, 60, 1), (1, 40, 28))] == 4 * [
        False
    ]


def test_parameters_of_the_paper():
    net = ConvNet1d(points=14, channels=2, features=[20] * 6, width=3, outputs=384)
    assert net.size == 21984
    assert (net.input_size, net.output_size) == (28, 384)
