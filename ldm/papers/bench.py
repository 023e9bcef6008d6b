"""Where a study trains its models and leaves its figures."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ldm import recipe
from ldm.papers.findings import Finding
from ldm.recipe import Recipe
from ldm.training import Task
from ldm.training.log import logged_seconds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Study:
    """A reproduction.

    Attributes:
        title, paper: of the method; the paper as "authors year, arXiv number".
        about: two or three sentences for the page's head: the idea and the experiment.
        run: the experiment.
    """

    title: str
    paper: str
    about: str
    run: Callable[[Bench], list[Finding]]


class Bench:
    """Trains, resumes and draws for one study.

    Args:
        name: of the study; files in `results` begin with it.
        results: folder of the pages; runs: folder of the trainings, which resume.
        scale: factor on the length of each training and on `count`; 1 is the published setting,
            less is a rehearsal whose page says so.
        seeds: of repeated trainings.

    Attributes:
        earlier: seconds that trainings took before this bench was made, which went on from there
            or were found done.
    """

    def __init__(
        self,
        name: str,
        results: Path,
        runs: Path,
        *,
        scale: float = 1.0,
        seeds: tuple[int, ...] = (0, 1, 2),
        device: str = "cpu",
    ) -> None:
        self.name, self.results, self.runs = name, results, runs / name
        self.scale, self.seeds, self.device = scale, seeds, torch.device(device)
        self.results.mkdir(parents=True, exist_ok=True)
        self._there = {path.parent for path in self.runs.glob("*/checkpoints")}
        self.earlier = 0.0

    def count(self, n: int, least: int = 2) -> int:
        """`n` under the bench's scale: samples to draw, steps to take."""
        return max(least, round(n * self.scale))

    def train(self, plan: Recipe, variant: str, seed: int = 0) -> Any:
        """Train a recipe under a seed, or find it trained; returns the task with the averaged
        weights, in evaluation mode."""
        loop = dataclasses.replace(
            plan.loop,
            images=self.count(plan.loop.images, 1),
            seed=seed,
            log_every=max(1, self.count(plan.loop.images) // 20),
            sample_every=10**12,
            save_every=max(1, self.count(plan.loop.images) // 2),
            keep=1,
        )
        data = dataclasses.replace(plan.data, seed=seed)  # type: ignore[type-var]
        resolved = dataclasses.replace(plan, loop=loop, data=data)
        logger.info("%s: training %s, seed %d", self.name, variant, seed)
        folder = self.runs / f"{variant}-s{seed}-x{self.scale:g}"
        if folder in self._there:
            self._there.remove(folder)
            self.earlier += logged_seconds(folder)
        trainer = recipe.run(resolved, folder, device=self.device, progress=False)
        task: Task = trainer.task
        task.module.load_state_dict(trainer.ema.state_dict())
        task.module.eval()
        return task

    def repeated(self, plan: Recipe, variant: str, measure: Callable[[Any], float]) -> list[float]:
        """`measure` of the recipe trained under each of the bench's seeds."""
        return [measure(self.train(plan, variant, seed)) for seed in self.seeds]

    def plot(self, label: str, figure: Figure) -> str:
        """Keep a matplotlib figure; returns the name for `Finding.figures`."""
        name = f"{self.name}_{label}.png"
        figure.savefig(self.results / name, dpi=110, bbox_inches="tight")
        return name

    def pictures(self, label: str, pictures: Tensor, columns: int, enlarge: int = 1) -> str:
        """Keep a sheet of pictures uint8 [n c h w]; returns the name for `Finding.figures`."""
        from PIL import Image

        from ldm.training.loop import grid

        colour = pictures.cpu().expand(-1, 3, -1, -1)
        big = colour.repeat_interleave(enlarge, 2).repeat_interleave(enlarge, 3)
        name = f"{self.name}_{label}.png"
        sheet = grid(big, columns)
        Image.fromarray(sheet.permute(1, 2, 0).numpy()).save(self.results / name)
        return name
