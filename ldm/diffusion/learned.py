"""Processes with learned parameters: gamma(t) = -log SNR, variance preserving.

Kingma et al. 2021 (arXiv 2107.00630) section 4.1 and appendix H. They are nn.Modules built from
their configurations; the denoiser makes them its submodules.

Shapes: b batch, h hidden units.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ldm.diffusion.process import Process, logsnr_to_level


class LearnedConfig(ABC):
    """Settings of a process with parameters: they stand where a process stands in a recipe."""

    @abstractmethod
    def build(self) -> Process:
        """The process, an nn.Module with fresh parameters."""


@dataclass(frozen=True, kw_only=True)
class LearnedLinearConfig(LearnedConfig):
    """gamma linear between two learned ends."""

    gamma_min: float = -13.3
    gamma_max: float = 5.0

    def build(self) -> LearnedLinear:
        return LearnedLinear(self)


@dataclass(frozen=True, kw_only=True)
class MonotoneConfig(LearnedConfig):
    """gamma a monotone network of `hidden` units between two learned ends."""

    gamma_min: float = -13.3
    gamma_max: float = 5.0
    hidden: int = 1024

    def build(self) -> Monotone:
        return Monotone(self)


class LearnedLinear(nn.Module, Process):
    """Two numbers: gamma(t) = gamma_min + |range| t. 2107.00630 appendix H."""

    t_min = 0.0
    t_max = 1.0

    def __init__(self, config: LearnedLinearConfig) -> None:
        super().__init__()
        self.config = config
        self.gamma_min = nn.Parameter(torch.tensor(config.gamma_min, dtype=torch.float64))
        self.gamma_range = nn.Parameter(
            torch.tensor(config.gamma_max - config.gamma_min, dtype=torch.float64)
        )

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return logsnr_to_level(-(self.gamma_min.double() + self.gamma_range.double().abs() * t))


class Monotone(nn.Module, Process):
    """l1(t) + l3(sigmoid(l2(l1(t)))), weights positive, then fitted to two learned ends.

    2107.00630 appendix H. The ends follow the variational bound; the interior does not change it
    and may follow its variance instead (`ElboVariance`).
    """

    t_min = 0.0
    t_max = 1.0

    def __init__(self, config: MonotoneConfig) -> None:
        super().__init__()
        self.config = config
        self.gamma_min = nn.Parameter(torch.tensor(config.gamma_min, dtype=torch.float64))
        self.gamma_range = nn.Parameter(
            torch.tensor(config.gamma_max - config.gamma_min, dtype=torch.float64)
        )
        hidden = (config.hidden,)
        self.line = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.inner = nn.Parameter(torch.randn(hidden, dtype=torch.float64))
        self.shift = nn.Parameter(torch.randn(hidden, dtype=torch.float64))
        self.outer = nn.Parameter(torch.randn(hidden, dtype=torch.float64))

    def ends(self) -> list[nn.Parameter]:
        """The parameters that the bound trains."""
        return [self.gamma_min, self.gamma_range]

    def interior(self) -> list[nn.Parameter]:
        """The parameters that the variance of the bound trains."""
        return [self.line, self.inner, self.shift, self.outer]

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        start, end = self._free(t.new_tensor([self.t_min, self.t_max]))
        share = (self._free(t) - start) / (end - start)
        return logsnr_to_level(-(self.gamma_min.double() + self.gamma_range.double().abs() * share))

    def _free(self, t: Tensor) -> Tensor:
        """The network before its ends are fitted: [b] -> [b]."""
        line = self.line.double().abs() * t
        inner, outer = self.inner.double().abs(), self.outer.double().abs()
        units = torch.sigmoid(line[:, None] * inner + self.shift.double())  # [b h]
        return line + (units * outer).mean(1)
