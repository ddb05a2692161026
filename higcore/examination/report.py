"""The table that a check returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Finding(NamedTuple):
    """A row of a `CheckReport`; ``passed`` is None for what could not be checked."""

    what: str
    expected: str
    seen: str
    verdict: str
    passed: bool | None


@dataclass
class CheckReport:
    """What `check_solver`, `check_network` or `check_loss` found; ``print`` shows a table.

    True in a condition if nothing failed, so that ``assert check_solver(solver)`` is a test.

    Attributes
    ----------
    title : str
        What was checked.
    rows : list of Finding
        what, expected, seen, verdict, passed.
    remarks : list of str
        What is right, but might cost less.
    """

    title: str
    rows: list[Finding] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[Finding]:
        """The rows that failed."""
        return [row for row in self.rows if row.passed is False]

    @property
    def ok(self) -> bool:
        """True if no row failed."""
        return not self.failed

    def __bool__(self) -> bool:
        return self.ok

    def raise_if_failed(self) -> None:
        """Raise an AssertionError that lists what failed."""
        if self.failed:
            lines = [f"{row.what}: {row.verdict}" for row in self.failed]
            raise AssertionError("\n  ".join([f"{self.title}: {len(lines)} failed", *lines]))

    def __str__(self) -> str:
        table = [Finding._fields[:4], *(row[:4] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in table]
        return "\n".join([self.title, *lines, *self.remarks, self._summary()])

    def _summary(self):
        if self.failed:
            return f"{len(self.failed)} of {len(self.rows)} checks failed"
        skipped = sum(row.passed is None for row in self.rows)
        return f"all right; {skipped} skipped" if skipped else "all right"
