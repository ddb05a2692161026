"""Physics solvers with hand-written tangents and adjoints."""

from .oscillators import OscillatorChain

__all__ = ["OscillatorChain"]
