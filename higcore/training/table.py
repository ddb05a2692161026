"""Rows of figures as a table: columns by name, printed, or for pandas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

from ..backend import same

ROWS_SHOWN = 12

T = TypeVar("T")
Row = TypeVar("Row", bound=NamedTuple)


class Table(list[Row]):
    """List of NamedTuples of one kind; prints about a dozen of them.

    The rows shown are spread evenly in the logarithm of their number.
    """

    kind: ClassVar[type]
    shown: ClassVar[dict[str, str]]  # fields or properties of a row, and how they are printed

    def __eq__(self, other: object) -> bool:
        """Whether all rows are equal, NaN to NaN."""
        return same([*self], [*other]) if isinstance(other, list) else NotImplemented

    def __ne__(self, other: object) -> bool:
        return not self == other

    def to_dict(self) -> dict[str, list[Any]]:
        """Columns by name, each a list of plain numbers."""
        names: tuple[str, ...] = self.kind._fields  # type: ignore[attr-defined]
        return {name: [getattr(row, name) for row in self] for name in names}

    def to_pandas(self) -> Any:
        """The rows as a `pandas.DataFrame`."""
        return to_pandas(self.to_dict())

    def __str__(self) -> str:
        known = {name for row in self for name in self.shown if getattr(row, name) is not None}
        shown = [name for name in self.shown if name in known or not self]
        widths = {name: self.shown[name].partition(".")[0] for name in shown}
        lines = [" ".join(format(name.replace("_", " "), w) for name, w in widths.items())]
        for row in spread(self, ROWS_SHOWN):
            values = ((getattr(row, name), name) for name in shown)
            cells = (("", widths[k]) if v is None else (v, self.shown[k]) for v, k in values)
            lines.append(" ".join(format(*cell) for cell in cells))
        return "\n".join(lines)


def spread(rows: Sequence[T], count: int) -> list[T]:
    """About ``count`` of the rows, evenly in the logarithm of their number, with both ends."""
    if len(rows) <= count:
        return list(rows)
    ratio = len(rows) ** (1 / count)
    keep = {0, len(rows) - 1} | {int(ratio**k) - 1 for k in range(count)}
    return [rows[k] for k in sorted(keep)]


def to_pandas(data: dict[str, list[Any]]) -> Any:
    """Columns as a `pandas.DataFrame`; pandas is imported here and nowhere else."""
    try:
        import pandas
    except ImportError:
        raise ImportError("to_pandas needs pandas: pip install pandas") from None
    return pandas.DataFrame(data)
