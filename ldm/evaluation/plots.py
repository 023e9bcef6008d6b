"""Plots in one style: figures with their intervals, as pictures for the report.

The colours are those of Okabe and Ito, "Color Universal Design" (2008), which people with any
colour vision can tell apart; every line has a marker of its own besides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ldm.errors import RequestError
from ldm.evaluation.figures import Figure

if TYPE_CHECKING:
    from PIL import Image

SIZE = (800, 520)
DPI = 100
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00", "#7F7F7F",
)  # fmt: skip
MARKERS = "osD^vPX*"
STYLE: Any = {
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


@dataclass(frozen=True)
class Point:
    """A place on a plot; a `Figure` brings its interval and its unit, a number is exact."""

    x: float | Figure
    y: float | Figure
    label: str = ""


def lines(
    series: Mapping[str, Sequence[Point]],
    x: str,
    y: str,
    *,
    logx: bool = False,
    logy: bool = False,
    ticks: Sequence[float] | None = None,
    levels: Mapping[str, float] | None = None,
    size: tuple[int, int] = SIZE,
) -> Image.Image:
    """A line a name, with error bars where the figures have intervals.

    Args:
        x, y: what the axes say.
        ticks: where the x axis has its numbers, such as the steps that were measured.
        levels: values of y to be seen beside the lines, such as a floor, by name.
        size: width and height in pixels.
    """
    with _page(series, size) as (axes, picture):
        for (name, points), look in zip(series.items(), _looks(len(series)), strict=True):
            _bars(axes, points, look["color"])
            axes.plot([_value(p.x) for p in points], [_value(p.y) for p in points], **look)
            axes.lines[-1].set_label(name)
        _levels(axes, levels or {})
        _finish(axes, series, (x, y), (logx, logy))
        if ticks is not None:
            axes.set_xticks(list(ticks), [f"{tick:g}" for tick in ticks])
            axes.set_xticks([], minor=True)
    return picture[0]


def paths(
    series: Mapping[str, Sequence[Point]],
    x: str,
    y: str,
    *,
    logx: bool = False,
    logy: bool = False,
    levels: Mapping[str, float] | None = None,
    size: tuple[int, int] = SIZE,
) -> Image.Image:
    """Fronts of two measures: each name's points joined in their order, labels beside them.

    Points of several names that lie in one place with one label are labelled once.
    """
    told: set[tuple[float, float, str]] = set()
    with _page(series, size) as (axes, picture):
        for (name, points), look in zip(series.items(), _looks(len(series)), strict=True):
            _bars(axes, points, look["color"], faint=True)
            axes.plot([_value(p.x) for p in points], [_value(p.y) for p in points], **look)
            axes.lines[-1].set_label(name)
            for p in points:
                place = (_value(p.x), _value(p.y), p.label)
                if p.label and place not in told:
                    axes.annotate(
                        p.label,
                        place[:2],
                        xytext=(5, 4),
                        textcoords="offset points",
                        color=look["color"] if sum(p in s for s in series.values()) == 1 else "k",
                        fontsize=9,
                    )
                told.add(place)
        _levels(axes, levels or {})
        _finish(axes, series, (x, y), (logx, logy))
    return picture[0]


@contextmanager
def _page(
    series: Mapping[str, Sequence[Point]], size: tuple[int, int]
) -> Iterator[tuple[Any, list[Image.Image]]]:
    """Axes to draw on; at the end the list beside them holds the picture."""
    if not series or not all(series.values()):
        raise RequestError("a plot needs points: give at least one for each of its names")
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Page
    except ImportError as error:
        raise RequestError(
            "plots need matplotlib, which is not installed: pip install 'ldm[evaluate]'"
        ) from error
    from PIL import Image

    found: list[Image.Image] = []
    with matplotlib.rc_context(STYLE):
        page = Page(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI, layout="constrained")
        canvas = FigureCanvasAgg(page)
        yield page.subplots(), found
        canvas.draw()
        found.append(Image.frombytes("RGBA", size, bytes(canvas.buffer_rgba())).convert("RGB"))


def _looks(count: int) -> list[dict[str, str]]:
    """Colour and marker of each line; a second round of colours is dashed."""
    n = len(COLOURS)
    return [
        {"color": COLOURS[i % n], "marker": MARKERS[i % n], "linestyle": "-" if i < n else "--"}
        for i in range(count)
    ]


def _bars(axes: Any, points: Sequence[Point], colour: str, faint: bool = False) -> None:
    """The intervals of points, under their line."""
    for p in points:
        for figure, draw, place in ((p.y, axes.vlines, p.x), (p.x, axes.hlines, p.y)):
            if isinstance(figure, Figure) and figure.low is not None and figure.high is not None:
                draw(
                    _value(place),
                    figure.low,
                    figure.high,
                    color=colour,
                    linewidth=1.0,
                    alpha=0.3 if faint else 0.6,
                )


def _levels(axes: Any, levels: Mapping[str, float]) -> None:
    for name, level in levels.items():
        axes.axhline(level, color="#666666", linewidth=1.1, linestyle=":", zorder=1)
        axes.annotate(
            name,
            (1, level),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 3),
            textcoords="offset points",
            ha="right",
            fontsize=9,
            color="#555555",
        )


def _finish(
    axes: Any,
    series: Mapping[str, Sequence[Point]],
    labels: tuple[str, str],
    logs: tuple[bool, bool],
) -> None:
    """Scales, units and names of the axes, and the key above them where there is more to tell."""
    from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter, StrMethodFormatter

    first = next(iter(series.values()))[0]
    axes.set(xscale="log" if logs[0] else "linear", yscale="log" if logs[1] else "linear")
    for axis, label, log, value in zip(
        (axes.xaxis, axes.yaxis), labels, logs, (first.x, first.y), strict=True
    ):
        axis.set_label_text(label)
        if log:
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_formatter(NullFormatter())
        if isinstance(value, Figure) and value.unit == "%":
            axis.set_major_formatter(PercentFormatter(1.0))
    if len(series) > 1:
        columns = max(1, min(4, len(series), 88 // (max(map(len, series)) + 6)))
        axes.figure.legend(loc="outside upper left", ncols=columns, handlelength=2.4)


def _value(x: float | Figure) -> float:
    return x.value if isinstance(x, Figure) else x
