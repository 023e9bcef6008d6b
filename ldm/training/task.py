"""What the one training loop asks of whatever it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ldm.data.batch import Batch

Terms = dict[str, Tensor]
"""Named loss terms, each [b] or scalar; the mean of "loss" is minimised, the others are logged."""


class Player(NamedTuple):
    """One set of parameters with the loss that moves it; a GAN has two, all else one.

    `start` is the number of images after which the player begins to learn.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    loss: Callable[[Batch, torch.Generator], Terms]
    start: int = 0


class Moves(Protocol):
    """What the loop needs of a player; `Player` is one, a package of its own may bring another."""

    @property
    def name(self) -> str: ...
    @property
    def parameters(self) -> Sequence[nn.Parameter]: ...
    @property
    def loss(self) -> Callable[[Batch, torch.Generator], Terms]: ...
    @property
    def start(self) -> int: ...


class Task(Protocol):
    """A trainable: its module (all that is saved), its players, and how to show it."""

    @property
    def module(self) -> nn.Module: ...

    def players(self) -> Sequence[Moves]: ...

    def export(
        self, folder: Path, tensors: dict[str, Tensor], batches: Callable[[], Iterator[Batch]]
    ) -> None:
        """Write what was trained as a part of a model folder; `tensors` are the averaged weights,
        `batches` one pass over the training data."""

    def samples(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        """Pictures to look at, uint8 [n 3 h w], or None."""
