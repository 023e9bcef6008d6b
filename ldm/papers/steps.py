"""Measurements over the number of steps: a table and a figure with a row or line a name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ldm.papers.findings import Measured, Rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Grid = dict[tuple[str, int], Measured]
"""What was measured for each name and number of steps."""


def rows_of(found: Grid, names: Sequence[str], counts: Sequence[int]) -> Rows:
    """One row a name."""
    return tuple((name, *(found[name, n] for n in counts)) for name in names)


def drawn(found: Grid, names: Sequence[str], counts: Sequence[int], what: str) -> Figure:
    """One line a name over the number of steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.4))
    axes = figure.subplots()
    for name in names:
        values = [found[name, n] for n in counts]
        errors = [v.error or 0.0 for v in values]
        axes.errorbar(counts, [v.mean for v in values], errors, marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="steps", ylabel=what)
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.set_xticks([], minor=True)
    axes.legend()
    return figure
