"""Variables in which the probability-flow ODE is plain: z = x/scale, dz/du = rate.

dx/dt = alpha' x0 + sigma' eps is also d(x/alpha)/d(sigma/alpha) = eps and
d(x/sigma)/d(alpha/sigma) = x0. The exact solution is one; a solver's error is not.

Shapes: b batch, ... data; t, s: [b].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.diffusion.prediction import Denoised
from ldm.diffusion.process import Process, per_item
from ldm.diffusion.step import velocity


class Frame(ABC):
    """A scale for x, a clock for t, and the rate of the one by the other."""

    @abstractmethod
    def scale(self, process: Process, t: Tensor) -> Tensor:
        """t [b] -> [b] float64."""

    @abstractmethod
    def clock(self, process: Process, t: Tensor) -> Tensor:
        """t [b] -> u [b] float64."""

    @abstractmethod
    def rate(self, process: Process, denoised: Denoised, t: Tensor) -> Tensor:
        """dz/du: [b ...]."""

    def advance(self, process: Process, x: Tensor, rate: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """x_s = scale_s (x/scale_t + (u_s - u_t) rate): [b ...]."""
        before, after = self.scale(process, t), self.scale(process, s)
        du = self.clock(process, s) - self.clock(process, t)
        return per_item(after / before, x) * x + per_item(after * du, x) * rate


@dataclass(frozen=True, kw_only=True)
class TimeFrame(Frame):
    """x by t: defined wherever the slopes are finite, so on rectified flow at alpha = 0 too."""

    def scale(self, process: Process, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def clock(self, process: Process, t: Tensor) -> Tensor:
        return t

    def rate(self, process: Process, denoised: Denoised, t: Tensor) -> Tensor:
        return velocity(process, denoised, t)


@dataclass(frozen=True, kw_only=True)
class SigmaFrame(Frame):
    """x/alpha by sigma/alpha, where the rate is eps: EDM's and DDIM's. 2010.02502 eq. 14."""

    def scale(self, process: Process, t: Tensor) -> Tensor:
        return process.alpha_sigma(t)[0]

    def clock(self, process: Process, t: Tensor) -> Tensor:
        alpha, sigma = process.alpha_sigma(t)
        return sigma / alpha

    def rate(self, process: Process, denoised: Denoised, t: Tensor) -> Tensor:
        return denoised.eps


@dataclass(frozen=True, kw_only=True)
class SignalFrame(Frame):
    """x/sigma by alpha/sigma, where the rate is x0: DPM-Solver++'s. Lu et al. 2211.01095 eq. 8."""

    def scale(self, process: Process, t: Tensor) -> Tensor:
        return process.alpha_sigma(t)[1]

    def clock(self, process: Process, t: Tensor) -> Tensor:
        alpha, sigma = process.alpha_sigma(t)
        return alpha / sigma

    def rate(self, process: Process, denoised: Denoised, t: Tensor) -> Tensor:
        return denoised.x0
