"""Between the arrays of all samples, (rows, b), and a kernel's scratch, (rows, width).

A kernel copies what it needs of its samples lo <= i < lo + width into scratch, works there with
indices from 0, and copies back what it found; see `higcore.kernels`.
"""


def load(lo, width, source, target):
    """Copy some samples of source (rows, b) to target (rows, width)."""
    for j in range(target.shape[0]):
        for i in range(width):
            target[j, i] = source[j, lo + i]


def store(lo, width, source, target):
    """Copy source (rows, width) to its samples in target (rows, b)."""
    for j in range(source.shape[0]):
        for i in range(width):
            target[j, lo + i] = source[j, i]
