# ruff: noqa: E501  one mutation a line
"""Break every adjoint once and see that a test fails: ``python tests/mutations.py``.

Each mutation flips a sign, drops a term or misplaces a transpose in a copy of the tree; the tests
named beside it must then fail. Takes a few minutes; not part of the test run.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OSCILLATORS, NETS = "tests/test_oscillators.py", "tests/test_nets.py"
DIPOLE, POISSON, CONV = "tests/test_dipole.py", "tests/test_poisson.py", "tests/test_convnet.py"
LOSSES, ALL = "tests/test_losses.py", "tests/test_experiments.py"
LINEAR, HALF = "tests/test_linearisation.py", "tests/test_half_inverse.py"
SPECTRAL, MEMORY = "tests/test_spectral.py", "tests/test_memory.py"
DEFAULTS, CHECKS = "tests/test_default_derivatives.py", "tests/test_checks.py"

MUTATIONS = [
    ("solvers/rk4.py", "x_bar[j, i] += q_bar[j, i]", "x_bar[j, i] -= q_bar[j, i]", OSCILLATORS),
    ("solvers/rk4.py", "x_bar[n + j, i] += NODE[k] * h *", "x_bar[n + j, i] += h *", OSCILLATORS),
    ("solvers/rk4.py", "a_bar[k - 2, j, i] += COUPLING", "a_bar[k - 2, j, i] -= COUPLING", OSCILLATORS),
    ("solvers/rk4.py", "a_bar[0, j, i] = from_q + from_p", "a_bar[0, j, i] = from_p", OSCILLATORS),
    ("solvers/rk4.py", "a_bar[1, j, i] = from_q + 2.0", "a_bar[1, j, i] = from_q + 1.0", OSCILLATORS),
    ("solvers/rk4.py", "a_bar[2, j, i] = from_q + 2.0", "a_bar[2, j, i] = 2.0", OSCILLATORS),
    ("solvers/rk4.py", "a_bar[3, j, i] = from_p", "a_bar[3, j, i] = -from_p", OSCILLATORS),
    ("solvers/rk4.py", "x_bar[n + j, i] += h * x_bar[j, i]", "x_bar[n + j, i] += 0.0", OSCILLATORS),
    ("solvers/rk4.py", "h * h / 6.0 * q_sum", "h * h / 6.0 * p_sum", OSCILLATORS),
    ("solvers/oscillators.py", "q_bar[j, i] = -a_bar", "q_bar[j, i] = a_bar", OSCILLATORS),
    ("solvers/oscillators.py", "u_bar[i] += control[j]", "u_bar[i] -= control[j]", OSCILLATORS),
    ("solvers/oscillators.py", "q_bar[j, i] -= force_bar", "q_bar[j, i] += force_bar", OSCILLATORS),
    ("solvers/oscillators.py", "q_bar[j + 1, i] += force_bar", "q_bar[j, i] += force_bar", OSCILLATORS),
    ("solvers/oscillators.py", "(3.0 * cubic * d * d + linear) * (a_bar", "(cubic * d * d + linear) * (a_bar", OSCILLATORS),
    ("solvers/oscillators.py", "(3.0 * cubic * d * d + linear) * (dq", "(3.0 * cubic * d * d) * (dq", OSCILLATORS),
    ("nets/layers.py", "a_out_bar * self.activation.slope(a_out)", "a_out_bar", NETS),
    ("nets/layers.py", "weights_bar[:] = a.T @ delta", "weights_bar[:] = -(a.T @ delta)", NETS),
    ("nets/layers.py", "bias_bar[:] = delta.sum(axis=0)", "bias_bar[:] = 0", NETS),
    ("nets/layers.py", "return delta @ weights.T  #", "return -delta @ weights.T  #", NETS),
    ("nets/layers.py", "a_out_rows * self.activation.slope(a_out)[:, None, :]", "a_out_rows", NETS),
    ("nets/layers.py", "b * r, n_out) @ weights.T", "b * r, n_out) @ -weights.T", NETS),
    ("nets/layers.py", "a @ dweights + da @ weights + dbias", "a @ dweights + da @ weights", NETS),
    ("nets/activations.py", "return 1 - a * a", "return 1 + a * a", NETS),
    ("nets/activations.py", "(a > 0).astype", "(a >= 0).astype", NETS),
    ("higcore/rows.py", "self.a.reshape(len(weighted), self.n_in).T, weighted, out", "-self.a.reshape(len(weighted), self.n_in).T, weighted, out", LINEAR),
    ("higcore/rows.py", "= weighted.sum(axis=0)", "= 0", LINEAR),
    ("higcore/rows.py", "along = self.a @ weights + v", "along = self.a @ weights - v", LINEAR),
    ("higcore/rows.py", "self.a @ self.a.swapaxes(1, 2) + 1", "self.a @ self.a.swapaxes(1, 2)", LINEAR),
    ("higcore/rows.py", "K[col, row] = K[row, col]", "K[col, row] = -K[row, col]", LINEAR),
    ("higcore/linearisation.py", "else 1.0\n        self.loss_gradient", "else -1.0\n        self.loss_gradient", LINEAR),
    ("higcore/losses.py", "return 2 * self.factor * (y - target)", "return self.factor * (y - target)", LINEAR),
    ("higcore/spectral/tridiagonal.py", "carried = c * w_next - s * carried", "carried = c * w_next + s * carried", HALF),
    ("higcore/spectral/tridiagonal.py", "k = count - 1 - step if forward else step", "k = step", HALF),
    ("higcore/half_inverse.py", "(m, t) = (kappa - 1) / 2", "(m, t) = kappa / 2", HALF),
    ("solvers/tridiagonal.py", "phi[0, j, i] -= kappa * imag", "phi[0, j, i] += kappa * imag", DIPOLE),
    ("solvers/tridiagonal.py", "phi[1, j, i] += kappa * real", "phi[1, j, i] -= kappa * real", DIPOLE),
    ("solvers/tridiagonal.py", "g[1, j, i] *= -scale", "g[1, j, i] *= scale", DIPOLE),
    ("solvers/dipole.py", "u_bar[0, lane] += phi[0, j, lane] * imag + phi", "u_bar[0, lane] += phi[0, j, lane] * imag - phi", DIPOLE),
    ("solvers/dipole.py", "u_bar[1, lane] -= phi", "u_bar[1, lane] += phi", DIPOLE),
    ("solvers/dipole.py", "omega[1] *= -1", "omega[1] *= 1", DIPOLE),
    ("solvers/dipole.py", "dpsi[0, j, i] + push * psi[1", "dpsi[0, j, i] - push * psi[1", DIPOLE),
    ("solvers/dipole.py", "2.0 * phi[c, j, i] - dpsi[c, j, i]", "2.0 * phi[c, j, i] + dpsi[c, j, i]", DIPOLE),
    ("solvers/poisson.py", "y[:, 1:, :] += h1", "y[:, 1:, :] -= h1", POISSON),
    ("solvers/poisson.py", "return self.laplacian(y_bar)", "return -self.laplacian(y_bar)", POISSON),
    ("solvers/toy.py", "return y_bar * tape[0]", "return y_bar", ALL),
    ("solvers/toy.py", "xp.diag(scales), (b", "xp.diag(scales * scales), (b", ALL),
    ("nets/layers.py", "(a_out_bar * self.activation.slope(a_out)).reshape", "a_out_bar.reshape", CONV),
    ("nets/layers.py", "        delta = delta.reshape(b, r, self.positions", "        delta = a_out_rows.reshape(b, r, self.positions", CONV),
    ("nets/layers.py", "out[..., k : k + self.positions, :] += shifts", "out[..., k : k + self.positions, :] -= shifts", CONV),
    ("nets/layers.py", "self._patches(a).reshape(-1, self.fan_in).T @ delta", "-self._patches(a).reshape(-1, self.fan_in).T @ delta", CONV),
    ("nets/layers.py", "self._patches(a) @ dweights + self._patches(da) @ weights", "self._patches(a) @ dweights - self._patches(da) @ weights", CONV),
    ("higcore/rows.py", "a @ a_other.T + 1", "a_other @ a.T + 1", CONV),
    ("higcore/losses.py", "d[:, None] * _times_i(target)", "-d[:, None] * _times_i(target)", LOSSES),
    ("higcore/losses.py", "(scale * d)[:, None]", "(-scale * d)[:, None]", LOSSES),
    ("higcore/second_order.py", "network_gradient(2 * self.du", "network_gradient(-2 * self.du", ALL),
    ("higcore/second_order.py", "(2 * gain - 1) ** 3", "(2 * gain + 1) ** 3", ALL),
    ("higcore/rows.py", "yield rows, (rows if right is left", "yield rows, (-rows if right is left", CONV),
    ("higcore/linearisation.py", "return (self.S @ du[:, :, None])", "return -(self.S @ du[:, :, None])", MEMORY),
    ("higcore/linearisation.py", "u_bar = (w[:, None, :] @ self.S)[:, 0]", "u_bar = -(w[:, None, :] @ self.S)[:, 0]", MEMORY),
    ("higcore/linearisation.py", "K[columns, rows] = K[rows, columns].T", "K[columns, rows] = 0", MEMORY),
    ("higcore/spectral/reduction.py", 'side = "N" if forward else "T"', 'side = "T" if forward else "N"', SPECTRAL),
    ("higcore/spectral/reduction.py", "dgemm(-0.5, V, TVW", "dgemm(0.5, V, TVW", SPECTRAL),
    ("higcore/spectral/reduction.py", "y[i] = scale * (y[i] - 0.5 * scale * dot * v[i])", "y[i] = scale * y[i]", SPECTRAL),
    ("higcore/spectral/reduction.py", "column[i] -= y[i] * v[c]", "column[i] += y[i] * v[c]", SPECTRAL),
    ("higcore/spectral/reduction.py", "for j in range(n - 3, -1, -1)", "for j in range(n - 2)", SPECTRAL),
    ("higcore/spectral/rational.py", "poles ** (1 - p), error)\n", "poles ** p, error)\n", SPECTRAL),
    ("higcore/spectral/band.py", "w - low @ (low.T @ w), fractions", "w, fractions", SPECTRAL),
    ("higcore/spectral/band.py", "if pivot < 0.0:", "if pivot > 0.0:", SPECTRAL),
    ("higcore/spectral/band.py", ".sum() != below", ".sum() == below", SPECTRAL),
    ("higcore/spectral/qr.py", "sigma, kappa - 1, noise", "sigma, kappa, noise", SPECTRAL),
    ("higcore/spectral/qr.py", "R[:t, t], kappa", "-R[:t, t], kappa", HALF),
    ("solvers/base.py", "u_bar = rows @ self.rows(tape)", "u_bar = -rows @ self.rows(tape)", DEFAULTS),
    ("solvers/base.py", "S[:, :, k] = column", "S[:, :, -k] = column", DEFAULTS),
    ("solvers/base.py", "u_bar[:, k] = column", "u_bar[:, -k] = column", DEFAULTS),
    ("solvers/base.py", "self.control_size < size or", "self.control_size > size or", DEFAULTS),
    ("solvers/base.py", "rows[:, k].copy()", "rows[:, k]", DEFAULTS),
    ("higcore/examination/differences.py", "np.where(kinked, abs(half_bend) / (h / 2), 0)", "0", CHECKS),
    ("higcore/examination/differences.py", "3 * np.median(change)", "0", CHECKS),
    ("higcore/examination/differences.py", "remainder[smooth]", "remainder", CHECKS),
    ("higcore/examination/differences.py", "h * (central - slope) + bend / 2", "bend / 2", CHECKS),
    ("higcore/examination/diagnosis.py", "if factor < -1e-5", "if factor > 1e-5", CHECKS),
    ("higcore/examination/diagnosis.py", "+ 0.01 * error", "+ 2 * error", CHECKS),
    ("higcore/examination/shared.py", "a.copy() if hasattr", "a if hasattr", CHECKS),
]  # fmt: skip


def survives(file, old, new, tests):
    """True if the tests still pass with ``old`` replaced by ``new`` in a copy of the tree."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "runs", "__pycache__"))
        source = (copy / file).read_text()
        (copy / file).write_text(source.replace(old, new, 1))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", tests]
        environment = {"PYTHONPATH": str(copy), "PATH": "/usr/bin:/bin", "HOME": folder}
        return (
            subprocess.run(command, cwd=copy, env=environment, capture_output=True).returncode == 0
        )


def check(mutations):
    """Every mutation must still find its place, before hours are spent on the others."""
    for file, old, _, _ in mutations:
        if old not in (ROOT / file).read_text():
            raise SystemExit(f"{file} no longer holds {old!r}: mend the list of mutations")


def main():
    check(MUTATIONS)
    survivors = []
    for mutation in MUTATIONS:
        verdict = "SURVIVED" if survives(*mutation) else "caught"
        print(f"{verdict} {mutation[0]}: {mutation[1]!r} -> {mutation[2]!r}", flush=True)
        survivors += [mutation] if verdict == "SURVIVED" else []
    print(f"{len(MUTATIONS) - len(survivors)} of {len(MUTATIONS)} mutations caught")
    return bool(survivors)


if __name__ == "__main__":
    raise SystemExit(main())
