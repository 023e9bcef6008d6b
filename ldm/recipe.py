"""A recipe: everything that one training run is, as one frozen value; and how to run it."""

from __future__ import annotations

import importlib
import json
import logging
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from ldm import config
from ldm.data.stream import Source, Stream
from ldm.errors import ConfigError, suggest
from ldm.training import LoopConfig, OptimConfig, Task, Trainer, resume, train
from ldm.training.log import RunLog

logger = logging.getLogger(__name__)


class TaskConfig(Protocol):
    """Settings from which a trainable is built; a frozen dataclass, one kind for each task."""

    def build(self, stream: Stream) -> Task: ...


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run.

    Attributes:
        task: what is trained.
        data: what it is trained on, and how that becomes batches.
        optim: the optimiser.
        loop: length, precision, intervals, seed.
        result: command, machine, hours and the figure reached, measured; or "not yet run".
    """

    task: TaskConfig
    data: Source
    optim: OptimConfig
    loop: LoopConfig
    result: str = "not yet run"


def names() -> list[str]:
    """The recipes that `configs/` holds, `papers.ddpm` style for those in folders."""
    import configs

    found = pkgutil.walk_packages(configs.__path__, "configs.")
    return sorted(m.name.removeprefix("configs.") for m in found if not m.ispkg)


def load(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe `configs/<name>.py`, with command-line overrides applied.

    A file with several recipes is asked for one of them: `papers.ddpm:eps`.

    Raises:
        ConfigError: for a name that does not exist or an override that does not fit.
    """
    file, _, variant = name.partition(":")
    if file not in names():
        raise ConfigError(
            f"no recipe {file!r} in configs/.{suggest(file, names())} There are: "
            + ", ".join(names())
        )
    module = importlib.import_module(f"configs.{file}")
    recipe: Recipe
    if hasattr(module, "recipes"):
        recipe = _variant(file, variant, module.recipes())
    else:
        recipe = module.recipe()
    return config.override(recipe, overrides) if overrides else recipe


def _variant(file: str, variant: str, recipes: Mapping[str, Recipe]) -> Recipe:
    if variant not in recipes:
        raise ConfigError(
            f"{file} holds several recipes and {variant!r} is none of them."
            f"{suggest(variant, recipes)} Choose one: "
            + ", ".join(f"{file}:{key}" for key in recipes)
        )
    return recipes[variant]


def run(
    recipe: Recipe,
    folder: Path,
    *,
    device: torch.device,
    progress: bool = True,
    start_from: Path | None = None,
) -> Trainer:
    """Train a recipe in `folder`, going on where an earlier run of the same recipe stopped.

    A run that begins takes its weights from `start_from` (another run, or an exported part).

    Raises:
        ConfigError: where the folder holds a run whose task or data differ.
    """
    _store(recipe, folder)
    stream = recipe.data.open()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.loop.seed)
        task = recipe.task.build(stream)
    task.module.to(device)
    trainer = Trainer(task, recipe.optim, recipe.loop, device=device)
    if not resume(trainer, folder / "checkpoints") and start_from is not None:
        trainer.start_from(start_from)
    log = RunLog(folder)
    parameters = sum(p.numel() for p in task.module.parameters())
    logger.info("%s parameters, %s", f"{parameters:,}", "bf16" if trainer.autocast else "float32")
    try:
        train(
            trainer,
            lambda start: stream.batches(start_batch=start),
            log,
            meta={"recipe": config.to_dict(recipe)},
            progress=progress,
        )
    finally:
        log.close()
    return trainer


def _store(recipe: Recipe, folder: Path) -> None:
    """Write the resolved recipe beside the run; refuse a folder that belongs to another one."""
    path, now = folder / "recipe.json", config.to_dict(recipe)
    if path.exists():
        before = json.loads(path.read_text())
        changed = [k for k in ("task", "data") if before.get(k) != now[k]]
        if changed:
            raise ConfigError(
                f"{folder} holds a run with another {' and '.join(changed)} (see {path}); "
                f"give --run a new folder or undo the change"
            )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(now, indent=1) + "\n")
