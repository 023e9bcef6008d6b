"""A module that knows its own loss is a task as it stands."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from ldm.data.batch import Batch
from ldm.training.checkpoint import export_weights
from ldm.training.task import Player, Terms


class Learner(nn.Module):
    """A module with a loss: all that `LearnerTask` needs."""

    @abstractmethod
    def loss(self, batch: Batch, generator: torch.Generator) -> Terms:
        """Its terms on a batch; "loss" is minimised."""


L = TypeVar("L", bound=Learner)


class LearnerTask(Generic[L]):
    """Training of a learner, all its parameters at once; it draws no pictures."""

    def __init__(self, learner: L) -> None:
        self.learner = learner

    @property
    def module(self) -> nn.Module:
        return self.learner

    def players(self) -> Sequence[Player]:
        name = type(self.learner).__name__.lower()
        return [Player(name, list(self.learner.parameters()), self.learner.loss)]

    def samples(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        """It draws nothing."""
        return None

    def export(
        self, folder: Path, tensors: dict[str, Tensor], batches: Callable[[], Iterator[Batch]]
    ) -> None:
        """Write `model.safetensors`; the recipe beside the run says what it belongs to."""
        export_weights(folder, tensors)
