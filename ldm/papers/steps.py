"""Measurements over a number (of steps, of images): tables and figures, a row or line a name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ldm.papers.findings import Measured, Rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
    axes.set(yscale="log", xlabel="steps", ylabel=what)
    log_axis(axes, counts)
    axes.legend()
    return figure


def log_axis(axes: Axes, values: Sequence[float], form: str = "{:,}") -> None:
    """A logarithmic x with a mark at each measured value and at no other."""
    axes.set_xscale("log")
    axes.set_xticks(values, [form.format(n) for n in values])
    axes.set_xticks([], minor=True)
