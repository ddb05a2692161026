"""What Numba compiles: which source and values it is made of, and where it is kept."""
