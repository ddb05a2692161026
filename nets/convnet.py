"""Convolutional networks on signals and on fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from higcore.validation import check_choice, check_count, check_counts, check_flag

from .activations import ACTIVATIONS, bounded
from .layers import Conv, Conv1d, Dense, Layer
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


class ConvNet2d(Network):
    """Convolutions on a grid with one activation, and a field or a dense layer as the output.

    Parameters
    ----------
    points : int or (int, int)
        Grid points n_1 x n_2; one number for a square grid.
    channels : int
        Channels of the input; the flat input is (channels, n_1, n_2), row-major.
    features : sequence of int
        Output channels of the convolutions, one after the other.
    width : int
        Width of the kernels along both axes.
    outputs : int, optional
        Width of a dense output. By default u is one channel on the grid, (n_1, n_2) row-major, by
        one more convolution.
    activation : {"tanh", "relu", "linear"}
        Applied after every convolution but that of the output.
    bounds : (low, high), optional
        What u must stay between, as for `MLP`.
    padded : bool
        True for convolutions that keep the grid, with zeros around it, as a field has them that
        vanishes beyond its edge. False for valid ones, each of which takes (width - 1) step points.
    steps : sequence of int, optional
        How far apart the taps of each convolution are, 1 by default: with width 3 and steps
        1, 2, 4, .. two points see each other over twice as far in every further layer.

    Notes
    -----
    Between layers a field is flat (n_1, n_2, channels), row-major; see `Network` for theta.
    A pass holds the fields between layers, b n_1 n_2 sum(features) numbers, and beside them
    ``width`` copies of a layer's input for a few samples at a time, on all cores.

    Examples
    --------
    >>> network = ConvNet2d(64, channels=1, features=[8, 8], width=3)
    >>> network.input_size, network.output_size, network.size
    (4096, 4096, 737)
    """

    def __init__(
        self,
        points: int | tuple[int, int],
        channels: int,
        features: Sequence[int],
        width: int,
        outputs: int | None = None,
        activation: str = "tanh",
        bounds: tuple[Any, Any] | None = None,
        *,
        padded: bool = True,
        steps: Sequence[int] | None = None,
    ) -> None:
        check_choice("activation", activation, ACTIVATIONS)
        grid = tuple(points) if isinstance(points, (tuple, list)) else (points, points)
        check_counts("points", grid)
        if len(grid) != 2:
            raise ValueError(f"points must be one number or two, got {points!r}")
        counts = {"channels": channels, "width": width}
        for name, value in (counts if outputs is None else counts | {"outputs": outputs}).items():
            check_count(name, value)
        check_counts("features", features)
        check_flag("padded", padded)
        steps = (1,) * len(features) if steps is None else steps
        check_counts("steps", steps)
        if len(steps) != len(features):
            raise ValueError(
                f"steps must be {len(features)} numbers, one for each of features, got {steps!r}"
            )
        self.settings = grid, channels, tuple(features), width, outputs, activation
        self.padded, self.steps = padded, tuple(steps)
        convolutions: list[tuple[int, Any, int]]
        convolutions = [(n, activation, step) for n, step in zip(features, steps, strict=True)]
        if outputs is None:
            self.bounds = None if bounds is None else bounded(bounds, 1)
            convolutions.append((1, self.bounds or "linear", 1))
        if not padded:
            _check_room(grid, (width - 1) * sum(step for *_, step in convolutions))
        layers: list[Any] = []
        start, below = 0, (grid, channels)
        for n_out, kind, step in convolutions:
            layers.append(Conv(*below, n_out, width, kind, start, not layers, padded, step))
            start, below = start + layers[-1].size, (layers[-1].grid_out, n_out)
        if outputs is not None:
            self.bounds = None if bounds is None else bounded(bounds, outputs)
            n_in = below[0][0] * below[0][1] * below[1]
            layers.append(Dense(n_in, outputs, self.bounds or "linear", start))
        super().__init__(layers)

    def __repr__(self) -> str:
        grid, channels, features, width, outputs, activation = self.settings
        bounds = f", bounds={self.bounds.low, self.bounds.high}" if self.bounds else ""
        sizes = f"{grid}, {channels}, {features}, {width}, {outputs}, {activation!r}{bounds}"
        return f"ConvNet2d({sizes}, padded={self.padded}, steps={self.steps})"


def _check_room(grid, reach):
    """Raise unless valid convolutions leave some of the grid."""
    if min(grid) <= reach:
        raise ValueError(
            f"points must exceed {reach}, which these valid convolutions take of each axis, got "
            f"{grid}; padded=True keeps the grid"
        )
