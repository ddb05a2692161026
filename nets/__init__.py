"""Networks with hand-written forward, tangent, backward and Jacobian rows."""

from .mlp import MLP

__all__ = ["MLP"]
