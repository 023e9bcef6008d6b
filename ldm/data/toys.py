"""Toy distributions: points whose law is known or can be seen at a glance.

n samples; d dimensions
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.data.arrays import ArrayStream
from ldm.data.batch import Batch
from ldm.errors import DataError


@dataclass(frozen=True, kw_only=True)
class SwissRoll:
    """A spiral in the plane, scaled to unit variance (Sohl-Dickstein et al. 2015, figure 1).

    n: samples; noise: deviation across the spiral, before scaling; seed: of the draw.
    """

    n: int = 20_000
    noise: float = 0.5
    batch_size: int = 512
    seed: int = 0

    def points(self) -> Tensor:
        """The points [n 2] float32."""
        generator = torch.Generator().manual_seed(self.seed)
        angle = 1.5 * math.pi * (1 + 2 * torch.rand(self.n, generator=generator))
        spiral = torch.stack([angle * angle.cos(), angle * angle.sin()], dim=1)
        noisy = spiral + self.noise * torch.randn(self.n, 2, generator=generator)
        return standardised(noisy)

    def open(self) -> ArrayStream:
        return points_stream(self.points(), self.batch_size, self.seed)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Isotropic Gaussians: component k has weight `weights[k]`, mean `means[k]`, deviation `std`.

    A sample's label is its component.
    """

    means: tuple[tuple[float, ...], ...] = ((5.0, 5.0), (-5.0, -5.0))
    weights: tuple[float, ...] = (0.8, 0.2)
    std: float = 1.0
    n: int = 20_000
    batch_size: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.means) != len(self.weights) or abs(sum(self.weights) - 1) > 1e-6:
            raise DataError(
                f"{len(self.means)} means and weights {self.weights}: give one weight a mean, "
                "adding up to 1"
            )

    def draw(self) -> tuple[Tensor, Tensor]:
        """Points [n d] float32 and components [n] int64."""
        generator = torch.Generator().manual_seed(self.seed)
        weights = torch.tensor(self.weights)
        label = torch.multinomial(weights, self.n, replacement=True, generator=generator)
        means = torch.tensor(self.means)[label]
        return means + self.std * torch.randn(means.shape, generator=generator), label

    def open(self) -> ArrayStream:
        points, label = self.draw()
        return points_stream(points, self.batch_size, self.seed, label)


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """Binary sequences with a beat every `period`-th step, the phase drawn uniformly.

    Sohl-Dickstein et al. 2015, section 3.1 and figure 2: length 20, period 5.
    """

    n: int = 20_000
    length: int = 20
    period: int = 5
    batch_size: int = 512
    seed: int = 0

    def points(self) -> Tensor:
        """Sequences [n length] of 0.0 and 1.0."""
        generator = torch.Generator().manual_seed(self.seed)
        phase = torch.randint(self.period, (self.n, 1), generator=generator)
        return ((torch.arange(self.length) - phase) % self.period == 0).float()

    def open(self) -> ArrayStream:
        return points_stream(self.points(), self.batch_size, self.seed)


def points_stream(
    points: Tensor, batch_size: int, seed: int, label: Tensor | None = None
) -> ArrayStream:
    """A stream of points [n d] named by their number."""
    keys = tuple(f"{i:06d}" for i in range(len(points)))
    whole = Batch(key=keys, point=points, label=label)
    return ArrayStream(whole, batch_size=batch_size, seed=seed)


def standardised(points: Tensor) -> Tensor:
    """Points [n d] moved and scaled to mean 0 and mean variance 1 (one scale for all axes)."""
    centred = points - points.mean(0)
    return centred / centred.square().mean().sqrt()
