"""Distributions of the training time.

Called with (process, b, generator), each gives t [b] float64 in [t_min, t_max] and the importance
weight [b] that makes the mean of weight * loss an estimate of the mean over uniform t (it is one
where the distribution itself is the method's choice).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

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
