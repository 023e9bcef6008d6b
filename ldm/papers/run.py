"""Run studies by name, one after the other, skipping those whose page is there."""

from __future__ import annotations

import importlib
import json
import logging
import pkgutil
import time
from collections.abc import Sequence
from pathlib import Path

from ldm.errors import ConfigError, suggest
from ldm.papers.bench import Bench, Study
from ldm.papers.page import summary, write_page
from ldm.recipe import Recipe

logger = logging.getLogger(__name__)
MODULE = "configs.papers"


def names() -> list[str]:
    """The studies in `configs/papers/`."""
    package = importlib.import_module(MODULE)
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def study(name: str) -> Study:
    """A study by name.

    Raises:
        ConfigError: no such study; the message lists all.
    """
    if name not in names():
        raise ConfigError(
            f"no study {name!r} in configs/papers/.{suggest(name, names())} There are: "
            + ", ".join(names())
        )
    found: Study = importlib.import_module(f"{MODULE}.{name}").STUDY
    return found


def recipes(name: str) -> dict[str, Recipe]:
    """Every training run of a study, by the name of its variant."""
    found: dict[str, Recipe] = importlib.import_module(f"{MODULE}.{name}").recipes()
    return found


def reproduce(
    wanted: Sequence[str],
    results: Path,
    runs: Path,
    *,
    scale: float = 1.0,
    seeds: tuple[int, ...] = (0, 1, 2),
    again: bool = False,
) -> list[Path]:
    """Run studies ("all" is every one) and write their pages; returns the pages' paths.

    A study whose page was written at this scale is skipped unless `again`; an interrupted one goes
    on from the checkpoints of its trainings.
    """
    pages = []
    chosen = names() if list(wanted) == ["all"] else list(wanted)
    for name, found in [(name, study(name)) for name in chosen]:
        pages.append(results / f"{name}.md")
        if not again and finished(results / f"{name}.json", scale, seeds):
            logger.info("%s: its page is there; --again measures anew", name)
            continue
        bench, start = Bench(name, results, runs, scale=scale, seeds=seeds), time.monotonic()
        findings = found.run(bench)
        write_page(bench, found, findings, time.monotonic() - start)
    summary(results)
    return pages


def finished(path: Path, scale: float, seeds: tuple[int, ...]) -> bool:
    """Whether a study's record is there, at this scale and over these seeds."""
    if not path.exists():
        return False
    record = json.loads(path.read_text())
    return bool(record["scale"] == scale and record["seeds"] == list(seeds))
