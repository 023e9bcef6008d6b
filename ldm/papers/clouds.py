"""Sheets of scatter plots: how a cloud of points moves.

n points
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Panel = tuple[str, Tensor]


def sheet(rows: Sequence[tuple[str, Sequence[Panel]]], limit: float) -> Figure:
    """One row of panels a name: each panel is a title and points [n 2], drawn in +-limit."""
    from matplotlib.figure import Figure

    columns = max(len(panels) for _, panels in rows)
    figure = Figure(figsize=(1.9 * columns, 2.1 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for row, (name, panels) in zip(grid, rows, strict=True):
        for axes in row:
            axes.set_axis_off()
        for axes, (title, points) in zip(row, panels, strict=False):
            axes.set_axis_on()
            axes.scatter(points[:, 0], points[:, 1], s=1, linewidths=0, color="tab:blue")
            axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[])
            axes.set_title(title, fontsize=8)
        row[0].set_ylabel(name, fontsize=8)
    return figure
