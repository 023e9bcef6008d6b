"""A stage whose noise schedule has a loss of its own: two players of the one loop.

The network and the ends of log-SNR follow the bound; the interior of the schedule, on which the
bound does not depend, follows the bound's variance. Kingma et al. 2021 (arXiv 2107.00630) section
5.1 and appendix I.2; their code leaves the second out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ldm.data.batch import Batch
from ldm.data.stream import Stream
from ldm.diffusion.learned import Monotone
from ldm.diffusion.objective import Objective
from ldm.diffusion.variational import ElboVariance
from ldm.errors import ConfigError
from ldm.samplers import Sampler
from ldm.stage import Stage, StageConfig
from ldm.tasks import StageTask, StageTraining
from ldm.training import Player, Terms


@dataclass(frozen=True, kw_only=True)
class ScheduleTraining:
    """A stage whose process is a `MonotoneConfig`.

    stage: what is trained on its own objective, all but the interior; interior: the objective of
    the schedule's interior; shape, preview: as in `StageTraining`.
    """

    stage: StageConfig
    interior: Objective = field(default_factory=ElboVariance)
    preview: Sampler = Sampler()
    shape: tuple[int, ...] = ()

    def build(self, stream: Stream) -> ScheduleTask:
        """A fresh stage."""
        plain = StageTraining(stage=self.stage, preview=self.preview, shape=self.shape)
        return ScheduleTask(plain.build(stream), self.interior)


class ScheduleTask:
    """A stage task with a second player, the schedule's interior."""

    def __init__(self, task: StageTask, interior: Objective) -> None:
        if not isinstance(task.stage.denoiser.process, Monotone):
            raise ConfigError(
                f"the process is {task.stage.config.process}, which has no interior to learn; "
                "give a MonotoneConfig"
            )
        self.task, self.interior = task, interior
        self.schedule = task.stage.denoiser.process

    @property
    def stage(self) -> Stage:
        return self.task.stage

    @property
    def module(self) -> nn.Module:
        return self.task.module

    def players(self) -> Sequence[Player]:
        inside = self.schedule.interior()
        known = {id(parameter) for parameter in inside}
        others = [p for p in self.module.parameters() if id(p) not in known]
        return [
            Player("stage", others, self.task.loss),
            Player("interior", inside, self.interior_loss),
        ]

    def interior_loss(self, batch: Batch, generator: torch.Generator) -> Terms:
        """The interior's terms on a batch, of which its parameters alone will learn."""
        x0 = self.stage.codec.encode(batch, generator)
        cond = self.stage.conditioner(batch, generator=generator)
        return self.interior(self.stage.denoiser, x0, cond, generator)

    def samples(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        return self.task.samples(batch, generator)

    def export(
        self,
        folder: Path,
        tensors: dict[str, Tensor],
        batches: Callable[[], Iterator[Batch]],
    ) -> None:
        """Write the stage folder."""
        self.task.export(folder, tensors, batches)
