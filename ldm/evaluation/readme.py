"""The main figures of a report, between two marks of a page such as README.md."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ldm.errors import ConfigError, RequestError, suggest
from ldm.evaluation.cards import Card, load, table_line
from ldm.evaluation.features import VIEWS, View
from ldm.evaluation.figures import Figure

MARKS = ("<!-- figures: python scripts/evaluate.py readme -->", "<!-- end of figures -->")


class Beside(NamedTuple):
    """A figure of the same section that tells how to take another one."""

    label: str
    row: str
    column: str


class Main(NamedTuple):
    """A figure that a page shows: where it is in the report, and what is beside it."""

    section: str
    row: str
    column: str
    label: str
    beside: tuple[Beside, ...] = ()


FIRST = "picture → caption @1"
FIVE, GENERATED, CEILING = "concept top-5", "generated", "real through the autoencoder (ceiling)"


def _of_drawn(split: str, column: str, what: str) -> tuple[Main, ...]:
    """A figure of the images drawn for a split's pairs, in every view, beside their ceiling."""
    told = {"train": "seen pairs", "heldout": "held-out pairs"}[split]

    def of(view: View) -> Main:
        beside = (
            Beside("through the autoencoder", f"{split}: {CEILING}{view.label}", column),
            Beside("chance", f"{split}: chance", column),
        )
        row = f"{split}: {GENERATED}{view.label}"
        return Main("pictures", row, column, f"drawn, {told}, {what}, {view.name}", beside)

    return tuple(of(view) for view in VIEWS)


def _of_plain(view: View) -> Main:
    beside = (
        Beside("through the autoencoder", f"{CEILING}{view.label}", FIVE),
        Beside("chance", "chance", FIVE),
    )
    label = f"drawn, plain prompts without a style, right, {view.name}"
    return Main("plain-prompts", f"{GENERATED}{view.label}", FIVE, label, beside)


MAIN = (
    Main("reconstruction", "all", "PSNR", "autoencoder, PSNR"),
    Main(
        "clip", "all", FIRST, "CLIP, picture → caption within a style, first",
        (Beside("chance", "all", "chance @1"),),
    ),
    Main(
        "prior", "prior, best of 2", "cosine", "prior, cosine to the true embedding",
        (
            Beside("text embedding", "text embedding", "cosine"),
            Beside("nearest training caption", "nearest training caption", "cosine"),
        ),
    ),
    *(
        main
        for split in ("train", "heldout")
        for column, what in (("style", "style recognised"), (FIVE, "concept in first five"))
        for main in _of_drawn(split, column, what)
    ),
    *map(_of_plain, VIEWS),
)  # fmt: skip
"""What the project's pages show."""


def figures(report: Path, main: Sequence[Main] = MAIN) -> list[str]:
    """The lines of a Markdown table of the main figures.

    Raises:
        RequestError: the report cannot be read or lacks one of them.
    """
    cards = load(report)
    lines = [["figure", "value", "N", "beside"], ["---", "---:", "---:", "---"]]
    for entry in main:
        figure = _find(report, cards, entry.section, entry.row, entry.column)
        beside = [
            f"{b.label} {_find(report, cards, entry.section, b.row, b.column).text}"
            for b in entry.beside
        ]
        lines.append([entry.label, str(figure), str(figure.n), ", ".join(beside)])
    return [table_line(line) for line in lines]


def update(page: Path, report: Path, main: Sequence[Main] = MAIN) -> None:
    """Put the main figures of a report between the marks of a page, with a link to the report.

    Raises:
        ConfigError: the marks are not there, once each and in order.
        RequestError: the report cannot be read or lacks one of the figures.
    """
    put_between(page, MARKS, block(page, report, main))


def block(page: Path, report: Path, main: Sequence[Main] = MAIN) -> list[str]:
    """The lines that belong between the marks of a page."""
    tables = report.with_suffix(".md")
    link = Path(os.path.relpath(tables, page.parent)).as_posix()
    about = f"With 95 % bootstrap intervals; every table and its protocol: [{tables.name}]({link})."
    return [*figures(report, main), "", about]


def put_between(page: Path, marks: tuple[str, str], lines: Sequence[str]) -> None:
    """Replace what is between two marks of a file.

    Raises:
        ConfigError: the marks are not there, once each and in order.
    """
    before, opening, rest = page.read_text(encoding="utf-8").partition(marks[0])
    _, closing, after = rest.partition(marks[1])
    if not opening or not closing or marks[0] in rest or marks[1] in before + after:
        raise ConfigError(f"{page} needs {marks[0]} and, below it, {marks[1]}, once each")
    text = "\n".join([f"{before}{opening}", *lines, f"{closing}{after}"])
    page.write_text(text, encoding="utf-8")


def _find(report: Path, cards: Mapping[str, Card], section: str, row: str, column: str) -> Figure:
    """A figure of a report; what is missing is named."""
    where = f"{report} has no"
    if section not in cards:
        raise RequestError(
            f"{where} section {section!r}.{suggest(section, cards)} Write it with: "
            f"python scripts/evaluate.py --only {section}"
        )
    rows = cards[section].rows
    if row not in rows:
        raise RequestError(f"{where} row {row!r} in {section!r}.{suggest(row, rows)}")
    if column not in rows[row]:
        raise RequestError(f"{where} column {column!r} in {section!r}.{suggest(column, rows[row])}")
    return rows[row][column]
