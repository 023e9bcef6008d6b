"""Pages of studies: one Markdown and JSON file a study, and a summary over all of them."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from ldm.evaluation.readme import put_between
from ldm.papers.bench import Bench, Study
from ldm.papers.findings import Finding, Measured, Table

MARKS = ("<!-- verdicts: python scripts/reproduce.py --summary -->", "<!-- end of verdicts -->")
"""Around the table in the project's README."""


def write_page(bench: Bench, study: Study, findings: list[Finding], seconds: float) -> Path:
    """Write `NAME.json` and `NAME.md`; returns the Markdown's path."""
    record = {
        "name": bench.name,
        "title": study.title,
        "paper": study.paper,
        "scale": bench.scale,
        "seeds": list(bench.seeds),
        "seconds": round(seconds),
        "earlier": round(bench.earlier),
        "torch": torch.__version__.split("+")[0],
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "findings": [plain(finding) for finding in findings],
    }
    (bench.results / f"{bench.name}.json").write_text(json.dumps(record, indent=1) + "\n")
    path = bench.results / f"{bench.name}.md"
    path.write_text(markdown(study, findings, record))
    return path


def plain(value: Any) -> Any:
    """Findings as JSON values."""
    if isinstance(value, Measured):
        return {"mean": value.mean, "error": value.error, "n": value.n}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def markdown(study: Study, findings: list[Finding], record: dict[str, Any]) -> str:
    """The page."""
    lines = [f"# {study.title}", "", f"{study.paper}. {study.about}", ""]
    lines += [setting(record), ""]
    for finding in findings:
        lines += section(finding)
    return "\n".join(lines).rstrip() + "\n"


def setting(record: dict[str, Any]) -> str:
    """What was run, for how long, on what."""
    rehearsal = "" if record["scale"] == 1 else f" **A rehearsal at scale {record['scale']:g}.**"
    earlier = record["earlier"]
    resumed = f" and {earlier} s of training in an earlier start" if earlier else ""
    return (
        f"`python scripts/reproduce.py {record['name']}`, {record['seconds']} s{resumed} on "
        f"{record['machine']}, torch {record['torch']}, seeds {record['seeds']}; "
        f"± is the standard error of the mean.{rehearsal}"
    )


def section(finding: Finding) -> list[str]:
    """One claim."""
    verdict = "holds" if finding.holds else "does not hold here"
    lines = [f"## {finding.claim}", ""]
    lines += [f"- Published (not measured here): {finding.published}."]
    lines += [f"- Measured here: {finding.measured}.", f"- Verdict: **{verdict}**.", ""]
    if finding.table is not None:
        lines += [*table_lines(finding.table), ""]
    lines += [f"![{name}]({name})\n" for name in finding.figures]
    if finding.comment:
        lines += [finding.comment, ""]
    if finding.if_not and not finding.holds:
        lines += [f"Why it may fail here: {finding.if_not}", ""]
    return lines


def table_lines(table: Table) -> list[str]:
    """A Markdown table."""
    rows = [[cell_text(cell) for cell in row] for row in table.rows]
    rule = ["---"] * len(table.columns)
    return [f"| {' | '.join(row)} |" for row in (list(table.columns), rule, *rows)]


def cell_text(cell: Any) -> str:
    """A cell: floats to four digits."""
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def summary(results: Path) -> Path:
    """Write `README.md` beside the pages: every claim and its verdict, from the JSON files."""
    lines = [
        "# The methods, measured",
        "",
        "Made by `python scripts/reproduce.py all`. Each page has the published figure, marked as "
        "such, what was measured here, and how.",
        "",
        *verdicts(results),
    ]
    path = results / "README.md"
    path.write_text("\n".join(lines) + "\n")
    return path


def totals(results: Path, prefix: str = "") -> list[str]:
    """A table of the methods: how many claims hold, which do not; `prefix` leads to the pages."""
    lines = ["| method | claims that hold here | those that do not |", "|---|---|---|"]
    for path in sorted(results.glob("*.json")):
        record = json.loads(path.read_text())
        failed = [f["claim"] for f in record["findings"] if not f["holds"]]
        count = f"{len(record['findings']) - len(failed)} of {len(record['findings'])}"
        title = f"[{record['title']}]({prefix}{record['name']}.md)"
        lines.append(f"| {title} | {count} | {'; '.join(failed)} |")
    return lines


def verdicts(results: Path) -> list[str]:
    """A table of every claim and its verdict."""
    lines = ["| method | claim | measured here | verdict |", "|---|---|---|---|"]
    for path in sorted(results.glob("*.json")):
        record = json.loads(path.read_text())
        for i, finding in enumerate(record["findings"]):
            title = f"[{record['title']}]({record['name']}.md)" if i == 0 else ""
            verdict = "holds" if finding["holds"] else "does not hold here"
            lines.append(f"| {title} | {finding['claim']} | {finding['measured']} | {verdict} |")
    return lines


def update_readme(readme: Path, results: Path) -> None:
    """Put the table of methods between the two marks of a file.

    Raises:
        ConfigError: the marks are not there, once each and in order.
    """
    prefix = Path(os.path.relpath(results, readme.parent)).as_posix() + "/"
    put_between(readme, MARKS, totals(results, prefix))
