"""A half-inverse gradient that sets its own length: damped, with momentum, judged by others."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..backend import Array, module_of
from ..half_inverse import (
    OF_DAMPED,
    Decomposition,
    check_memory_limit,
    decompose,
    products_pay,
)
from ..linearisation import Linearisation, StackedJacobian
from ..problem import Problem
from ..protocols import OptimizerState
from ..spectral import lanczos
from ..spectral.filters import Damped
from ..spectral.ridge import Ridged
from ..spectral.spectrum import HalfInverseInfo, in_range
from ..validation import check_choice, check_count, check_finite, check_real_field
from .damped import ROUNDING, loss_at, noise_of_loss, or_else
from .memory import plan_step

FEWEST, FEW_ROWS, MANY_ROWS = 32, 512, 1024  # samples and rows of a batch if none is named
ROWS_A_PARAMETER, FEWEST_FIELDS = 4 / 3, 16  # and samples, of a J known by its products
REFUSED, WORSE, BETTER = 4.0, 1.3, 0.7  # what lambda is multiplied by
NEARBY = 0.1  # part of a step after which y is asked how it bends
MOST_BENT = 0.375  # |a| / |d|
RAMP = 200  # steps until the momentum is whole
RAMP_OF_PRODUCTS = 20  # the same where a step is cut short, and the next ones are to finish it
MEMORY, ASTRAY = 20, 4.0  # steps in a running mean of log loss; its rise that ends the momentum
MOST_MOMENTUM = 0.999
MOST_BATCHES = 2  # of others, so that they do not cost more than the step
MOST_JUDGED = 8  # steps by the same others
MOST_USED = 4  # 1 / part of the data that these steps see
FLOOR, CAP = 1e-14, 1e6  # of lambda over h |J|_F^2


@dataclass(frozen=True)
class AdaptiveHIG:
    r"""A damped half-inverse gradient that needs no step size, truncation or batch to be chosen.

    The step d is the least of a quadratic model of the loss with a penalty in powers of J,

    .. math::

        \min_d \; L - g \cdot J d + \tfrac h2 |J d|^2 + \tfrac \lambda2 \sum_k
        \left(\frac{s_k^2}{|J|_F^2}\right)^{\mu} \bigl(v_k \cdot (d - m p)\bigr)^2,
        \qquad
        d = m p + V \frac{S}{h S^2 + \lambda (S^2 / |J|_F^2)^{\mu}} U^T (g - h J m p),

    with the curvature h of L in y, the last step p and a momentum m: the batch decides what it
    sees, the last step the rest. Between the gradient (large lambda, mu = 0), HIG (large lambda,
    mu = 3/4), Levenberg-Marquardt (mu = 0) and Gauss-Newton (small lambda) it finds its own way:

    - y bends along the step, and what that does to g asks for a correction a with the same lambda,
      added to d if it is no longer than 3/8 of it (geodesic acceleration). One more forward pass,
      at theta - d/10, shows y''.
    - A step that does not lower the loss of its batch, or leads to NaN, Inf or an exception, is not
      taken, and lambda multiplied by 4; without momentum, four of them are tried, which costs
      no other decomposition.
    - Else samples that the batch does not hold decide, the same ones for up to 8 steps: lambda is
      multiplied by 0.7 if their loss fell and by 1.3 if it rose.
      A batch of fewer rows than there are parameters can always be fitted, so what happens to its
      own loss says little. At rest, 2 steps of 5 are good for the others: a rule that asks for more
      stops too early.
    - With ``"lanczos"`` a step ends after 60 products with J, finished or not, on a large batch;
      the momentum carries on what was begun, and is whole after 20 steps. Such a step is not bent.
    - Else the momentum grows from 0 to ``momentum`` in 200 steps. Where a batch sees so little of
      what is to be learned that carrying on leads astray, and the loss of the others rises to four
      times its least (running means over 20 steps), it is given up.
    - A sample asks for a change of its y by ``reach`` at most: g_i is shortened to it. One sample
      that is far off, where the linear model says nothing, would otherwise rule the step.
    - Every ``average`` steps, theta becomes the mean of the last ones if that is better for the
      others, which takes the noise of the batches out.

    With a penalty w/2 |theta|^2 on theta (`Problem.regularised`) it is the same step of J with rows
    of theta below it, and so with s^2 + w / h in place of s^2:

    .. math::

        d = m p + \left[h J^\top J + w + \lambda \left(\frac{J^\top J + w / h}{|J|_F^2}\right)^{\mu}
        \right]^{-1} \bigl(J^\top (g - h J m p) + w (\theta - m p)\bigr) .

    What the batch does not see is held by lambda as well, so that a small w makes a small change of
    it. Losses that judge hold the penalty; ``reach`` is of samples alone.

    The step does not depend on whether L is a mean or a sum, nor on the loss's factor: h holds what
    g holds. Where h is no single number, the rows of J are multiplied by its roots.

    Parameters
    ----------
    mu : float in [0, 1]
        Power of the penalty: 0 is Levenberg-Marquardt's, 3/4 the norm in which HIG is the steepest
        descent. Between 1/4 and 3/8 is good on all problems that were tried.
    momentum : float in [0, 1)
        The largest m.
    damping : float
        First lambda, relative to h times the squared Frobenius norm of J.
    reach : float
        Relative to the distance sqrt(2 l / h) at which the first batch is from y without a loss, l
        and h loss and curvature of a sample.
    others : int
        How many samples judge a step, but not more than two batches of them.
    average : int
        Number of steps between averages.
    tolerance, products
        Of ``"lanczos"``, when a step is good enough, and how many products with J it may take.
    method : {"auto", "lanczos", "tridiagonal", "band", "gram", "qr", "svd"}
        How a step is found. ``"lanczos"`` needs neither K nor S nor rows of J, but a tangent and a
        backward pass for each of its products; ``"auto"`` takes it where K does not fit, or
        is more work than one of 4096 rows.
    memory_limit
        As for `HIG`.

    Notes
    -----
    ``update`` returns a `HalfInverseInfo` with damping, gain and ``held_out``.
    Without a batch, `fit` asks `batch_for`.

    References
    ----------
    Momentum: Goldshlager, Abrahamsen and Lin, A Kaczmarz-inspired approach to accelerate the
    optimization of neural network wavefunctions, J. Comput. Phys. 516 (2024), for mu = 0.
    Geodesic acceleration: Transtrum and Sethna, Improvements to the Levenberg-Marquardt algorithm
    for nonlinear least-squares minimization, arXiv:1201.5885.
    """

    mu: float = 0.375
    momentum: float = 0.98
    damping: float = 0.01
    reach: float = 0.2
    others: int = 128
    average: int = 100
    tolerance: float = lanczos.TOLERANCE
    products: int = 60
    method: str = "auto"
    memory_limit: float | None = field(default=None, repr=False)
    tries: ClassVar[int] = 4  # of a step on one batch

    def __post_init__(self) -> None:
        check_real_field(self, "mu", 0.0, 1.0)
        check_real_field(self, "momentum", 0.0, MOST_MOMENTUM)
        for name in ("damping", "reach"):
            check_real_field(self, name, 0.0, open_low=True)
        check_count("others", self.others)
        check_count("average", self.average)
        check_real_field(self, "tolerance", 0.0)
        check_count("products", self.products)
        check_choice("method", self.method, OF_DAMPED)
        check_memory_limit(self.memory_limit)

    def batch_for(self, problem: Problem) -> int:
        """Return the batch size that is taken if none is named.

        512 rows or 32 samples, whichever is more; with few parameters t as many more rows m as
        leave the cost m t^2 of a step at 512^3. Where 32 samples are more than 1024 rows, a matrix
        K would hold too few of them to learn from: 16 samples, or 4 rows for 3 parameters if that
        is more, of which ``"auto"`` takes products with J. If that does not pay, as where the
        solver keeps more numbers a sample than there are parameters, so that its passes are dear,
        1024 rows.
        """
        r, t = problem.output_size, problem.size
        many = min(max(int(ROWS_A_PARAMETER * t / r), FEWEST_FIELDS), problem.train.count)
        cheap = problem.model.kept_size <= t
        if FEWEST * r > MANY_ROWS and cheap and products_pay(many * r, t):
            return many
        wanted = max(FEWEST, FEW_ROWS // r)
        if t < FEW_ROWS:
            wanted = max(wanted, FEW_ROWS**3 // (t * t * r))
        else:
            wanted = min(wanted, MANY_ROWS // r)
        return min(max(wanted, 1), problem.train.count)

    def init(self, theta: Array) -> OptimizerState:
        """Return the state: numbers, the last step, and the sum for the next average."""
        numbers = {
            "steps": 0, "batch": 0, "damping": 0.0, "exponent": 0, "reach": 0.0,
            "carrying": 1, "level": 0.0, "least": 0.0, "first_judged": -1, "loss_of_others": 0.0,
        }  # fmt: skip
        return numbers | {"last": 0 * theta, "sum": 0 * theta}

    def update(
        self, linearisation: Linearisation, state: OptimizerState
    ) -> tuple[Array, OptimizerState, HalfInverseInfo]:
        """Return (step, state, info); the step is 0 if it was refused."""
        at, state = linearisation, dict(state)
        for name in ("damping", "reach", "level", "least"):
            check_finite(f"the optimizer's {name}", state[name])
        state["batch"] = state["batch"] or len(at.output)
        state["reach"] = state["reach"] or self.reach * _typical_distance(at)
        others = self._others(at, state)
        if others is None:  # the last step knows nothing that such a batch does not
            state["carrying"] = 0
        trial = self._last_trial(at, others, state)
        step = trial.step if trial.good else 0 * at.theta
        state["steps"] += 1
        state |= {"last": step, "sum": state["sum"] + (at.theta - step)}
        if state["steps"] % self.average == 0:
            step, state = self._to_average(at, step, others, state)
        return step, state, trial.info

    def _last_trial(self, at, others, state):
        """The first trial that is good, or the last one; each leaves its numbers in the state."""
        model = self._model(at, state)
        for _ in range(self.tries):
            trial = self._judged(self._trial(model, state), at, others, state)
            state |= next_numbers(state, trial, self._factor(trial))
            if trial.good or trial.gain is None:
                break
            model = model.without_momentum()
        return trial

    def _others(self, at, state):
        """Samples that judge, the same for some steps, in whose batches none of them is.

        Their loss at theta is then known from the step before.
        """
        data, size = at.problem.train, state["batch"]
        count = min(max(data.count // (MOST_USED * size), 1), MOST_JUDGED)
        first = state["steps"] // count * count
        others = data.beside(
            range(first, first + count), size, min(self.others, MOST_BATCHES * size)
        )
        if state["first_judged"] != first:
            loss = 0.0 if others is None else losses(at, others, at.theta)[0]
            state |= {"first_judged": first, "loss_of_others": loss}
        return others

    def _model(self, at, state):
        """The `Model` around a point, for the momentum and the reach of a state."""
        f = Damped(1.0, self.mu)
        method, J = plan_step(
            at, self.method, f, self.memory_limit, unit=True, products=self.products
        )
        carried = self._momentum(state, method) * state["last"]
        g, h = at.unit_gradient.astype(np.float64, copy=False), at.unit_curvature
        asked = J.column(shortened(g, state["reach"] * h))
        beyond = asked - h * J.matvec(carried) if carried.any() else asked
        decomposed = decompose(
            J, beyond, method, self.memory_limit, tolerance=self.tolerance, products=self.products
        )
        return Model(at, J.column(g), J, asked, carried, decomposed)

    def _trial(self, model, state):
        """The step that the lambda of a state gives, and what the model says of it."""
        f = self._penalty(model, state)
        seen, info = model.decomposed.apply(f)
        step = model.carried + seen
        Jd = model.J.matvec(step)
        predicted = float((model.g - f.curvature / 2 * Jd) @ Jd)
        if predicted > 0 and not model.truncated:  # NaN is not
            step = step + self._bent(model, f, step, Jd)
        info = replace(info, damping=in_range(f.damping, f.exponent))
        return Trial(step, predicted, f.damping, f.exponent, info)

    def _penalty(self, model, state):
        """`Damped` with the lambda of a state, in the units of a decomposition."""
        h, decomposed = model.at.unit_curvature, model.decomposed
        exponent, scale = 2 * decomposed.exponent, decomposed.size**2 or 1.0
        damping = in_range(state["damping"], state["exponent"] - exponent)
        damping = damping or self.damping * h * scale
        damping = min(max(damping, FLOOR * h * scale), CAP * h * scale)
        return Damped(damping, self.mu, h, scale, exponent)

    def _bent(self, model, f, step, Jd):
        """What is added to a step because y bends along it, so that it does what it promised."""
        bend = model.bend(step, Jd)
        if bend is None:
            return 0.0
        norm = module_of(step).linalg.norm
        correction, _ = model.decomposed.of(bend).apply(f)
        return correction if norm(correction) <= MOST_BENT * norm(step) else 0.0

    def _momentum(self, state, method):
        """The m of a step."""
        ramp = RAMP_OF_PRODUCTS if method == lanczos.NAME else RAMP
        return self.momentum * min(state["steps"] / ramp, 1.0) if state["carrying"] else 0.0

    def _judged(self, trial, at, others, state):
        """A trial with what its batch, and samples that the batch does not hold, say of it."""
        rounding = ROUNDING * float(np.finfo(at.output.dtype).eps)
        if trial.predicted <= noise_of_loss(at, rounding):  # NaN is no such thing
            return trial
        theta = at.theta - trial.step
        before, after = at.loss, loss_at(at, theta)
        total = at.scale * len(at.output)  # L over its mean per sample
        gain = total * (before - after) / trial.predicted
        if others is not None:  # else the batch is all there is
            before, after = state["loss_of_others"], losses(at, others, theta)[0]
        held_out = after / before if before > 0 else math.inf
        info = replace(trial.info, gain=gain, held_out=held_out)
        return trial._replace(gain=gain, before=before, after=after, info=info)

    def _factor(self, trial):
        """What lambda is multiplied by after a trial."""
        if trial.gain is None:
            return 1.0
        if not trial.good:
            return REFUSED
        return BETTER if trial.after < trial.before else WORSE

    def _to_average(self, at, step, others, state):
        """To the mean of the last parameters, if they are better there."""
        mean = state["sum"] / self.average
        batch = at.batch if others is None else others
        now, then = losses(at, batch, at.theta - step, mean)
        state |= {"sum": 0 * step}
        if not then < now:
            return step, state
        return at.theta - mean, state | {"last": 0 * step, "loss_of_others": then}


@dataclass(frozen=True)
class Model:
    """L - g.Jd + h/2 |Jd|^2, and J decomposed for what is ``asked`` of it beyond ``carried``.

    g, h and J are the ``unit_gradient``, ``unit_curvature`` and ``unit_jacobian``, over rows of
    theta if there is a penalty on it.
    """

    at: Linearisation
    g: Array
    J: StackedJacobian | Ridged
    asked: Array
    carried: Array
    decomposed: Decomposition

    @property
    def truncated(self) -> bool:
        """Whether a step is as good as some products with J make it."""
        return self.decomposed.method == lanczos.NAME

    def without_momentum(self) -> Model:
        """Return it with nothing carried on."""
        if not self.carried.any():
            return self
        decomposed = self.decomposed.of(self.asked)
        return replace(self, carried=0 * self.carried, decomposed=decomposed)

    def bend(self, step: Array, Jd: Array) -> Array | None:
        r"""Return H y''(d, d) / 2 (m,) for a step d (t,), or None where it cannot be told.

        .. math:: y(\theta - e d) = y - e J d + \tfrac{e^2}2 y''(d, d) + O(e^3),

        and the loss says what that is to g, whose derivative in y is H: where it is blind, as to
        the phase of a wave function, nothing need be corrected.
        """
        at, e = self.at, NEARBY
        problem: Any = at.problem  # no mere `Objective`: a `Problem`, which predicts
        beside = or_else(lambda: problem.predict(at.theta - e * step, at.batch)[1], None)
        if beside is None:
            return None
        change = at.over_roots((e * Jd[: at.output.size]).reshape(at.output.shape))
        straight = at.output - change.astype(beside.dtype, copy=False)
        noise = ROUNDING * float(np.finfo(beside.dtype).eps) * float(abs(at.output).max())
        if not noise < float(abs(beside - straight).max()) < math.inf:
            return None
        g, g_straight = (problem.loss.gradient(y, at.batch.target) for y in (beside, straight))
        bend = at.over_roots(g - g_straight)
        return self.J.column(at.scale / e**2 * bend.astype(np.float64, copy=False), 0.0)


class Trial(NamedTuple):
    """A step, the decrease that its model predicts, and lambda in units of 2^exponent.

    ``gain`` is the decrease of the loss on the batch over that, ``before`` and ``after`` are the
    loss of the others; None where rounding hides it all.
    """

    step: Array
    predicted: float
    damping: float
    exponent: int
    info: HalfInverseInfo
    gain: float | None = None
    before: float = 1.0
    after: float = 1.0

    @property
    def good(self) -> bool:
        """Whether it is taken."""
        return self.gain is not None and self.gain > 0 and math.isfinite(self.after)


def losses(at: Any, samples: Any, *places: Array) -> list[float]:
    """Return the mean loss of samples at some parameters, without what derivatives would need."""
    evaluate = at.problem.evaluate
    return [or_else(partial(evaluate, theta, samples), math.inf) for theta in places]


def next_numbers(state: OptimizerState, trial: Trial, factor: float) -> OptimizerState:
    """Return the numbers of the state after a `Trial`: lambda, and what the momentum depends on."""
    damping = trial.damping * factor
    numbers = {"damping": damping, "exponent": trial.exponent}
    if trial.good:
        numbers |= _course(state, trial.before) | {"loss_of_others": trial.after}
    return numbers


def _course(state: OptimizerState, loss: float) -> OptimizerState:
    """The running mean of the log of a loss, its least value, and whether momentum may go on."""
    if not loss > 0:
        return {}
    weight = 1 / min(state["steps"] + 1, MEMORY)
    level = state["level"] + weight * (math.log(loss) - state["level"])
    least = min(level, state["least"]) if state["steps"] else level
    astray = level - least > math.log(ASTRAY)
    return {"level": level, "least": least, "carrying": 0 if astray else state["carrying"]}


def shortened(g: Array, longest: float) -> Array:
    """Return g (b, |y|) with no row longer than ``longest``."""
    xp = module_of(g)
    norms = xp.sqrt((g * g).sum(axis=1, keepdims=True))
    return g * xp.minimum(1.0, longest / xp.maximum(norms, np.finfo(g.dtype).tiny))


def _typical_distance(at):
    """Root mean square over samples of the distance of y from where a loss of curvature h is 0."""
    return (2 * abs(float(at.loss_of_samples)) * at.scale / at.unit_curvature) ** 0.5
