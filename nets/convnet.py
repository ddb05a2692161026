"""One-dimensional convolutional network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from higcore.validation import check_choice, check_count, check_counts

from .activations import ACTIVATIONS, bounded
from .layers import Conv1d, Dense, Layer
from .network import Network


class ConvNet1d(Network):
    """Valid convolutions with one activation, then a dense output, linear or bounded.

    Parameters
    ----------
    points : int
        Length of the input.
    channels : int
        Channels of the input; the flat input is (channels, points), row-major, such as
        (Re psi, Im psi) of a wave function.
    features : sequence of int
        Output channels of the convolutions, one after the other.
    width : int
        Width of the kernels; each convolution shortens the signal by width - 1.
    outputs : int
        Width of the dense output.
    activation : {"tanh", "relu", "linear"}
        Applied after every convolution.
    bounds : (low, high), optional
        What u must stay between, as for `MLP`.

    Notes
    -----
    Between layers a signal is flat (points, channels), row-major; see `Network` for theta.

    Examples
    --------
    >>> ConvNet1d(points=14, channels=2, features=[20] * 6, width=3, outputs=384).size
    21984
    """

    def __init__(
        self,
        points: int,
        channels: int,
        features: Sequence[int],
        width: int,
        outputs: int,
        activation: str = "tanh",
        bounds: tuple[Any, Any] | None = None,
    ) -> None:
        check_choice("activation", activation, ACTIVATIONS)
        counts = {"points": points, "channels": channels, "width": width, "outputs": outputs}
        for name, value in counts.items():
            check_count(name, value)
        check_counts("features", features)
        if points <= len(features) * (width - 1):
            raise ValueError(
                f"points must exceed {len(features) * (width - 1)} for {len(features)} valid "
                f"convolutions of width {width}, got {points}"
            )
        self.settings = points, channels, tuple(features), width, outputs, activation
        self.bounds = None if bounds is None else bounded(bounds, outputs)
        layers: list[Layer] = []
        start, length, n_in = 0, points, channels
        for n_out in features:
            layers.append(Conv1d(length, n_in, n_out, width, activation, start, not layers))
            start += layers[-1].size
            length, n_in = length - width + 1, n_out
        layers.append(Dense(length * n_in, outputs, self.bounds or "linear", start))
        super().__init__(layers)

    def __repr__(self) -> str:
        points, channels, features, width, outputs, activation = self.settings
        bounds = f", bounds={self.bounds.low, self.bounds.high}" if self.bounds else ""
        sizes = f"{points}, {channels}, {features}, {width}, {outputs}"
        return f"ConvNet1d({sizes}, {activation!r}{bounds})"
