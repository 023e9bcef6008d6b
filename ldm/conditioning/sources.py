"""Conditioners: from a batch to what the network is told, with dropout and learned nulls.

Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598, section 3.2) trains one network with
and without its conditioning. Here each source is dropped for a sample by a draw of its own, and
what stands in its place is the source's learned null. A source that the batch lacks gives the same
null, so that the unconditional case, a negative prompt and a dropped sample are one thing.

b batch; e width of the vector; n tokens; d width of a token; c h w channels and grid
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ldm.conditioning.cond import Cond
from ldm.data.batch import Batch
from ldm.errors import ConfigError


class Conditioner(nn.Module, ABC):
    """Base of all conditioners; its parameters are trained and saved with the network's."""

    @abstractmethod
    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Cond:
        """The conditioning of a batch.

        Args:
            batch: a source that is None in it gives that source's learned null.
            generator: with it, sources are dropped at random (training); None drops nothing.
        """

    def null(self, b: int) -> Cond:
        """The conditioning of b samples about which nothing is said."""
        if b < 1:
            raise ValueError(f"a batch has 1 sample or more, not {b}")
        cond: Cond = self(Batch(key=("",) * b))
        return cond

    @property
    def grid(self) -> tuple[int, int] | None:
        """The only (h, w) of x0 that this conditioner knows; None is any."""
        return None

    def measure(self, batches: Iterable[tuple[Batch, Tensor]]) -> None:
        """Take from batches and their x0 `[b c h w]` what a conditioner may want before training;
        most want nothing, and read nothing."""
        del batches


class Unconditional(Conditioner):
    """Says nothing; its Cond has no parts."""

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Cond:
        return Cond()


@dataclass(frozen=True, kw_only=True)
class UnconditionalConfig:
    """No conditioning."""

    def build(self) -> Unconditional:
        return Unconditional()


@dataclass(frozen=True, kw_only=True)
class LabelsConfig:
    """num_classes: labels are 0..num_classes-1; dim: width of the vector; drop: rate of dropout."""

    num_classes: int
    dim: int
    drop: float = 0.1

    def __post_init__(self) -> None:
        check_rate("drop", self.drop)

    def build(self) -> Labels:
        return Labels(self)


class Labels(Conditioner):
    """A learned vector for each class: `batch.label [b]` -> vector `[b dim]`."""

    def __init__(self, config: LabelsConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.num_classes, config.dim)
        self.null_vector = null_parameter(config.dim)

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Cond:
        vector = None
        if batch.label is not None:
            self._check(batch.label)
            vector = self.embedding(batch.label)
        drop = draw_drop(batch.label, self.config.drop, generator)
        return Cond(vector=or_null(vector, self.null_vector, drop, len(batch)))

    def _check(self, label: Tensor) -> None:
        low, high = int(label.min()), int(label.max())
        if low < 0 or high >= self.config.num_classes:
            raise ValueError(
                f"labels run from {low} to {high}; "
                f"the model knows 0 to {self.config.num_classes - 1}"
            )


class Concat(Conditioner):
    """Several conditioners at once: vectors are added, tokens follow each other, grids are stacked.

    Each part draws its own dropout, in the order given.
    """

    def __init__(self, parts: Sequence[Conditioner]) -> None:
        super().__init__()
        if not parts:
            raise ConfigError("Concat needs at least one part; Unconditional says nothing")
        self.parts = nn.ModuleList(parts)

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Cond:
        return merged([part(batch, generator=generator) for part in self.parts])


def merged(conds: Sequence[Cond]) -> Cond:
    """One Cond for the same batch out of several."""
    vectors = [cond.vector for cond in conds if cond.vector is not None]
    if len({vector.shape[-1] for vector in vectors}) > 1:
        raise ValueError(
            f"vectors are added, so they need one width; got {[v.shape[-1] for v in vectors]}"
        )
    grids = [cond.concat for cond in conds if cond.concat is not None]
    tokens = [cond.tokens for cond in conds if cond.tokens is not None]
    masks = [mask_of(cond.tokens, cond.mask) for cond in conds if cond.tokens is not None]
    masked = any(cond.mask is not None for cond in conds)
    return Cond(
        vector=torch.stack(vectors).sum(0) if vectors else None,
        tokens=torch.cat(tokens, 1) if tokens else None,
        mask=torch.cat(masks, 1) if masked else None,
        concat=torch.cat(grids, 1) if grids else None,
    )


def mask_of(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """The mask, or one that attends to all: `[b n]`."""
    return tokens.new_ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask


def null_parameter(*shape: int) -> nn.Parameter:
    """A learned null: small, since at the start it should say little."""
    return nn.Parameter(0.02 * torch.randn(*shape))


def draw_drop(
    source: Tensor | None, rate: float, generator: torch.Generator | None
) -> Tensor | None:
    """Which samples of a source are dropped, bool `[b]`; None where none can be."""
    if source is None or generator is None or rate == 0:
        return None
    draws = torch.rand(len(source), generator=generator, device=generator.device)
    return (draws < rate).to(source.device)


def or_null(value: Tensor | None, null: Tensor, drop: Tensor | None, b: int) -> Tensor:
    """`value [b ...]`, with `null [...]` where it is dropped or absent."""
    if value is None:
        return null.expand(b, *null.shape)
    if value.shape[1:] != null.shape:
        raise ValueError(
            f"this conditioner was built for {list(null.shape)} a sample, "
            f"the batch brings {list(value.shape[1:])}"
        )
    value = value.to(null.dtype)
    if drop is None:
        return value
    return torch.where(drop.view(-1, *[1] * null.ndim), null, value)


def check_rate(name: str, rate: float) -> None:
    """Refuse a dropout rate outside [0, 1]."""
    if not 0 <= rate <= 1:
        raise ConfigError(f"{name} is {rate}; a rate of dropout is between 0 and 1")
