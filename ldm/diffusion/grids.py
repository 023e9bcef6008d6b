"""Grids of sampling times.

(process, n) -> t [n] float64, decreasing: n times are n - 1 steps and one last evaluation, which
returns x0. All stop at t_min, before the end at which sigma is 0. Respacing is a shorter grid.
"""

from __future__ import annotations

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
        low, high = process.logsnr(torch.tensor([process.t_max, process.t_min]).double())
        return process.t_of_logsnr(high + (low - high) * _ramp(n))


@dataclass(frozen=True, kw_only=True)
class KarrasGrid(Grid):
    """Even in (sigma/alpha)^(1/rho). Karras et al. 2022 (arXiv 2206.00364) eq. 5."""

    rho: float = 7.0

    def __call__(self, process: Process, n: int) -> Tensor:
        ends = torch.tensor([process.t_max, process.t_min]).double()
        high, low = (-process.logsnr(ends) / 2).exp() ** (1 / self.rho)
        sigma = (low + (high - low) * _ramp(n)) ** self.rho
        return process.t_of_logsnr(-2 * sigma.log())


@dataclass(frozen=True, kw_only=True)
class ShiftedGrid(Grid):
    """t -> m t/(1 + (m - 1) t): more of the steps in the noise. 2403.03206 eq. 23."""

    shift: float = 3.0

    def __call__(self, process: Process, n: int) -> Tensor:
        ends = torch.tensor([process.t_max, process.t_min]).double()
        high, low = ends / (self.shift - (self.shift - 1) * ends)  # the inverse of the shift
        t = low + (high - low) * _ramp(n)
        return self.shift * t / (1 + (self.shift - 1) * t)
