"""A report as one HTML file that loads nothing: pictures and style are in it, and no script is."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ldm.evaluation.cards import ABOUT, Card, Grid, load, sample_sizes, told
from ldm.evaluation.figures import Figure
from ldm.evaluation.style import STYLE
from ldm.files import write_atomically

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser may load for the page: pictures that are in it, its own style, nothing else."""


def write_html(report: Path) -> Path:
    """Write NAME.html beside a report NAME.json, with its grids in it; returns its path.

    Raises:
        RequestError: the report is not there, damaged, or of another format.
    """
    path = report.with_suffix(".html")
    write_atomically(path, page(report.stem, load(report), report.parent).encode())
    return path


def page(name: str, cards: Mapping[str, Card], folder: Path) -> str:
    """The document; grids are read from `folder`."""
    contents = "".join(
        f'<li><a href="#{escape(quote(key))}">{escape(card.title)}</a></li>'
        for key, card in cards.items()
    )
    sections = "\n".join(_section(key, card, folder) for key, card in cards.items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>Evaluation: {escape(name)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<p class="kind">Evaluation</p>
<h1>{escape(name)}</h1>
{_heading(cards)}
<p>{_prose(ABOUT)} The line under a share shows its interval on a scale from 0 to 100 %.</p>
</header>
<nav aria-label="Contents"><ol>{contents}</ol></nav>
<main>
{sections}
</main>
</body>
</html>
"""


def _heading(cards: Mapping[str, Card]) -> str:
    """Model and data: the sections of a report have them in common."""
    said = {k: v for card in cards.values() for k, v in {**card.protocol, **card.subject}.items()}
    return _list({k: said[k] for k in ("model", "data", "precision") if k in said}, "about")


def _section(key: str, card: Card, folder: Path) -> str:
    notes = "".join(f"<p>{_prose(note)}</p>" for note in card.notes)
    pictures = "".join(
        _picture(f"{key}-{name}", name, grid, folder) for name, grid in card.grids.items()
    )
    return f"""<section id="{escape(key)}">
<h2>{escape(card.title)}</h2>
{_table(card)}
<div class="notes">{notes}</div>
{pictures}
<details class="protocol"><summary>What was judged, and how</summary>
<h3>Judged</h3>{_list(card.subject)}
<h3>Protocol</h3>{_list(card.protocol)}
</details>
</section>"""


def _table(card: Card) -> str:
    columns = card.columns
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in ("N", *columns))
    lines = [
        f'<tr><th scope="row">{escape(name)}</th><td class="n">{sample_sizes(row)}</td>'
        + "".join(_cell(row.get(column)) for column in columns)
        + "</tr>"
        for name, row in card.rows.items()
    ]
    return (
        f'<div class="table" role="region" aria-label="{escape(card.title)}" tabindex="0"><table>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "<td></td>"
    bounds = f" <small>{escape(figure.bounds)}</small>" if figure.bounds else ""
    return f"<td{_share(figure)}>{escape(figure.text)}{bounds}</td>"


def _share(figure: Figure) -> str:
    """For a share: where its interval lies in the width of the cell."""
    if figure.unit != "%":
        return ""
    ends = (figure.value if x is None else x for x in (figure.low, figure.high))
    low, high = (100 * min(max(x, 0), 1) for x in ends)
    return f' class="share" style="--low:{low:.1f}%;--high:{high:.1f}%"'


def _picture(key: str, name: str, grid: Grid, folder: Path) -> str:
    """A grid that fits the page, and is shown at its own size when it is clicked."""
    path = folder / grid.file
    if not path.exists():
        return f"<p>The picture {escape(grid.file)} was not beside the report.</p>"
    data = base64.b64encode(path.read_bytes()).decode()
    what = escape(" ".join(re.split(r"[-_]", name)))
    toggle = escape(f"large-{key}")
    return (
        f'<figure><input type="checkbox" id="{toggle}" aria-label="{what}, at its own size">'
        f'<label for="{toggle}"><img alt="{what}" src="data:image/png;base64,{data}"></label>'
        f"<figcaption>{what} <small>(click: own size)</small>{_captions(grid)}</figcaption>"
        "</figure>"
    )


def _captions(grid: Grid) -> str:
    if not grid.captions:
        return ""
    lines = "".join(f"<li>{escape(text)}</li>" for text in grid.captions)
    summary = f"{len(grid.captions)} captions, in the order of the picture"
    return f"<details><summary>{summary}</summary><ol>{lines}</ol></details>"


def _list(values: Mapping[str, Any], style: str = "") -> str:
    """Keys and values; settings within settings are lists in lists."""
    entries = "".join(
        f"<div><dt>{escape(str(key))}</dt><dd>{_value(value)}</dd></div>"
        for key, value in values.items()
    )
    return f'<dl class="{style}">{entries}</dl>' if style else f"<dl>{entries}</dl>"


def _value(value: Any) -> str:
    if isinstance(value, Mapping) and any(isinstance(v, Mapping) for v in value.values()):
        return _list(value)
    text = escape(told(value))
    return f"<code>{text}</code>" if isinstance(value, str) and " " not in value else text


def _prose(text: str) -> str:
    """Escaped, with `code` as such."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
