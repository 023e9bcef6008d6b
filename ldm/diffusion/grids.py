"""Grids of sampling times.

(process, n) -> t [n] float64, decreasing: n times are n - 1 steps and one last evaluation, which
returns x0. All stop at t_min, before the end at which sigma is 0. Respacing is a shorter grid.
RePaint's walk, which goes up again on its way, is `inverse.JumpingGrid`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.diffusion.process import Process


class Grid(ABC):
    """A rule for n times between the two ends of a process."""

    @abstractmethod
    def __call__(self, process: Process, n: int) -> Tensor:
        """-> t [n] float64, decreasing."""


def _ends(process: Process) -> Tensor:
    return torch.tensor([process.t_max, process.t_min], dtype=torch.float64)


def _ramp(n: int) -> Tensor:
    """1 ... 0 in n even steps (one alone is 1): [n] float64."""
    if n < 1:
        raise ValueError(f"n={n} times were asked for; a grid needs one or more.")
    return torch.linspace(1.0, 0.0, n, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class UniformGrid(Grid):
    """Even in t."""

    def __call__(self, process: Process, n: int) -> Tensor:
        return process.t_min + (process.t_max - process.t_min) * _ramp(n)


@dataclass(frozen=True, kw_only=True)
class LogSnrGrid(Grid):
    """Even in log-SNR. Lu et al. 2022 (arXiv 2206.00927) section 3.3."""

    def __call__(self, process: Process, n: int) -> Tensor:
        low, high = process.logsnr(_ends(process))
        return process.t_of_logsnr(high + (low - high) * _ramp(n))


@dataclass(frozen=True, kw_only=True)
class KarrasGrid(Grid):
    """Even in (sigma/alpha)^(1/rho). Karras et al. 2022 (arXiv 2206.00364) eq. 5."""

    rho: float = 7.0

    def __call__(self, process: Process, n: int) -> Tensor:
        high, low = (-process.logsnr(_ends(process)) / 2).exp() ** (1 / self.rho)
        sigma = (low + (high - low) * _ramp(n)) ** self.rho
        return process.t_of_logsnr(-2 * sigma.log())


@dataclass(frozen=True, kw_only=True)
class ShiftedGrid(Grid):
    """t -> m t/(1 + (m - 1) t): more of the steps in the noise. 2403.03206 eq. 23."""

    shift: float = 3.0

    def __call__(self, process: Process, n: int) -> Tensor:
        ends = _ends(process)
        high, low = ends / (self.shift - (self.shift - 1) * ends)  # the inverse of the shift
        t = low + (high - low) * _ramp(n)
        return self.shift * t / (1 + (self.shift - 1) * t)


class ChainGrid(Grid):
    """Times among the `num_steps` of an even chain; published samplers differ in the choice."""

    num_steps: int

    @abstractmethod
    def indices(self, n: int) -> Tensor:
        """Steps numbered from 0, [n] whole, increasing."""

    def __call__(self, process: Process, n: int) -> Tensor:
        if not 1 <= n <= self.num_steps:
            raise ValueError(
                f"n={n} of {self.num_steps} steps were asked for; take between 1 and all of them, "
                "or a grid that is not tied to a chain."
            )
        place = self.indices(n).double().flip(0) / (self.num_steps - 1)
        return process.t_min + (process.t_max - process.t_min) * place


@dataclass(frozen=True, kw_only=True)
class LinspaceGrid(ChainGrid):
    """Both ends and even steps between, rounded. 2102.09672 section 4 and its code."""

    num_steps: int = 1000

    def indices(self, n: int) -> Tensor:
        return torch.linspace(0, self.num_steps - 1, n, dtype=torch.float64).round()


@dataclass(frozen=True, kw_only=True)
class LeadingGrid(ChainGrid):
    """0, r, 2r, ... with r = num_steps // n, plus `offset`: the noise end is never reached.

    DDIM's code has offset 0, latent diffusion's 1 (2305.08891 table 2).
    """

    num_steps: int = 1000
    offset: int = 0

    def indices(self, n: int) -> Tensor:
        found = torch.arange(n) * (self.num_steps // n) + self.offset
        return found.clamp(max=self.num_steps - 1)


@dataclass(frozen=True, kw_only=True)
class TrailingGrid(ChainGrid):
    """The noise end, then down by num_steps / n, as zero terminal SNR needs. 2305.08891 table 2."""

    num_steps: int = 1000

    def indices(self, n: int) -> Tensor:
        down = torch.arange(n, dtype=torch.float64) * (self.num_steps / n)
        return (self.num_steps - down).round().flip(0) - 1


@dataclass(frozen=True, kw_only=True)
class QuadraticGrid(ChainGrid):
    """floor((c i)^2) up to `reach` of the chain. Song et al. 2020 (2010.02502) appendix D.2."""

    num_steps: int = 1000
    reach: float = 0.8

    def indices(self, n: int) -> Tensor:
        root = math.sqrt(self.reach * self.num_steps)
        return torch.linspace(0, root, n, dtype=torch.float64).square().floor()
