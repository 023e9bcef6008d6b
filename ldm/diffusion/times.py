"""Distributions of the training time.

Called with (process, b, generator), each gives t [b] float64 in [t_min, t_max] and the importance
weight [b] that makes the mean of weight * loss an estimate of the mean over uniform t (it is one
where the distribution itself is the method's choice).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ldm.diffusion.process import Process


class Times(ABC):
    """A distribution of t over the range of a process."""

    @abstractmethod
    def __call__(
        self, process: Process, b: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw t [b] and weight [b], float64, on the generator's device."""

    def update(self, t: Tensor, loss: Tensor) -> None:  # noqa: B027
        """Hear the losses [b] found at t [b]; most distributions do not listen."""


def _uniform(b: int, generator: torch.Generator) -> Tensor:
    return torch.rand(b, generator=generator, dtype=torch.float64, device=generator.device)


def _spread(process: Process, u: Tensor) -> Tensor:
    return process.t_min + (process.t_max - process.t_min) * u


@dataclass(frozen=True, kw_only=True)
class Uniform(Times):
    """Independent uniform times."""

    def __call__(
        self, process: Process, b: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        u = _uniform(b, generator)
        return _spread(process, u), torch.ones_like(u)


@dataclass(frozen=True, kw_only=True)
class Antithetic(Times):
    """One uniform draw, spread evenly over the batch: t_i = (u + i/b) mod 1.

    Kingma et al. 2021 (arXiv 2107.00630) appendix I.1.
    """

    def __call__(
        self, process: Process, b: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        u = _uniform(1, generator)
        offsets = torch.arange(b, dtype=torch.float64, device=u.device) / b
        u = (u + offsets) % 1.0
        return _spread(process, u), torch.ones_like(u)


@dataclass(frozen=True, kw_only=True)
class Discrete(Times):
    """Uniform over num_steps even times from t_min to t_max: the chain of DDPM, NCSN's levels."""

    num_steps: int = 1000

    def __call__(
        self, process: Process, b: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        index = (_uniform(b, generator) * self.num_steps).floor()
        t = _spread(process, index / max(self.num_steps - 1, 1))
        return t, torch.ones_like(t)


@dataclass(frozen=True, kw_only=True)
class LogitNormal(Times):
    """sigmoid(mean + std z), stretched over the range.

    Esser et al. 2024 (arXiv 2403.03206) eq. 19.
    """

    mean: float = 0.0
    std: float = 1.0

    def __call__(
        self, process: Process, b: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        z = torch.randn(b, generator=generator, dtype=torch.float64, device=generator.device)
        t = _spread(process, torch.sigmoid(self.mean + self.std * z))
        return t, torch.ones_like(t)


@dataclass(frozen=True, kw_only=True)
class LogNormalSigma(Times):
    """log(sigma/alpha) ~ N(mean, std^2). Karras et al. 2022 (arXiv 2206.00364) table 1."""

    mean: float = -1.2
    std: float = 1.2

    def __call__(
        self, process: Process, b: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        z = torch.randn(b, generator=generator, dtype=torch.float64, device=generator.device)
        t = process.t_of_logsnr(-2 * (self.mean + self.std * z))
        return t, torch.ones_like(t)


class LossSecondMoment(nn.Module, Times):
    """Steps of an even chain, drawn in proportion to the root mean square of their last losses.

    Nichol & Dhariwal 2021 (arXiv 2102.09672) eq. 18: `history` losses a step, uniform until every
    step has them, mixed with `uniform` of the uniform distribution, weight 1/(N p). An nn.Module,
    so that its history is checkpointed; under several processes each keeps its own.
    """

    losses: Tensor  # [n history]
    counts: Tensor  # [n]

    def __init__(self, *, num_steps: int, history: int = 10, uniform: float = 0.001) -> None:
        super().__init__()
        self.num_steps, self.history, self.uniform = num_steps, history, uniform
        self.register_buffer("losses", torch.zeros(num_steps, history, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(num_steps, dtype=torch.long))
        self._ends = (0.0, 1.0)

    def probabilities(self) -> Tensor:
        """p of each step, [n] float64."""
        even = torch.full_like(self.losses[:, 0], 1 / self.num_steps)
        if int(self.counts.min()) < self.history:
            return even
        root = self.losses.square().mean(1).sqrt()
        return (1 - self.uniform) * root / root.sum() + self.uniform * even

    def forward(
        self, process: Process, b: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        p = self.probabilities().to(generator.device)
        index = torch.multinomial(p, b, replacement=True, generator=generator)
        self._ends = process.t_min, process.t_max
        t = _spread(process, index.double() / (self.num_steps - 1))
        return t, 1 / (self.num_steps * p[index])

    def __call__(
        self, process: Process, b: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return self.forward(process, b, generator)

    @torch.no_grad()
    def update(self, t: Tensor, loss: Tensor) -> None:
        low, high = self._ends
        indices = ((t - low) / (high - low) * (self.num_steps - 1)).round().long()
        for index, value in zip(indices.tolist(), loss.tolist(), strict=True):
            self.losses[index, int(self.counts[index]) % self.history] = value
            self.counts[index] += 1
