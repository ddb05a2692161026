"""StackedJacobian and Linearisation against dense matrices and complex differences."""

import importlib

import numpy as np
import pytest
import scipy.sparse.linalg as sla
from oracles import complex_step_jacobian, mlp, oscillators

import higcore
from higcore import Batch, Problem, StackedJacobian, dot_test, taylor_test
from higcore.linearisation import DenseJacobian
from higcore.losses import SquaredError
from higcore.rows import gram_definition
from nets import MLP
from solvers import OscillatorChain

SIZES = (4, 6, 5, 8)


@pytest.fixture
def chain_problem(rng):
    chain = OscillatorChain(steps=8, dt=0.4)
    x = rng.random((12, 4))
    data = Batch(x, x.copy(), rng.random((12, 4)))
    return Problem(MLP(SIZES, "tanh"), chain, SquaredError(), data, data)


def random_jacobian(rng, b=6, outputs=3, sizes=SIZES, dtype=float, xp=np):
    net = MLP(sizes, "tanh")
    theta = xp.asarray(rng.standard_normal(net.size).astype(dtype))
    _, tape = net.forward(theta, xp.asarray(rng.standard_normal((b, sizes[0])).astype(dtype)))
    S = xp.asarray(rng.standard_normal((b, outputs, sizes[-1])).astype(dtype))
    return StackedJacobian(net, theta, tape, S)


def test_products_are_those_of_the_dense_matrix(rng, xp):
    J = random_jacobian(rng, xp=xp)
    D = J.dense()
    v, w = xp.asarray(rng.standard_normal(D.shape[1])), xp.asarray(rng.standard_normal(D.shape[0]))
    assert J.shape == D.shape
    assert xp.allclose(J.matvec(v), D @ v, atol=1e-12)
    assert xp.allclose(J.rmatvec(w), D.T @ w, atol=1e-12)
    assert xp.allclose(J.gram(), D @ D.T, atol=1e-12)
    assert abs(J.norm_squared() - float((D * D).sum())) < 1e-11 * J.norm_squared()


def products(J, v, w):
    return J.matvec(v), J.rmatvec(w), J.gram_of_parameters(), J.dense()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_few_columns_are_held_as_they_are(dtype, rng, xp, monkeypatch):
    """Products with J itself are those of its factors, in their dtypes; and nobody writes to it."""
    given = random_jacobian(rng, 20, 3, (2, 4, 3), dtype, xp)
    v, w = xp.asarray(rng.standard_normal(27)), xp.asarray(rng.standard_normal(60))
    found = products(given, v, w)
    given.dense()[:] = 0
    assert given.small.shape == (60, 27)
    assert all(bool((a == b).all()) for a, b in zip(found, products(given, v, w), strict=True))
    tiled = given.in_tiles(7)
    assert tiled.small is None  # which would hold the factors of all
    monkeypatch.setattr("higcore.linearisation.PART_NUMBERS", 1000)
    by_layers = StackedJacobian(given.network, given.theta, given.tape, given.S)
    assert by_layers.small is None
    rounding = 100 * np.finfo(dtype).eps
    for J in (tiled, by_layers):
        for array, expected in zip(found, products(J, v, w), strict=True):
            assert array.dtype == expected.dtype
            assert float(abs(array - expected).max()) < rounding * float(abs(expected).max())


def test_many_columns_are_not(rng):
    assert random_jacobian(rng).small is None


@pytest.mark.parametrize(("b", "outputs"), [(1, 1), (1, 4), (7, 1), (40, 3)])
def test_fast_gram_is_the_definition(b, outputs, rng):
    J = random_jacobian(rng, b, outputs)
    fast, plain = J.gram(), np.empty(2 * [J.shape[0]])
    gram_definition(J.blocks, J.blocks, plain)
    assert np.abs(fast - plain).max() < 1e-13 * np.abs(plain).max()
    assert np.array_equal(fast, fast.T)


def test_gram_of_float32_factors_is_float64(rng):
    J = random_jacobian(rng, dtype=np.float32)
    D = J.dense().astype(float)
    K = J.gram()
    assert K.dtype == np.float64
    # Entries of dense() are float32 products; K has rounded only the factors.
    assert np.abs(K - D @ D.T).max() < 1e-6 * np.abs(K).max()


def test_dot_test_of_200_pairs(rng, xp):
    J = random_jacobian(rng, xp=xp)
    for _ in range(200):
        v = xp.asarray(rng.standard_normal(J.shape[1]))
        w = xp.asarray(rng.standard_normal(J.shape[0]))
        assert dot_test(J.matvec, J.rmatvec, v, w) < 1e-12


def test_old_names_are_aliases_that_warn(rng):
    J = random_jacobian(rng)
    with pytest.warns(DeprecationWarning, match="StackedJacobian.where"):
        assert J.sample is J.where
    with pytest.warns(DeprecationWarning, match="higcore.device.gpu"):
        assert higcore.gpu is importlib.import_module("higcore.device.gpu")
    with pytest.raises(AttributeError, match="'nothing'"):
        higcore.nothing  # noqa: B018  # looking is what is tested


def test_scipy_takes_it_as_a_linear_operator(rng):
    J = random_jacobian(rng)
    D = J.dense()
    w = rng.standard_normal(J.shape[0])
    A = sla.aslinearoperator(J)
    assert np.allclose(A @ np.eye(J.shape[1]), D)
    assert np.allclose(A.T @ w, D.T @ w)
    solution = sla.lsmr(J, w, atol=1e-14, btol=1e-14, maxiter=1000)[0]
    assert np.allclose(solution, np.linalg.lstsq(D, w)[0], atol=1e-8)
    largest = sla.svds(A, k=2, return_singular_vectors=False)
    assert np.allclose(sorted(largest), sorted(np.linalg.svd(D)[1][:2]))


def test_dense_jacobian_has_the_same_methods(rng):
    J = random_jacobian(rng)
    D = DenseJacobian(J.dense())
    v, w = rng.standard_normal(J.shape[1]), rng.standard_normal(J.shape[0])
    assert np.allclose(D.matvec(v), J.matvec(v))
    assert np.allclose(D.rmatvec(w), J.rmatvec(w))
    assert np.allclose(D.gram(), J.gram())
    assert np.isclose(D.norm_squared(), J.norm_squared())


def chain_output(problem, batch):
    """theta -> y of network and solver, from the oracles, for real or complex theta."""

    def output(theta):
        u = mlp(theta, batch.net_input, SIZES, "tanh")
        pairs = zip(batch.x, u, strict=True)
        return np.stack([oscillators(x, ui, problem.solver) for x, ui in pairs])

    return output


def test_whole_chain_against_complex_differences(chain_problem, rng):
    batch = chain_problem.train[:5]
    theta = chain_problem.network.init(rng)
    J = chain_problem.linearise(theta, batch).jacobian().dense()
    reference = complex_step_jacobian(chain_output(chain_problem, batch), theta)
    assert np.abs(J - reference).max() < 1e-12 * np.abs(reference).max()


def test_gradient_is_j_transpose_g(chain_problem, rng):
    at = chain_problem.linearise(chain_problem.network.init(rng), chain_problem.train[:5])
    expected = at.jacobian().rmatvec(at.loss_gradient.reshape(-1))
    assert np.allclose(at.gradient(), expected, atol=1e-13)


def test_whole_chain_taylor_orders(chain_problem, rng):
    batch, theta = chain_problem.train[:5], chain_problem.network.init(rng)
    orders = taylor_test(
        lambda p: chain_problem.predict(p, batch)[1],
        lambda p, d: chain_problem.linearise(p, batch).jacobian().matvec(d).reshape(5, 4),
        theta,
        rng.standard_normal(len(theta)),
        step=1e-3,
    )
    assert all(abs(order - 2) < 0.05 for order in orders)


def test_loss_taylor_orders_with_and_without_batch_mean(chain_problem, rng):
    import dataclasses

    batch, theta = chain_problem.train[:5], chain_problem.network.init(rng)
    for mean in (True, False):
        problem = dataclasses.replace(chain_problem, batch_mean=mean)
        scale = 1 if mean else 5
        orders = taylor_test(
            lambda p, problem=problem, scale=scale: np.array(
                [scale * problem.linearise(p, batch).loss]
            ),
            lambda p, d, problem=problem: np.array([problem.linearise(p, batch).gradient() @ d]),
            theta,
            rng.standard_normal(len(theta)),
            step=1e-4,
        )
        assert all(abs(order - 2) < 0.05 for order in orders)
