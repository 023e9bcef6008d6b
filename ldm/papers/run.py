"""Run studies by name, one after the other, skipping those whose page is there."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import math
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
PACKAGES = {"sklearn": "scikit-learn", "matplotlib": "matplotlib"}
"""Module and package of the extra `papers`."""


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

    A study whose page was written at this scale over these seeds is skipped unless `again`; an
    interrupted one goes on from the checkpoints of its trainings.

    Raises:
        ConfigError: a scale or seeds that measure nothing, a page that is there and was made
            otherwise, or a package that is missing; nothing has been trained then.
    """
    check(scale, seeds)
    check_packages()
    chosen = names() if list(wanted) == ["all"] else list(wanted)
    studies = {name: study(name) for name in chosen}
    there = [
        name for name in chosen if not again and finished(results / f"{name}.json", scale, seeds)
    ]
    pages = [results / f"{name}.md" for name in chosen]
    for name, found in studies.items():
        if name in there:
            logger.info("%s: its page is there; --again measures anew", name)
            continue
        bench, start = Bench(name, results, runs, scale=scale, seeds=seeds), time.monotonic()
        findings = found.run(bench)
        write_page(bench, found, findings, time.monotonic() - start)
    summary(results)
    return pages


def check(scale: float, seeds: tuple[int, ...]) -> None:
    """Refuse what cannot be measured with."""
    if not 0 < scale < math.inf:
        raise ConfigError(f"scale is a factor above 0 on the length of trainings, not {scale:g}")
    if len(set(seeds)) < max(2, len(seeds)) or min(seeds) < 0:
        raise ConfigError(
            "seeds are two different numbers or more, from 0 up, for a verdict needs a standard "
            f"error over trainings; given: {', '.join(map(str, seeds)) or 'none'}"
        )


def check_packages() -> None:
    """Refuse to train what could not be judged or drawn in the end."""
    missing = [name for module, name in PACKAGES.items() if not importlib.util.find_spec(module)]
    if missing:
        raise ConfigError(
            f"studies need {' and '.join(missing)}, not installed: pip install 'ldm[papers]'"
        )


def finished(path: Path, scale: float, seeds: tuple[int, ...]) -> bool:
    """Whether a study's record is there, at this scale and over these seeds.

    Raises:
        ConfigError: it is there at another scale or over other seeds, and would be lost.
    """
    if not path.exists():
        return False
    record = json.loads(path.read_text())
    if record["scale"] != scale or record["seeds"] != list(seeds):
        raise ConfigError(
            f"{path} was measured at scale {record['scale']:g} over seeds {record['seeds']}, not "
            f"at {scale:g} over {list(seeds)}; --results FOLDER keeps both, --again replaces it"
        )
    return True
