r"""Complex symmetric tridiagonal systems A phi = r with constant off-diagonal -i kappa.

Elimination without pivoting (Thomas). With the diagonal 1 + i e_j, e real,

    g_0 = 1 / (1 + i e_0),   g_j = 1 / (1 + i e_j + kappa^2 g_(j-1))        inverse pivots
    t_0 = g_0 r_0,           t_j = g_j (r_j + i kappa t_(j-1))              forward elimination
    phi_(n-1) = t_(n-1),     phi_j = t_j + i kappa g_j phi_(j+1)            back substitution

The real part of every pivot stays >= 1, so nothing needs to be exchanged. Complex arrays are
(2, n, width): real and imaginary parts, rows, and systems that are solved side by side.
"""


def invert_pivots(width, kappa, e, g):
    """g (2, n, width) from e (n, width)."""
    n = e.shape[0]
    for j in range(n):
        for i in range(width):
            g[0, j, i] = 1.0
            g[1, j, i] = e[j, i]
        if j > 0:
            for i in range(width):
                g[0, j, i] += kappa * kappa * g[0, j - 1, i]
                g[1, j, i] += kappa * kappa * g[1, j - 1, i]
        for i in range(width):
            scale = 1.0 / (g[0, j, i] * g[0, j, i] + g[1, j, i] * g[1, j, i])
            g[0, j, i] *= scale
            g[1, j, i] *= -scale


def solve(width, kappa, g, r, phi):
    """phi = A^(-1) r, all (2, n, width); r is left alone.

    Each loop writes one row and reads few others, though that means to compute some numbers twice:
    beyond eight pairs of rows that might overlap, the compiler gives up on checking them and does
    not vectorise.
    """
    n = r.shape[1]
    for i in range(width):
        phi[0, 0, i] = g[0, 0, i] * r[0, 0, i] - g[1, 0, i] * r[1, 0, i]
    for i in range(width):
        phi[1, 0, i] = g[0, 0, i] * r[1, 0, i] + g[1, 0, i] * r[0, 0, i]
    for j in range(1, n):
        for i in range(width):
            real = r[0, j, i] - kappa * phi[1, j - 1, i]
            imag = r[1, j, i] + kappa * phi[0, j - 1, i]
            phi[0, j, i] = g[0, j, i] * real - g[1, j, i] * imag
        for i in range(width):
            real = r[0, j, i] - kappa * phi[1, j - 1, i]
            imag = r[1, j, i] + kappa * phi[0, j - 1, i]
            phi[1, j, i] = g[0, j, i] * imag + g[1, j, i] * real
    for j in range(n - 2, -1, -1):
        for i in range(width):
            imag = g[0, j, i] * phi[1, j + 1, i] + g[1, j, i] * phi[0, j + 1, i]
            phi[0, j, i] -= kappa * imag
        for i in range(width):
            real = g[0, j, i] * phi[0, j + 1, i] - g[1, j, i] * phi[1, j + 1, i]
            phi[1, j, i] += kappa * real
