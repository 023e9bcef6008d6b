"""Solvers: one step from t to s, for any process and any network.

A solver sees a function (x [b ...], t [b]) -> Denoised, so it cannot ask what the network
predicts. t and s are [b] float64; `carry` is what one step tells the next.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ldm.diffusion.denoiser import Denoise
from ldm.diffusion.frame import Frame, TimeFrame
from ldm.diffusion.noise import Noise
from ldm.diffusion.prediction import Denoised, given_x0
from ldm.diffusion.process import Process, per_item
from ldm.diffusion.step import renoise, transfer, transfer_mean
from ldm.diffusion.variance import FixedSmall, Variance


class Solver(ABC):
    """A rule for one step."""

    def init(self) -> Any:
        """What the first step is told."""
        return None

    @abstractmethod
    def step(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, s: Tensor,
        carry: Any, noise: Noise,
    ) -> tuple[Tensor, Any]:
        """x [b ...] at t [b] -> x at s [b], and what the next step is told."""

    def finish(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, noise: Noise
    ) -> Tensor:
        """The last evaluation, at the end of the grid: the mean of x0, with no noise: [b ...]."""
        return denoise(x, t).x0


def fresh(noise: Noise, x: Tensor) -> Tensor:
    """Standard normal beside x [b ...], row i from seed i."""
    return noise.normal(x.shape[1:], x.dtype)


@dataclass(frozen=True, kw_only=True)
class Ddim(Solver):
    """The step of Song et al. 2020 (arXiv 2010.02502) eq. 12; eta = 0 is deterministic.

    eta = 0 is also Euler's method for EDM and for rectified flow, and DPM-Solver++(1); eta = 1 is
    DDPM with the small variance and Euler-ancestral. The paper's sigma-hat is
    `Ancestral(variance=FixedLarge())`.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta={self.eta} was given; it lies between 0 and 1.")

    def step(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, s: Tensor,
        carry: Any, noise: Noise,
    ) -> tuple[Tensor, Any]:
        return stochastic_transfer(process, denoise(x, t), t, s, self.eta, noise), None


def stochastic_transfer(
    process: Process, denoised: Denoised, t: Tensor, s: Tensor, eta: float, noise: Noise
) -> Tensor:
    """`transfer`, drawing noise only where some is added: [b ...]."""
    if eta == 0:
        return transfer_mean(process, denoised, t, s)
    return transfer(process, denoised, t, s, eta, fresh(noise, denoised.x0))


@dataclass(frozen=True, kw_only=True)
class Ancestral(Solver):
    """A draw from the reverse chain: the posterior mean and a variance. 2006.11239 algorithm 2."""

    variance: Variance = field(default_factory=FixedSmall)

    def step(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, s: Tensor,
        carry: Any, noise: Noise,
    ) -> tuple[Tensor, Any]:
        denoised = denoise(x, t)
        std = (self.variance(process, denoised, t, s) / 2).exp()
        return transfer_mean(process, denoised, t, s, eta=1.0) + std * fresh(noise, x), None


@dataclass(frozen=True, kw_only=True)
class Euler(Solver):
    """Euler's method for the probability-flow ODE, in a frame of choice."""

    frame: Frame = field(default_factory=TimeFrame)

    def step(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, s: Tensor,
        carry: Any, noise: Noise,
    ) -> tuple[Tensor, Any]:
        rate = self.frame.rate(process, denoise(x, t), t)
        return self.frame.advance(process, x, rate, t, s), None


@dataclass(frozen=True, kw_only=True)
class Heun(Solver):
    """Heun's method with churn. Karras et al. 2022 (arXiv 2206.00364) algorithm 2.

    `churn` is S_churn/N, the rise of sigma/alpha before a step; it acts for sigma/alpha within
    `churn_range` (everywhere if None) and its noise is scaled by `churn_noise`. Two evaluations
    a step. On VP, EDM's own variant and diffusers step in SigmaFrame().
    """

    frame: Frame = field(default_factory=TimeFrame)
    churn: float = 0.0
    churn_range: tuple[float, float] | None = None
    churn_noise: float = 1.0

    def step(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, s: Tensor,
        carry: Any, noise: Noise,
    ) -> tuple[Tensor, Any]:
        if self.churn > 0:
            x, t = self._churned(process, x, t, noise)
        start = self.frame.rate(process, denoise(x, t), t)
        guess = self.frame.advance(process, x, start, t, s)
        end = self.frame.rate(process, denoise(guess, s), s)
        return self.frame.advance(process, x, (start + end) / 2, t, s), None

    def _churned(
        self, process: Process, x: Tensor, t: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        ratio = (-process.logsnr(t) / 2).exp()
        low, high = self.churn_range or (0.0, math.inf)
        acts = (ratio >= low) & (ratio <= high)
        gamma = torch.where(acts, min(self.churn, 2**0.5 - 1), 0.0)
        t_hat = torch.where(acts, process.t_of_logsnr(-2 * ((1 + gamma) * ratio).log()), t)
        z = self.churn_noise * fresh(noise, x)
        return renoise(process, x, t, torch.maximum(t, t_hat), z), torch.maximum(t, t_hat)


@dataclass(frozen=True, kw_only=True)
class DpmSolverPP2M(Solver):
    """DPM-Solver++(2M): a first-order step with x0 carried forward in log-SNR.

    Lu et al. 2022 (arXiv 2211.01095) algorithm 2; eta = 1 is its SDE form, SDE-DPM-Solver++(2M)
    eq. 18. The first step is of first order.
    """

    eta: float = 0.0

    def step(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, s: Tensor,
        carry: Any, noise: Noise,
    ) -> tuple[Tensor, Any]:
        denoised = denoise(x, t)
        h = (process.logsnr(s) - process.logsnr(t)) / 2
        x0 = denoised.x0
        if carry is not None:
            x0_before, h_before = carry
            x0 = x0 + per_item(h / (2 * h_before), x) * (x0 - x0_before)
        moved = stochastic_transfer(process, given_x0(process, t, x, x0), t, s, self.eta, noise)
        return moved, (denoised.x0, h)
