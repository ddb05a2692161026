"""`check_loss` must pass honest losses and name what is wrong with others."""

import numpy as np
import pytest

from higcore import check_loss
from higcore.losses import ComponentError, Huber, Infidelity, SquaredError, WeightedSamples

UNITS = np.array([1.0, 1e-3, 200.0, 1.0])


def points(seed=0, b=5, width=4):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((2, b, width))


def states(seed):
    return tuple(y / np.linalg.norm(y, axis=1, keepdims=True) for y in points(seed))


def wider(target):
    return np.hstack([target, np.linspace(0.0, 3.0, len(target))[:, None]])


HONEST = [
    SquaredError(),
    SquaredError(0.5, weights=[1.0, 0.5, 100.0, 3.0]),
    Huber(0.7, 3.0),
    Infidelity(),
    ComponentError(np.array([0.5, -0.5, 0.5, 0.5])),
    WeightedSamples(SquaredError(2.0, weights=[1.0, 2.0, 3.0, 4.0])),
    WeightedSamples(Huber(0.5)),
    WeightedSamples(Infidelity()),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("loss", HONEST, ids=repr)
def test_honest_losses_pass(loss, seed):
    y, target = states(seed)
    target = wider(target) if isinstance(loss, WeightedSamples) else target
    report = check_loss(loss, y, target, show=False)
    report.raise_if_failed()
    skipped = [row.what for row in report.rows if not row.passed]
    assert skipped == (["float32 in"] if isinstance(loss, ComponentError) else [])
    y, target = y.astype(np.float32), target.astype(np.float32)
    if not isinstance(loss, ComponentError):
        check_loss(loss, y, target, show=False).raise_if_failed()


@pytest.mark.parametrize("loss", [SquaredError(), SquaredError(weights=1 / UNITS**2)], ids=str)
def test_outputs_in_units_of_their_own(loss):
    y, target = (array * UNITS for array in points())
    check_loss(loss, y, target, show=False).raise_if_failed()


def test_an_output_that_is_none():
    """Its derivative is 0, where differences of the value of the others see their rounding."""
    report = check_loss(SquaredError(weights=[1.0, 0.0, 1e6, 3.0]), *points(), show=False)
    report.raise_if_failed()
    assert [row.what for row in report.rows if not row.passed] == ["1 of 4 components of y, 1"]


def test_it_prints_and_is_true(capsys):
    assert check_loss(SquaredError(), *points())
    assert "check_loss: SquaredError" in capsys.readouterr().out


def test_on_every_backend(xp):
    y, target = map(xp.asarray, points())
    check_loss(Huber(), y, target, show=False).raise_if_failed()


class Square:
    """A loss of a user's own, in which one thing after the other goes wrong."""

    def __init__(self, **wrong):
        for name, function in wrong.items():
            setattr(self, name, function)

    def value(self, y, target):
        return ((y - target) ** 2).sum(axis=1)

    def gradient(self, y, target):
        return 2 * (y - target)


def only_second(y, target):
    g = 2 * (y - target)
    g[:, 1] *= -1
    return g


def writing(y, target):
    y -= target
    return 2 * y


MISTAKES = [
    (
        {"gradient": lambda y, t: 2 * (t - y)},
        "gradient is minus the derivative of value: wrong sign",
    ),
    ({"gradient": lambda y, t: y - t}, "gradient is 0.5 times the derivative of value"),
    ({"gradient": lambda y, t: 0 * y}, "gradient is zero in place of the derivative of value"),
    ({"gradient": only_second}, "1 of 4 components are off, from 1 to 1: wrong sign there"),
    (
        {"gradient": lambda y, t: 2 * (y - t) / len(y)},
        "gradient is divided by the 5 samples of the batch, which Problem does itself",
    ),
    (
        {"value": lambda y, t: ((y - t) ** 2).sum(axis=1) / len(y)},
        "value is divided by the 5 samples of the batch, which Problem does itself",
    ),
    (
        {"value": lambda y, t: ((y - t) ** 2).sum(axis=1) + y.mean()},
        "value of a sample depends on what else is in the batch",
    ),
    (
        {"gradient": lambda y, t: 2 * (y - t) + y.mean()},
        "gradient of a sample depends on what else is in the batch",
    ),
    (
        {"value": lambda y, t: ((y - t) ** 2).mean()},
        "value is no NumPy or CuPy array but of type float64; is the sample axis summed away?",
    ),
    (
        {"value": lambda y, t: (y - t) ** 2},
        "value has shape (5, 4) in place of (5,)",
    ),
    (
        {"gradient": lambda y, t: (2 * (y - t)).sum(axis=0)},
        "gradient has shape (4,) in place of (5, 4); is the sample axis summed away?",
    ),
    ({"value": lambda y, t: np.log((y - t).sum(axis=1))}, "value holds"),
    ({"gradient": lambda y, t: y @ np.ones((3, 4))}, "raised ValueError:"),
    ({"gradient": writing}, "gradient changes the arrays it is given"),
    (
        {"gradient": lambda y, t: 2 * (y - t) * np.ones(1)},
        "gradient has dtype float64 for inputs of float32",
    ),
    ({"curvature": 1.0}, "curvature is 2 times too small for the derivative of gradient"),
    ({"curvature": 2.0 / 5}, "curvature is 5 times too small for the derivative of gradient"),
    ({"curvature": 0.0}, " times too small for the derivative of gradient"),
    ({"curvature": 8.0}, "curvature is 4 times too large for the derivative of gradient"),
    ({"curvature": -2.0}, "the curvature of a loss must be a finite number in [0, inf], got -2.0"),
    ({"curvature": [2.0, 2.0]}, "the curvature of a loss must be a number, or have shape"),
    (
        {"curvature": [2.0, 2.0, 0.5, 2.0]},
        "curvature is 4 times too small for the derivative of gradient, worst in component 2 of y",
    ),
    (
        {"curvature": [2.0, 2.0, 2.0, 20.0]},
        "curvature is 10 times too large for the derivative of gradient in component 3 of y",
    ),
    (
        {"curvatures": lambda y, t: 1.9 + 0 * y},
        "curvatures is 1.05 times too small for the derivative of gradient",
    ),
]


@pytest.mark.parametrize(("wrong", "sentence"), MISTAKES, ids=[m[1][:50] for m in MISTAKES])
def test_a_mistake_is_named(wrong, sentence):
    report = check_loss(Square(**wrong), *points(), show=False)
    verdicts = [row.verdict for row in report.failed]
    assert any(sentence in verdict for verdict in verdicts), report


def test_a_mistake_in_a_small_output_is_seen():
    y, target = (array * UNITS for array in points())

    def gradient(y, target):
        return (2 * (y - target) / UNITS**2 * np.array([1.0, -1.0, 1.0, 1.0])).astype(y.dtype)

    loss = Square(value=SquaredError(weights=1 / UNITS**2).value, gradient=gradient)
    (row,) = check_loss(loss, y, target, show=False).failed
    assert "component 1 of y" in row.verdict


def test_something_random_is_seen():
    rng = np.random.default_rng(0)
    loss = Square(value=lambda y, t: ((y - t) ** 2).sum(axis=1) + rng.random(len(y)))
    report = check_loss(loss, *points(), show=False)
    assert any("the second time" in row.verdict for row in report.failed)


def test_what_is_not_there_is_skipped():
    y, target = points(b=1)
    report = check_loss(Square(), y, target, show=False)
    skipped = {row.what: row.verdict for row in report.rows if row.passed is None}
    assert report.ok
    assert skipped == {
        "value, each sample alone": "skipped: it takes two samples",
        "gradient, each sample alone": "skipped: it takes two samples",
        "curvature": "skipped: no curvature is given; it is optional",
    }


def test_large_curvatures_are_a_bound():
    assert check_loss(Square(curvatures=lambda y, t: 50 + 0 * y), *points(), show=False)


def test_many_components_are_drawn():
    y, target = points(b=2, width=600)
    report = check_loss(SquaredError(), y, target, show=False)
    report.raise_if_failed()
    assert any("512 of 600 components" in row.what for row in report.rows)
