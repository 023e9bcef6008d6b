"""Sections -> JSON, Markdown, HTML and PNG grids, which say what was judged and how."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ldm.errors import RequestError
from ldm.evaluation.cards import ABOUT, FORMAT, Card, load, parted, sample_sizes, table_line, told
from ldm.evaluation.html import write_html
from ldm.evaluation.section import Section
from ldm.files import write_atomically

logger = logging.getLogger(__name__)


def write(
    folder: Path,
    name: str,
    sections: Mapping[str, Section],
    common: Mapping[str, Any],
    order: Sequence[str],
    *,
    asked: Mapping[str, Any],
) -> list[Path]:
    """Write NAME.json, NAME.md, NAME.html and the grids; returns their paths.

    Args:
        common: command, model, data, precision.
        order: that of the sections in the report.
        asked: the options. Sections that an earlier report in `folder` has of the same model and
            data, made with the same options, stay in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, written = folder / f"{name}.json", []
    every = earlier(path, common, asked, made=sections)
    for key, section in sections.items():
        files = {grid: f"{name}-{grid}.png" for grid in section.grids}
        for grid, image in section.grids.items():
            image.save(folder / files[grid], optimize=True)
            written.append(folder / files[grid])
        every[key] = Card.of(section, common, asked, files)
    cards = {k: every[k] for k in order if k in every}
    body = {"format": FORMAT, "sections": {k: card.to_json() for k, card in cards.items()}}
    write_atomically(path, (json.dumps(body, indent=1, ensure_ascii=False) + "\n").encode())
    write_atomically(path.with_suffix(".md"), markdown(cards).encode())
    return [path, path.with_suffix(".md"), write_html(path), *written]


def earlier(
    path: Path, common: Mapping[str, Any], asked: Mapping[str, Any], made: Collection[str]
) -> dict[str, Card]:
    """The cards in the report at `path` that belong into the report of this run.

    They are of the same model, data, precision and options; what is left out is told, unless it
    was `made` anew. How an interval is made is each part's own affair.
    """
    if not path.exists():
        return {}
    try:
        found = load(path)
    except RequestError as error:
        logger.warning("replaced: %s", error)
        return {}
    subject, protocol = parted(common)
    kept = {}
    for name, card in ((k, c) for k, c in found.items() if k not in made):
        now = {"model": subject["model"], **protocol, **{k: asked.get(k) for k in card.options}}
        del now["bootstrap"]
        then = {**card.subject, **card.protocol, **card.options}
        other = [k for k, value in now.items() if then.get(k) != value]
        if not other:
            kept[name] = card
            continue
        changes = ", ".join(f"{k} {told(then.get(k))} (now {told(now[k])})" for k in other)
        logger.warning("%s: '%s' is left out, it was made with %s", path, name, changes)
    return kept


def markdown(cards: Mapping[str, Card]) -> str:
    """The report for people: each table with its protocol under it."""
    parts = [f"# Evaluation\n\n{ABOUT}\n"]
    for card in cards.values():
        parts.append(f"\n## {card.title}\n\n{_table(card)}\n")
        parts += [f"\n{note}\n" for note in card.notes]
        for heading, values in (("Judged", card.subject), ("Protocol", card.protocol)):
            lines = "".join(f"- {k}: {_line(v)}\n" for k, v in values.items())
            parts.append(f"\n{heading}:\n\n{lines}")
        parts += [f"\n![{name}]({grid.file})\n" for name, grid in card.grids.items()]
    return "".join(parts)


def _table(card: Card) -> str:
    columns = card.columns
    lines = [["", "N", *columns], ["---"] + ["---:"] * (len(columns) + 1)]
    for name, row in card.rows.items():
        cells = [str(row[c]) if c in row else "" for c in columns]
        lines.append([name, sample_sizes(row), *cells])
    return "\n".join(table_line(line) for line in lines)


def _line(value: Any) -> str:
    return f"`{value}`" if isinstance(value, str) and " " not in value else told(value)
