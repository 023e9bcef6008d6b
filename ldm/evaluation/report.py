"""Sections -> one JSON file, one Markdown file and PNG grids, which say how they were made."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ldm.data.manifest import write_atomically
from ldm.evaluation.figures import Figure
from ldm.evaluation.section import Section

logger = logging.getLogger(__name__)

FORMAT = 1


def section_json(section: Section, common: Mapping[str, Any], files: Mapping[str, str]) -> Any:
    """What the JSON file says of a section; `common` is added to its protocol."""
    return {
        "title": section.title,
        "notes": list(section.notes),
        "protocol": {**common, **section.protocol},
        "rows": {r: {c: f.to_json() for c, f in row.items()} for r, row in section.rows.items()},
        "grids": {
            name: {"file": files[name], "captions": list(section.shown[name])}
            for name in section.grids
        },
        "details": list(section.details),
    }


def earlier(path: Path, common: Mapping[str, Any]) -> dict[str, Any]:
    """The sections in the report at `path` that were made from the same model and data."""
    if not path.exists():
        return {}
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        if body["format"] != FORMAT:
            return {}
        return {
            name: section
            for name, section in body["sections"].items()
            if all(section["protocol"][k] == common[k] for k in ("model", "data"))
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s is replaced: it is no report of this script (%r)", path, error)
        return {}


def write(
    folder: Path,
    name: str,
    sections: Mapping[str, Section],
    common: Mapping[str, Any],
    order: Sequence[str],
) -> list[Path]:
    """Write NAME.json, NAME.md and the grids; returns their paths.

    Sections that an earlier report in `folder` has of the same model and data stay in it. `order`
    is that of the sections in the report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    every, written = earlier(folder / f"{name}.json", common), []
    for key, section in sections.items():
        files = {grid: f"{name}-{grid}.png" for grid in section.grids}
        for grid, image in section.grids.items():
            image.save(folder / files[grid], optimize=True)
            written.append(folder / files[grid])
        every[key] = section_json(section, common, files)
    body: dict[str, Any] = {
        "format": FORMAT,
        "sections": {k: every[k] for k in order if k in every},
    }
    texts = {
        f"{name}.json": json.dumps(body, indent=1, ensure_ascii=False) + "\n",
        f"{name}.md": markdown(body["sections"]),
    }
    for file, text in texts.items():
        write_atomically(folder / file, text.encode())
    return [folder / file for file in texts] + written


def markdown(sections: Mapping[str, Any]) -> str:
    """The report for people: each table with its protocol under it."""
    parts = [
        "# Evaluation\n\nFigures are means with the 95 % bootstrap interval over the items of the "
        "table (2000 resamples). Written by scripts/evaluate.py.\n"
    ]
    for section in sections.values():
        parts.append(f"\n## {section['title']}\n\n{_table(section['rows'])}\n")
        parts += [f"\n{note}\n" for note in section["notes"]]
        parts.append("\n" + "".join(f"- {k}: {_told(v)}\n" for k, v in section["protocol"].items()))
        for name, grid in section["grids"].items():
            parts.append(f"\n![{name}]({grid['file']})\n")
    return "".join(parts)


def _table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    figures = {name: {c: Figure(**f) for c, f in row.items()} for name, row in rows.items()}
    columns = list(next(iter(figures.values())))
    lines = [["", "N", *columns], ["---"] + ["---:"] * (len(columns) + 1)]
    for name, row in figures.items():
        lines.append([name, str(row[columns[0]].n), *(str(row[c]) for c in columns)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _told(value: Any) -> str:
    """A value of the protocol in a line: settings are named by their kind."""
    if not isinstance(value, Mapping):
        return f"`{value}`" if isinstance(value, str) and " " not in value else str(value)
    kind = value.get("kind", "")
    inner = ", ".join(f"{k} {_told(v)}" for k, v in value.items() if k != "kind" and v is not None)
    return f"{kind} ({inner})" if kind and inner else kind or inner
