"""What is equal may be resumed, however it is spelled; what is not is refused."""

import dataclasses
import functools
import re

import numpy as np
import pytest

from bench.experiments import OPTIMIZERS, Oscillators, Poisson
from higcore import (
    HIG,
    SGD,
    Adam,
    GaussNewton,
    ScaleInvariantPhysics,
    fit,
    load_checkpoint,
    save_checkpoint,
)
from higcore.losses import SquaredError
from higcore.training.identity import canonical, check_same_run, describe, inner_parts
from nets import MLP, ConvNet1d, ConvNet2d
from solvers import OscillatorChain, Poisson2D, QuantumDipole, ScaledOutputs

CHAIN = Oscillators(OscillatorChain(steps=12, dt=0.5), (6,), "tanh", 40, 24)


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of somebody's own, which knows what it is made of."""

    a: object = 0
    inner: object = None


class Bare:
    """Another, without a repr."""

    def __init__(self, **parts):
        vars(self).update(parts)


class Said:
    """One whose repr is what it says."""

    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return self.text


EQUAL = [
    (HIG(lr=1.0), HIG(lr=1)),
    (HIG(lr=1.0), HIG(lr=np.float64(1.0))),
    (HIG(lr=0.5), HIG(lr=np.float32(0.5))),
    (HIG(lr=2, tau=1e-3), HIG(lr=np.int64(2), tau=0.001)),
    (GaussNewton(beta=0.0), GaussNewton(beta=-0.0)),
    (SGD(lr=1e22), SGD(lr=10**22)),
    (ScaleInvariantPhysics(rcond=0), ScaleInvariantPhysics(rcond=0.0)),
    (SquaredError(1), SquaredError(factor=1.0)),
    (OscillatorChain(dt=1), OscillatorChain(dt=1.0)),
    (OscillatorChain(linear=-0.0, cubic=np.float32(2)), OscillatorChain(linear=0, cubic=2)),
    (OscillatorChain(steps=np.int64(9)), OscillatorChain(steps=9)),
    (OscillatorChain(control=(0, 3)), OscillatorChain(control=(0.0, np.float64(3)))),
    (Poisson2D(points=8), Poisson2D(points=(8, 8))),
    (Poisson2D(points=8, spacing=(1, 1.0)), Poisson2D(points=(8, np.int32(8)), spacing=1)),
    (QuantumDipole(length=2), QuantumDipole(length=np.float64(2))),
    (ScaledOutputs(1), ScaledOutputs(1.0)),
    (MLP([4, np.int64(6), 12]), MLP((4, 6, 12))),
    (ConvNet1d(np.int64(4), 1, [np.int8(3)], 3, 12), ConvNet1d(4, 1, (3,), 3, 12)),
    (ConvNet2d(np.int64(4), 1, [3], 3), ConvNet2d([4, 4], 1, (np.int8(3),), 3, steps=[1])),
    (Part(inner=HIG(lr=1)), Part(inner=HIG(lr=1.0))),
    (Part(True), Part(1)),
    (Part(np.True_), Part(True)),
    (Part([1, (2.0,)]), Part((1.0, [2]))),
    (Part(np.float32), Part(np.dtype("float32"))),
    (Part("float64"), Part(np.float64)),
    (Part("f4"), Part("<f4")),
    (Part([-0.0, np.float64("nan")]), Part((0, float("nan")))),
    (Part(float("inf")), Part(np.float64("inf"))),
    (
        Part((np.ndarray, np.dtype("O"), "f9x", 'say "1"')),
        Part([np.ndarray, np.dtype("O"), "f9x", 'say "1"']),
    ),
    (Part(np.complex64), Part("complex64")),
    (Part((np.complex128(1 + 2j), 1)), Part((np.complex128(1 + 2j), 1.0))),
    (Bare(a=1, b=[1.0, 2]), Bare(a=1.0, b=(1, np.float64(2)))),
    (Bare(a=True), Bare(a=1)),
]
OTHERS = [
    (HIG(lr=1), HIG(lr=1 + 2**-52)),
    (HIG(lr=np.float32(0.1)), HIG(lr=0.1)),  # whose steps differ
    (OscillatorChain(dt=np.float32(0.1)), OscillatorChain(dt=0.1)),
    (HIG(lr=1), GaussNewton(lr=1)),
    (SGD(lr=1), SGD(lr=10)),
    (SGD(lr=2.0**53), SGD(lr=2**53 + 1)),
    (OscillatorChain(linear=1), OscillatorChain(linear=-1)),
    (OscillatorChain(control=(0.0, 3.0)), OscillatorChain(control=(3.0, 0.0))),
    (Poisson2D(points=(8, 6)), Poisson2D(points=(6, 8))),
    (Poisson2D(points=8), Poisson2D(points=(8, 6))),
    (MLP((4, 4, 4)), MLP((4, 4))),
    (Part("1"), Part("1.0")),
    (Part("1"), Part(1)),
    (Part("[a]"), Part("(a)")),
    (Part("it's 1"), Part("it's 1.0")),
    (Part("True"), Part("1")),
    (Part(True), Part(2)),
    (Part((3,)), Part(3)),
    (Part((2, 2)), Part((2, 2, 2))),
    (Part(np.float32), Part(np.float64)),
    (Part(float("inf")), Part(float("-inf"))),
    (Part(1j), Part(1)),
    (Said("Chain v1.10"), Said("Chain v1.1")),
    (Said("Grid((8, 8))"), Said("Grid(8)")),
    (Bare(a=np.arange(3)), Bare(a=np.arange(3) + 1)),
    (Bare(a=np.ones(3)), Bare(a=np.ones(3, np.float32))),
]


@pytest.mark.parametrize(("one", "other"), EQUAL, ids=lambda part: describe(part))
def test_equal_parts_are_one(one, other):
    for kind in ("optimizer", "solver"):
        check_same_run({kind: describe(one)}, {kind: describe(other)})
        check_same_run({kind: describe(other)}, {kind: describe(one)})


@pytest.mark.parametrize(("one", "other"), OTHERS, ids=lambda part: describe(part))
def test_others_are_not(one, other):
    for was, now in ((one, other), (other, one)):
        with pytest.raises(ValueError, match=r"^resume was made for solver .*, this run has "):
            check_same_run({"solver": describe(was)}, {"solver": describe(now)})


def test_what_is_no_part_is_compared_as_it_is():
    with pytest.raises(ValueError, match=r"for problem chain 1, this run has chain 1\.0"):
        check_same_run({"problem": "chain 1"}, {"problem": "chain 1.0"})
    check_same_run({"batch_mean": True, "seed": 1}, {"batch_mean": 1, "seed": 1.0})


def test_a_digest_is_no_number():
    """Of 16 hexadecimal digits, some read as one."""
    for one, other in (("1e10000000000000", "1e20000000000000"), ("0012", "12")):
        assert canonical(f"Bare(a=int64 (4,) sha256 {one})") != canonical(
            f"Bare(a=int64 (4,) sha256 {other})"
        )


def test_resuming_what_is_equal(tmp_path):
    """With the bits of the run that it was."""
    solver = OscillatorChain(steps=np.int64(12), dt=np.float64(0.5), linear=-0.0)
    problem = CHAIN.problem(seed=5)
    other = dataclasses.replace(problem, solver=solver, loss=SquaredError(1))
    whole = fit(problem, HIG(lr=1.0), batch=8, steps=9)
    save_checkpoint(tmp_path / "run.npz", fit(other, HIG(lr=1), batch=8, steps=4))
    part = load_checkpoint(tmp_path / "run.npz")
    resumed = fit(problem, HIG(lr=np.float64(1)), batch=8, steps=9, resume=part)
    assert np.array_equal(resumed.theta, whole.theta)
    assert resumed.identity == whole.identity
    with pytest.raises(
        ValueError, match=r"for optimizer HIG\(lr=1, .*, this run has HIG\(lr=0.5, "
    ):
        fit(problem, HIG(lr=0.5), batch=8, steps=9, resume=part)


EARLIER = {  # what checkpoints held before equal values were taken for equal
    "problem": "oscillators",
    "network": "MLP((4, 6, 12), activation='tanh')",
    "solver": "OscillatorChain(oscillators=2, steps=12, dt=0.5, cubic=1.0, linear=0.0, "
    "control=(0.0, 3.0))",
    "loss": "SquaredError(factor=1.0)",
    "optimizer": "Adam(lr=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-07)",
    "dtype": "float64",
}


def test_earlier_checkpoints_are_resumed():
    problem = CHAIN.problem(seed=5)
    run = fit(problem, Adam(), batch=8, steps=3)
    assert run.identity.items() >= EARLIER.items()
    run = dataclasses.replace(run, identity=EARLIER)
    assert fit(problem, Adam(), batch=8, steps=5, resume=run).steps == 5
    poisson = Poisson(Poisson2D((8, 8)), (5,), samples=8, test_samples=4).problem()
    was = {"solver": "Poisson2D(points=(8, 8), spacing=1.0)"}
    check_same_run(was, {"solver": describe(poisson.solver)})


def test_earlier_gauss_newton_steps_are_the_paper_s():
    optimizer = "GaussNewton(lr=0.1, tau=0.001, kappa=-1.0, beta=0.0, truncation='relative', "
    was = EARLIER | {"optimizer": optimizer + "method='auto')"}
    problem, now = CHAIN.problem(seed=5), GaussNewton(lr=0.1, tau=1e-3, paper=True)
    run = dataclasses.replace(fit(problem, now, batch=8, steps=3), identity=was)
    assert fit(problem, now, batch=8, steps=5, resume=run).steps == 5
    with pytest.raises(ValueError, match=r"this run has GaussNewton.*paper=False"):
        fit(problem, GaussNewton(lr=0.1, tau=1e-3), batch=8, steps=5, resume=run)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_with_its_numbers_spelled_otherwise(name):
    optimizer = CHAIN.settings[name].optimizer
    numbers = {
        field.name: np.float64(value)
        for field in dataclasses.fields(optimizer)
        if field.init and type(value := getattr(optimizer, field.name)) in (int, float)
        if field.name not in ("tries", "others", "average", "products")  # integers
    }
    assert numbers
    other = dataclasses.replace(optimizer, **numbers)
    check_same_run({"optimizer": describe(optimizer)}, {"optimizer": describe(other)})


# What an optimizer holds


class Around:
    """An optimizer of somebody's own that holds others; without a repr."""

    def __init__(self, **parts):
        vars(self).update(parts)
        self.first = next(v for v in parts.values() if hasattr(v, "update"))

    def init(self, theta):
        return self.first.init(theta)

    def update(self, at, state):
        return self.first.update(at, state)


@dataclasses.dataclass(frozen=True)
class AroundInRecord:
    """Another, a dataclass, whose repr says an address of what has no repr itself."""

    inner: object
    unsaid: object = dataclasses.field(default=None, repr=False)

    def init(self, theta):
        return self.inner.init(theta)

    def update(self, at, state):
        return self.inner.update(at, state)


class Mine(AroundInRecord):
    """A third one, whose repr tells nothing."""

    def __repr__(self):
        return "Mine"


class Both(Around):
    """One that holds others in a list and in a dict."""

    def __init__(self, one, other):
        super().__init__(one=[one], other={"then": other})

    @property
    def first(self):
        return self.one[0]

    @first.setter
    def first(self, value):
        pass


def closing_over(lr):
    return lambda: lr


def calling_itself(lr):
    def again(n):
        return again(n - 1) if n else lr

    return again


HOLDERS = {
    "an attribute": lambda lr: Around(inner=Adam(lr)),
    "within another": lambda lr: Around(inner=Around(inner=Adam(lr))),
    "a dataclass": lambda lr: AroundInRecord(Adam(lr)),
    "without a repr in a dataclass": lambda lr: AroundInRecord(Around(inner=Adam(lr))),
    "not in the repr": lambda lr: AroundInRecord(SGD(1e-3), Adam(lr)),
    "a repr that tells nothing": lambda lr: Mine(Adam(lr)),
    "a function": lambda lr: Around(inner=SGD(1e-3), rate=closing_over(lr)),
    "a function that calls itself": lambda lr: Around(inner=SGD(1e-3), rate=calling_itself(lr)),
    "a keyword": lambda lr: Around(inner=SGD(1e-3), rate=lambda *, lr=lr: lr),
    "a partial function": lambda lr: Around(inner=SGD(1e-3), rate=functools.partial(max, lr)),
    "of a function": lambda lr: Around(inner=SGD(1e-3), rate=functools.partial(closing_over(lr))),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_optimizers_in_an_optimizer_are_compared(name, tmp_path):
    make, problem = HOLDERS[name], CHAIN.problem(seed=5)
    save_checkpoint(tmp_path / "run.npz", fit(problem, make(0.0025), batch=8, steps=3))
    part = load_checkpoint(tmp_path / "run.npz")
    assert "0x" not in str(part.identity)
    assert fit(problem, make(np.float64(0.0025)), batch=8, steps=5, resume=part).steps == 5
    with pytest.raises(ValueError, match=r"^resume was made for optimizer.*0\.0025.* has .*0\.005"):
        fit(problem, make(0.005), batch=8, steps=5, resume=part)


def test_optimizers_in_lists_and_dicts_are_compared():
    held = [*inner_parts(Both(SGD(1), Adam(2)))]
    assert [re.sub(r"\(lr=(\d).*", r" \1", text) for text in held] == [
        "one[0]=SGD 1", "other['then']=Adam 2",
    ]  # fmt: skip


def test_an_optimizer_that_holds_itself_is_described():
    one = Around(inner=Adam())
    one.again = one
    assert len([*inner_parts(one)]) < 9


class Computing(Around):
    @functools.cached_property
    def rate(self):
        return closing_over(1.0)


def test_what_is_computed_when_asked_for_is_no_part():
    for optimizer, name in ((HIG(), "filter"), (Computing(inner=Adam()), "rate")):
        before = [*inner_parts(optimizer)]
        assert getattr(optimizer, name)
        assert [*inner_parts(optimizer)] == before


def test_parts_are_said_where_nothing_else_says_them():
    """A dataclass says what it holds itself."""
    with pytest.raises(ValueError, match="Adam") as refused:
        check_same_run(
            *(
                {"optimizer": describe(o), "optimizer_parts": ", ".join(inner_parts(o))}
                for o in (AroundInRecord(Adam(0.5)), AroundInRecord(Adam(0.25)))
            )
        )
    assert "optimizer_parts" not in str(refused.value)


def test_earlier_checkpoints_do_not_say_parts():
    problem = CHAIN.problem(seed=5)
    run = fit(problem, Around(inner=Adam(0.005)), batch=8, steps=3)
    older = {k: v for k, v in run.identity.items() if k != "optimizer_parts"}
    run = dataclasses.replace(run, identity=older)
    assert fit(problem, Around(inner=Adam(0.0025)), batch=8, steps=5, resume=run).steps == 5
