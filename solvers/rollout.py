"""A network inside a time loop: it sees the state at every step, and acts on the next one.

With x_(s+1) = step(x_s, u_s), u_s = network(theta, z_s) and z_s what is seen of x_s, let A_s, B_s
be the derivatives of the step in x and u, N_s that of the network in z, and O_s that of z in x. A
change of x_s then comes to C_s = A_s + B_s N_s O_s times itself one step later, the closed loop.
All C_s are made at once, for they need no march; with them

    tangent    dx_(s+1) = C_s dx_s + B_s (du_s/dtheta) dtheta
    adjoint    lambda_s = C_s^T lambda_(s+1) + (dy/dx_s)^T y_bar,    u_bar_s = B_s^T lambda_(s+1)

and theta is used at every step, as the weights of a convolution are at every point: the u_bar_s are
the cotangents of one network that is applied to b x steps samples.

Letters: b samples, n = |x|, k = |u|, r cotangents a sample; arrays of all steps have them first.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from higcore.backend import Array, module_of
from higcore.model import Model
from higcore.protocols import Samples
from higcore.rows import OuterProductRows, as_entries
from higcore.training.identity import describe
from higcore.validation import (
    check_array,
    check_arrays,
    check_count,
    check_flag,
    check_has,
    check_like,
)

from .march import CompiledMarch
from .observed import AtTimes, Seen
from .tape import March, over_steps, summed

APPLICATIONS = 2**16  # of the network at once, in a backward pass: bounds its memory
NETWORK = (
    "size", "input_size", "output_size", "init", "forward", "tangent", "backward", "rows", "pull",
    "part", "factor_shapes",
)  # fmt: skip
STEPPER = ("state_size", "control_size", "step", "tangent", "jacobian", "pull")
LARGEST_COMPILED = 2048  # parameters of a network up to which kernels are faster than BLAS
LARGEST_CLOSED = 64  # |x| up to which C_s is worth forming for fewer than |x| cotangents


class Rollout(Model):
    r"""x_(s+1) = step(x_s, u_s), u_s = network(theta, what it sees of x_s), for ``steps`` steps.

    In a `Problem` it stands in the place of the network, and the solver is None.

    Parameters
    ----------
    network : nets.Network
        z (b, |z|) -> u (b, |u|).
    stepper : Stepper
        The physics of one step.
    steps : int
        How many.
    sees : Seen, optional
        What the network sees; by default the whole state and nothing else.
    observe : AtTimes, optional
        What y is; by default the state at the end.
    controls : bool
        Whether y ends with the controls of all steps, steps |u| numbers more.

    Notes
    -----
    A batch has the start states x (b, n), what each sample is given (b, given), and targets. Where
    nothing is given, ``net_input`` may be x itself: it is not looked at.

    The forward march keeps states and controls, steps (n + k) numbers a sample; what else a pass
    back needs is made again, for all steps at once. Row factors take steps (n_(l-1) + |y| n_l)
    numbers a sample and layer, and are made in tiles of samples where they would not fit.

    A step that is said for one sample, and a small network of dense layers, march compiled: see
    `ScalarStepper`.

    Examples
    --------
    >>> from nets import MLP
    >>> from solvers import OscillatorChain
    >>> loop = Rollout(MLP((4, 20, 1)), OscillatorChain().stepper(), steps=96)
    >>> loop.size, loop.output_size
    (121, 4)
    """

    def __init__(
        self,
        network: Any,
        stepper: Any,
        steps: int,
        *,
        sees: Any = None,
        observe: Any = None,
        controls: bool = False,
    ) -> None:
        check_flag("controls", controls)
        check_count("steps", steps)
        sees, observe = Seen() if sees is None else sees, AtTimes() if observe is None else observe
        check_has("network", network, NETWORK, "nets.MLP has them all")
        check_has("stepper", stepper, STEPPER, "a subclass of solvers.Stepper has them all")
        check_has("sees", sees, ("given", "width", "look", "pull"), "solvers.Seen has them all")
        wanted = ("width", "value", "tangent", "pull")
        check_has("observe", observe, wanted, "solvers.AtTimes has them all")
        self.network, self.stepper, self.steps = network, stepper, int(steps)
        self.sees, self.observe = sees, observe
        self.state_size: int = stepper.state_size
        self.size: int = network.size
        # Where nothing is given, x will do: it is not looked at.
        self.input_size: int = self.sees.given or self.state_size
        self.controls = bool(controls)
        self.observed: int = self.observe.width(self.steps, self.state_size)
        in_y = self.steps * stepper.control_size if controls else 0
        self.output_size: int = self.observed + in_y
        self._check_widths()

    def _check_widths(self):
        wide = self.sees.width(self.state_size)
        if wide != self.network.input_size:
            raise ValueError(
                f"network takes {self.network.input_size} inputs but sees {wide}: "
                f"{self.sees!r} of {self.state_size} components of the state"
            )
        if self.network.output_size != self.stepper.control_size:
            raise ValueError(
                f"network has {self.network.output_size} outputs but the stepper takes "
                f"{self.stepper.control_size} control values; they must agree"
            )

    def __repr__(self) -> str:
        parts = map(describe, (self.network, self.stepper, self.steps, self.sees, self.observe))
        return f"Rollout({', '.join(parts)}{', controls=True' * self.controls})"

    def with_controls(self) -> Rollout:
        """Return the same march, with the controls of all steps at the end of y."""
        other = copy.copy(self)
        other.controls = True
        other.output_size = self.observed + self.steps * self.stepper.control_size
        return other

    @property
    def factor_shapes(self) -> list[tuple[int, int, int]]:
        """(positions, n_in, n_out) of every layer, at all steps."""
        shapes = self.network.factor_shapes
        return [(self.steps * positions, n_in, n_out) for positions, n_in, n_out in shapes]

    @property
    def tape_size(self) -> int:  # type: ignore[override]  # a plain attribute in `Model`
        """Numbers a sample on the tape: states and controls."""
        k: int = self.stepper.control_size
        return self.steps * (self.state_size + k)

    @property
    def passing_size(self) -> int:  # type: ignore[override]  # a plain attribute in `Model`
        """Numbers a sample of a pass back: cotangents of all steps, and A, B and C if formed."""
        n, r = self.state_size, self.output_size
        k: int = self.stepper.control_size
        closed = 3 * n * (n + k) if self._is_closed(r) else 0
        return self.steps * (r * (2 * n + k) + closed)

    def _is_closed(self, cotangents):
        """Whether C is formed for so many cotangents a sample."""
        largest = getattr(self.stepper, "largest_closed", LARGEST_CLOSED)
        return self.state_size <= max(largest, cotangents)

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Array:
        """Return theta (t,), as the network begins."""
        return self.network.init(rng, dtype)

    def part(self, tape: March, samples: slice) -> March:
        """Return the tape of a slice of the samples."""
        return tape.part(samples)

    def predict(self, theta: Array, batch: Samples) -> tuple[Array, Array]:
        """Return the controls of all steps (b, steps, |u|) and y (b, |y|)."""
        y, tape = self.forward(theta, batch)
        return tape.U.swapaxes(0, 1), y

    def trajectory(self, theta: Array, batch: Samples) -> Array:
        """Return the states at all times, (b, steps + 1, n), start included."""
        return self._march(theta, batch).X.swapaxes(0, 1)

    def forward(self, theta: Array, batch: Samples) -> tuple[Array, March]:
        """Return y (b, |y|) and the tape."""
        tape = self._march(theta, batch)
        y = self.observe.value(tape.X)
        check_like("y = value(X) of observe", y, (len(batch.x), self.observed), x=batch.x)
        return self._with_controls(y, tape.U), tape

    def _with_controls(self, y, U):
        """y (b, |y|), followed by controls U (steps, b, k) if they are part of it."""
        if not self.controls:
            return y
        return module_of(y).concatenate([y, U.swapaxes(0, 1).reshape(len(y), -1)], axis=1)

    @property
    def compiled(self) -> CompiledMarch | None:
        """The same as kernels, where network and step can be said for one sample, else None."""
        network, step = getattr(self.network, "scalar", None), getattr(self.stepper, "scalar", None)
        if network is None or step is None or type(self.sees) is not Seen:
            return None
        if self.size > LARGEST_COMPILED:
            return None
        return CompiledMarch(network, step, self.sees, self.state_size)

    def _march(self, theta, batch):
        if compiled := self.compiled:
            self._check_march(theta, batch.x, batch.net_input)
            X, U = compiled.states(self.steps, theta, batch.x, batch.net_input)
            return March(X, U, batch.net_input)
        x, given, xp = batch.x, batch.net_input, module_of(batch.x)
        X = xp.empty((self.steps + 1, *x.shape), x.dtype)
        U = xp.empty((self.steps, len(x), self.stepper.control_size), x.dtype)
        X[0] = x
        for s in range(self.steps):
            share = xp.full((len(x), 1), s / self.steps, x.dtype)
            u, _ = self.network.forward(theta, self.sees.look(x, share, given))
            x = self.stepper.step(x, u)
            if s == 0:
                check_like("x_next = step(x, u) of the stepper", x, X[0].shape, x=X[0])
            X[s + 1], U[s] = x, u
        return March(X, U, given)

    def _check_march(self, theta, x, given):
        """Compiled code would read beyond the ends of arrays of another size."""
        sizes = (self.size,), ("b", self.state_size), ("b", self.input_size)
        check_arrays(theta=(theta, sizes[0]), x=(x, sizes[1]), net_input=(given, sizes[2]))

    def tangent(self, theta: Array, tape: March, dtheta: Array) -> Array:
        """Return dy (b, |y|), the derivative of y along dtheta (t,)."""
        parts = [self._tangent(theta, tape.part(some), dtheta) for some in self._segments(tape)]
        return module_of(theta).concatenate(parts)

    def _tangent(self, theta, tape, dtheta):
        net_tape = self._net_tape(theta, tape)
        du = self.network.tangent(theta, net_tape, dtheta).reshape(tape.U.shape)
        dX = module_of(du).zeros_like(tape.X)
        if self._is_closed(1):
            C, B = self._closed_loop(theta, tape, net_tape)
            pushed = (B @ du[..., None])[..., 0]
            for s in range(tape.steps):
                dX[s + 1] = (C[s] @ dX[s][:, :, None])[:, :, 0] + pushed[s]
        for s in range(tape.steps):
            if self.controls or not self._is_closed(1):  # what is seen changes the control, too
                gains = self._gains(theta, self._part_of_step(net_tape, tape, s), tape.X[s])
                du[s] += (gains @ dX[s][:, :, None])[:, :, 0]
            if not self._is_closed(1):
                dX[s + 1] = self.stepper.tangent(tape.X[s], tape.U[s], dX[s], du[s])
        return self._with_controls(self.observe.tangent(tape.X, dX), du)

    def _gains(self, theta, net_tape, x):
        """N O (.., k, n), the derivatives of the controls in the states x (.., n) they follow."""
        xp, k = module_of(x), self.stepper.control_size
        units = xp.broadcast_to(xp.eye(k, dtype=x.dtype), (len(x), k, k))
        return self._seen_by(theta, net_tape, x, units)

    def _part_of_step(self, net_tape, tape, s):
        """The network's tape of one step."""
        b = tape.X.shape[1]
        return self.network.part(net_tape, slice(s * b, (s + 1) * b))

    def backward(self, theta: Array, tape: March, y_bar: Array) -> Array:
        """Return theta_bar (t,), summed over samples, of y_bar (b, |y|)."""
        theta_bar = module_of(theta).zeros_like(theta)
        for samples in self._segments(tape):
            theta_bar += self._backward(theta, tape.part(samples), y_bar[samples, None])
        return theta_bar

    def _backward(self, theta, tape, y_bar):
        """The same for one cotangent of every sample, y_bar (b, 1, |y|), all samples at once."""
        if compiled := self.compiled:
            return summed(self._factors(compiled, theta, tape, y_bar))
        net_tape = self._net_tape(theta, tape)
        U_bar = self._pulled_to_controls(theta, tape, net_tape, y_bar)
        return self.network.backward(theta, net_tape, U_bar.reshape(-1, U_bar.shape[-1]))

    def rows(self, theta: Array, tape: March, S: Array) -> list[OuterProductRows]:
        """Return the rows of S dy/dtheta, S (b, r, |y|), layer by layer, as factors."""
        if compiled := self.compiled:
            return as_entries(self._factors(compiled, theta, tape, S))
        net_tape = self._net_tape(theta, tape)
        U_bar = self._pulled_to_controls(theta, tape, net_tape, S)
        flat = U_bar.reshape(-1, *U_bar.shape[2:])  # (steps b, r, k)
        blocks = self.network.rows(theta, net_tape, flat)
        return as_entries([over_steps(block, tape.steps) for block in blocks])

    def _factors(self, compiled, theta, tape, S):
        """Row factors of S dy/dtheta, by kernels, which check no size themselves."""
        self._check_march(theta, tape.X[0], tape.given)
        sizes = (self.steps + 1, "b", self.state_size), ("b", "r", self.output_size)
        check_arrays(tape=(tape.X, sizes[0]), S=(S, sizes[1]), same_dtype=False)
        Lambda = self.observe.pull(tape.X, S[:, :, : self.observed])
        shape = self.steps + 1, *S.shape[:2], self.state_size
        check_array("X_bar = pull(X, y_bar) of observe", Lambda, shape)
        k = tape.U.shape[2] if self.controls else 0
        direct = S[:, :, self.observed :].reshape(*S.shape[:2], tape.steps, k)
        Lambda, direct = Lambda.astype(theta.dtype, copy=False), direct.astype(theta.dtype)
        return compiled.rows(theta, tape.X, tape.given, Lambda, direct)

    def _segments(self, tape: March) -> Iterator[slice]:
        """Slices of the samples, of so many applications of the network each."""
        b = tape.X.shape[1]
        size = max(1, APPLICATIONS // tape.steps)
        return (slice(lo, lo + size) for lo in range(0, b, size))

    def _net_tape(self, theta, tape):
        """The network's tape of all steps, (steps b) samples: cheaper made again than kept."""
        x, _ = tape.starts
        xp, b, steps = module_of(x), tape.X.shape[1], tape.steps
        share = xp.repeat(xp.arange(steps, dtype=x.dtype) / self.steps, b)[:, None]
        given = xp.tile(tape.given, (steps, 1)) if self.sees.given else tape.given
        return self.network.forward(theta, self.sees.look(x, share, given))[1]

    def _closed_loop(self, theta, tape, net_tape):
        """C (steps, b, n, n) and B (steps, b, n, k)."""
        x, u = tape.starts
        n, k = self.state_size, self.stepper.control_size
        A, B = self.stepper.jacobian(x, u)
        check_like("A of jacobian(x, u) of the stepper", A, (len(x), n, n), x=x)
        check_like("B of jacobian(x, u) of the stepper", B, (len(x), n, k), x=x)
        C = A + self._seen_by(theta, net_tape, x, B)
        shape = tape.steps, -1, n
        return C.reshape(*shape, n), B.reshape(*shape, k)

    def _seen_by(self, theta, net_tape, x, u_bar):
        """Cotangents of u (.., r, k) pulled back through network and sight to x, (.., r, n)."""
        return self.sees.pull(x, self.network.pull(theta, net_tape, u_bar))

    def _pulled_to_controls(self, theta, tape, net_tape, y_bar):
        """U_bar (steps, b, r, k) of cotangents y_bar (b, r, |y|): the march back."""
        direct, Lambda = self._pulled_to_march(theta, tape, net_tape, y_bar)
        if not self._is_closed(y_bar.shape[1]):
            return direct + self._step_by_step(theta, tape, net_tape, Lambda)
        C, B = self._closed_loop(theta, tape, net_tape)
        for s in range(tape.steps - 1, 0, -1):
            Lambda[s] += Lambda[s + 1] @ C[s]
        return direct + Lambda[1:] @ B

    def _pulled_to_march(self, theta, tape, net_tape, y_bar):
        """Cotangents of the controls that are in y, and of the states, (steps + 1, b, r, n)."""
        Lambda = self.observe.pull(tape.X, y_bar[:, :, : self.observed])
        if not self.controls:
            return 0, Lambda
        k = tape.U.shape[2]
        direct = y_bar[:, :, self.observed :].reshape(*y_bar.shape[:2], tape.steps, k)
        direct = direct.transpose(2, 0, 1, 3)  # (steps, b, r, k)
        gains = self._gains(theta, net_tape, tape.starts[0])
        Lambda[:-1] += direct @ gains.reshape(*direct.shape[:2], k, -1)
        return direct, Lambda

    def _step_by_step(self, theta, tape, net_tape, Lambda):
        """The same without C, which would be large; every step by itself."""
        U_bar = []
        for s in range(tape.steps - 1, -1, -1):
            x, u = tape.X[s], tape.U[s]
            x_bar, u_bar = self.stepper.pull(x, u, Lambda[s + 1])
            at = self._part_of_step(net_tape, tape, s)
            Lambda[s] += x_bar + self._seen_by(theta, at, x, u_bar)
            U_bar.append(u_bar)
        return module_of(Lambda).stack(U_bar[::-1])
