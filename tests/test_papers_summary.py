"""The project's README shows the verdicts that were measured, all of them and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ldm.errors import ConfigError
from ldm.papers.page import MARKS, summary, update_readme, verdicts

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "results" / "papers"


def block(text: str) -> list[str]:
    """The lines between the marks."""
    return text.partition(MARKS[0])[2].partition(MARKS[1])[0].strip().splitlines()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A README with marks and one page's record."""
    (tmp_path / "README.md").write_text(f"above\n{MARKS[0]}\nstale\n{MARKS[1]}\nbelow\n")
    finding = {"claim": "Less is more", "measured": "1 is more", "holds": False}
    record = {"name": "less", "title": "Lessness", "findings": [finding]}
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "less.json").write_text(json.dumps(record))
    return tmp_path


def test_the_readme_shows_the_measured_verdicts() -> None:
    shown = block((ROOT / "README.md").read_text())
    assert shown == verdicts(PAGES, "results/papers/"), "python scripts/reproduce.py --summary"


def test_the_block_is_written_and_nothing_else(project: Path) -> None:
    update_readme(project / "README.md", project / "pages")
    text = (project / "README.md").read_text()
    row = "| [Lessness](pages/less.md) | Less is more | 1 is more | does not hold here |"
    assert block(text)[-1] == row
    assert text.startswith("above\n") and text.endswith("\nbelow\n") and "stale" not in text
    update_readme(project / "README.md", project / "pages")
    assert (project / "README.md").read_text() == text
    beside = summary(project / "pages").read_text()
    assert beside.splitlines()[-1] == row.replace("pages/", "")


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
    rows = verdicts(project / "pages", "pages/")
    assert block((project / "README.md").read_text()) == rows
    assert (project / "pages" / "README.md").exists()
