"""A card: one table of a report with what was judged and how, and nothing that could be misread.

A report's JSON file is {"format": 2, "sections": {name: card}}. Of a card, `subject` says what was
judged (command, model) and `protocol` how: cards compare only where the protocols are equal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm.errors import RequestError
from ldm.evaluation.figures import LEVEL, RESAMPLES, Figure
from ldm.evaluation.section import Section

FORMAT = 2
SUBJECT = ("command", "model")
"""What all sections of a run have in common is of its subject under these names, else protocol."""
BOOTSTRAP = {"kind": "percentile, over the items", "resamples": RESAMPLES, "level": LEVEL}
ABOUT = (
    f"In brackets: the {100 * LEVEL:.0f} % bootstrap interval over the items of the table "
    f"({RESAMPLES} resamples), where a table's protocol says nothing else. Figures without one are "
    "exact for what was measured. Written by scripts/evaluate.py."
)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A picture beside the report: its file's name, and what its pictures show."""

    file: str
    captions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Card:
    """One section of a report as its JSON has it.

    Attributes:
        options: those that the figures depend on, with what was asked.
        protocol, subject, rows, details, notes, title: as in `Section`, what the run's sections
            have in common included.
    """

    title: str
    notes: tuple[str, ...]
    subject: dict[str, Any]
    protocol: dict[str, Any]
    options: dict[str, Any]
    rows: dict[str, dict[str, Figure]]
    grids: dict[str, Grid]
    details: tuple[dict[str, Any], ...]

    @classmethod
    def of(
        cls,
        section: Section,
        common: Mapping[str, Any],
        asked: Mapping[str, Any],
        files: Mapping[str, str],
    ) -> Card:
        """A section's card.

        Args:
            common: command, model, data, precision.
            asked: all options; files: the file of each grid.
        """
        subject, protocol = parted(common)
        needed = asked if section.depends is None else section.depends
        return cls(
            title=section.title,
            notes=section.notes,
            subject={**subject, **section.subject},
            protocol={**protocol, **section.protocol},
            options={k: asked[k] for k in needed},
            rows=section.rows,
            grids={
                k: Grid(file=files[k], captions=section.shown.get(k, ())) for k in section.grids
            },
            details=section.details,
        )

    @property
    def columns(self) -> list[str]:
        """Those of all rows."""
        return list(dict.fromkeys(c for row in self.rows.values() for c in row))

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "notes": list(self.notes),
            "subject": self.subject,
            "protocol": self.protocol,
            "options": self.options,
            "rows": {r: {c: f.to_json() for c, f in row.items()} for r, row in self.rows.items()},
            "grids": {
                k: {"file": g.file, "captions": list(g.captions)} for k, g in self.grids.items()
            },
            "details": list(self.details),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Card:
        """What `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is something else.
        """
        return cls(
            title=str(body["title"]),
            notes=tuple(map(str, body["notes"])),
            subject=dict(body["subject"]),
            protocol=dict(body["protocol"]),
            options=dict(body["options"]),
            rows={
                str(name): {str(c): Figure.from_json(f) for c, f in row.items()}
                for name, row in body["rows"].items()
            },
            grids={str(name): _grid(g) for name, g in body["grids"].items()},
            details=tuple(body["details"]),
        )


def parted(common: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a run's sections have in common, as subject and protocol."""
    subject = {k: v for k, v in common.items() if k in SUBJECT}
    return subject, {k: v for k, v in common.items() if k not in SUBJECT} | {"bootstrap": BOOTSTRAP}


def load(path: Path) -> dict[str, Card]:
    """The cards of a report.

    Raises:
        RequestError: the file is not there, damaged, or of another format.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        if body["format"] == FORMAT:
            return {str(name): Card.from_json(card) for name, card in body["sections"].items()}
        fault = f"is a report of format {body['format']!r}, and only {FORMAT} can be read"
    except OSError as error:
        fault = f"cannot be read ({error.strerror or error})"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        fault = f"is damaged or no report ({type(error).__name__}: {error})"
    raise RequestError(f"{path} {fault}; write it (again) with: python scripts/evaluate.py")


def sample_sizes(row: Mapping[str, Figure]) -> str:
    """Over how many items the figures of a row are: '96', or '40 to 96'."""
    sizes = [figure.n for figure in row.values()]
    return str(sizes[0]) if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"


def told(value: Any) -> str:
    """A value of a protocol in a line: settings are named by their kind."""
    if isinstance(value, list | tuple):
        return ", ".join(map(told, value))
    if not isinstance(value, Mapping):
        return str(value)
    kind = str(value.get("kind", ""))
    inner = ", ".join(f"{k} {told(v)}" for k, v in value.items() if k != "kind" and v is not None)
    return f"{kind} ({inner})" if kind and inner else kind or inner


def table_line(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _grid(body: Mapping[str, Any]) -> Grid:
    file = str(body["file"])
    if Path(file).name != file or not file.endswith(".png"):
        raise ValueError(f"{file!r} is no PNG beside the report")
    return Grid(file=file, captions=tuple(map(str, body["captions"])))
