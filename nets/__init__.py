"""Networks with hand-written forward, tangent, backward and Jacobian rows."""

from .convnet import ConvNet1d, ConvNet2d
from .export import export_numpy, export_onnx
from .mlp import MLP
from .network import Network

__all__ = ["MLP", "ConvNet1d", "ConvNet2d", "Network", "export_numpy", "export_onnx"]
