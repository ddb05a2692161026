"""Ways to apply a power of a symmetric matrix, or of J itself, to one vector. One file a method."""
