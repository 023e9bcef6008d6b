"""The page of ldm/diffusion runs, and names only what exists."""

from __future__ import annotations

import re
from pathlib import Path

import ldm.diffusion as diffusion

FOLDER = Path(__file__).resolve().parents[1] / "ldm/diffusion"
PAGE = (FOLDER / "README.md").read_text()


def test_blocks_run() -> None:
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.S):
        exec(compile(block, "README.md", "exec"), names)
    assert {"Quadratic", "Twice", "towards"} <= set(names)


def test_links_and_names_exist() -> None:
    for link in re.findall(r"\]\((\w+\.py)\)", PAGE):
        assert (FOLDER / link).is_file(), link
    table = PAGE[PAGE.index("## Methods as compositions") : PAGE.index("**Which grid.**")]
    for name in re.findall(r"`([A-Z][A-Za-z0-9]+)\b", table):
        assert hasattr(diffusion, name), name


def test_files_are_short() -> None:
    for path in FOLDER.glob("*.py"):
        assert len(path.read_text().splitlines()) < 350, path
