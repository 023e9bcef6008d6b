"""The project's README shows the verdicts that were measured, all of them and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ldm.errors import ConfigError
from ldm.papers.page import MARKS, summary, totals, update_readme

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "results" / "papers"


def block(text: str) -> list[str]:
    """The lines between the marks."""
    return text.partition(MARKS[0])[2].partition(MARKS[1])[0].strip().splitlines()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A README with marks and one page's record."""
    (tmp_path / "README.md").write_text(f"above\n{MARKS[0]}\nstale\n{MARKS[1]}\nbelow\n")
    claims = (("Less is more", False), ("More is more", True))
    findings = [{"claim": c, "measured": "1 is more", "holds": holds} for c, holds in claims]
    record = {"name": "less", "title": "Lessness", "findings": findings}
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "less.json").write_text(json.dumps(record))
    return tmp_path


def test_the_readme_shows_the_measured_verdicts() -> None:
    shown = block((ROOT / "README.md").read_text())
    assert shown == totals(PAGES, "results/papers/"), "python scripts/reproduce.py --summary"


def test_the_block_is_written_and_nothing_else(project: Path) -> None:
    update_readme(project / "README.md", project / "pages")
    text = (project / "README.md").read_text()
    assert block(text)[-1] == "| [Lessness](pages/less.md) | 1 of 2 | Less is more |"
    assert text.startswith("above\n") and text.endswith("\nbelow\n") and "stale" not in text
    update_readme(project / "README.md", project / "pages")
    assert (project / "README.md").read_text() == text
    beside = summary(project / "pages").read_text()
    assert beside.splitlines()[-2:] == [
        "| [Lessness](less.md) | Less is more | 1 is more | does not hold here |",
        "|  | More is more | 1 is more | holds |",
    ]


@pytest.mark.parametrize(
    "text", ["no marks", MARKS[0], MARKS[1] + MARKS[0], MARKS[0] * 2 + MARKS[1]]
)
def test_a_file_without_its_marks_is_left_alone(project: Path, text: str) -> None:
    readme = project / "README.md"
    readme.write_text(text)
    with pytest.raises(ConfigError, match="once each"):
        update_readme(readme, project / "pages")
    assert readme.read_text() == text


def test_the_script_writes_both_tables(project: Path) -> None:
    script = [sys.executable, str(ROOT / "scripts" / "reproduce.py"), "--summary"]
    subprocess.run([*script, "--results", "pages"], cwd=project, check=True)
    rows = totals(project / "pages", "pages/")
    assert block((project / "README.md").read_text()) == rows
    assert (project / "pages" / "README.md").exists()
