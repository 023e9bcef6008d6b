"""What a study says: measured values, tables, figures and a verdict for each claim."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Measured:
    """A mean over independent runs (or samples) and the standard error of that mean."""

    mean: float
    error: float | None
    n: int

    @classmethod
    def over(cls, values: Sequence[float]) -> Measured:
        """Mean and standard error of at least one value; one value alone has no error."""
        n, mean = len(values), sum(values) / len(values)
        if n == 1:
            return cls(mean, None, 1)
        variance = sum((v - mean) ** 2 for v in values) / (n - 1)
        return cls(mean, math.sqrt(variance / n), n)

    def __str__(self) -> str:
        if self.error is None:
            return f"{self.mean:.4g}"
        digits = max(0, 1 - math.floor(math.log10(self.error))) if self.error > 0 else 3
        return f"{self.mean:.{min(digits, 8)}f} ± {self.error:.{min(digits, 8)}f}"

    def scaled(self, factor: float) -> Measured:
        """This times a constant, and its error with it."""
        return Measured(
            factor * self.mean, None if self.error is None else abs(factor) * self.error, self.n
        )

    def below(self, other: Measured, errors: float = 2.0) -> bool:
        """Whether this is smaller by more than `errors` standard errors of the difference."""
        return other.mean - self.mean > errors * math.hypot(self.error or 0.0, other.error or 0.0)


Cell = Measured | float | int | str
Rows = tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Table:
    """Rows of measurements; the first column names the row."""

    columns: tuple[str, ...]
    rows: Rows

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"row {row[0]} has {len(row)} cells for {len(self.columns)} heads")


@dataclass(frozen=True)
class Finding:
    """One claim and what became of it.

    Attributes:
        claim: what the paper says, in our words.
        published: the paper's figure with its place in the paper, or "no figure".
        measured: the one sentence that carries our figure.
        holds: whether the direction holds here.
        table: all figures; figures: names of the pictures that `Bench` wrote.
        comment: conditions and doubts.
        if_not: why the claim may fail at this scale; the page has it where it does.
    """

    claim: str
    published: str
    measured: str
    holds: bool
    table: Table | None = None
    figures: tuple[str, ...] = field(default=())
    comment: str = ""
    if_not: str = ""
