"""Solvers of the reverse SDE, and Langevin correctors.

Langevin here is x += step * score + sqrt(2 step) z (the convention of the NCSN and Score-SDE code;
the NCSN paper prints step/2 and sqrt(step)).

Shapes: b batch, ... data; t (from) and s (to): [b].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ldm.diffusion.denoiser import Denoise
from ldm.diffusion.noise import Noise
from ldm.diffusion.prediction import Denoised
from ldm.diffusion.process import Process, per_item
from ldm.diffusion.solvers import Solver, fresh


def score_of(process: Process, denoised: Denoised, t: Tensor) -> Tensor:
    """-eps/sigma: [b ...]. 2011.13456 eq. 7 with a Gaussian kernel."""
    return -denoised.eps / process.at(t, denoised.eps).sigma


@dataclass(frozen=True, kw_only=True)
class EulerMaruyama(Solver):
    """dx = (f x - g^2 score) dt + g dw, backwards. Song et al. 2021 (arXiv 2011.13456) eq. 6."""

    def step(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, s: Tensor,
        carry: Any, noise: Noise,
    ) -> tuple[Tensor, Any]:
        score = score_of(process, denoise(x, t), t)
        g_sq = process.diffusion_sq(t)
        moved = (1 + per_item((s - t) * process.drift(t), x)) * x
        moved = moved - per_item((s - t) * g_sq, x) * score
        return moved + per_item(((t - s) * g_sq).sqrt(), x) * fresh(noise, x), None


@dataclass(frozen=True, kw_only=True)
class ReverseDiffusion(Solver):
    """The forward chain's own discretisation, reversed. 2011.13456 eq. 46.

    x_s = (2 - alpha_t/alpha_s) x + beta score + sqrt(beta) z, beta the variance of q(x_t | x_s).
    """

    def step(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, s: Tensor,
        carry: Any, noise: Noise,
    ) -> tuple[Tensor, Any]:
        score = score_of(process, denoise(x, t), t)
        keep = process.alpha_sigma(t)[0] / process.alpha_sigma(s)[0]
        beta = process.conditional_variance(t, s)
        moved = per_item(2 - keep, x) * x + per_item(beta, x) * score
        return moved + per_item(beta.sqrt(), x) * fresh(noise, x), None


@dataclass(frozen=True, kw_only=True)
class Stay(Solver):
    """No predictor: the level falls and x stays. Annealed Langevin is Stay with a corrector."""

    def step(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, s: Tensor,
        carry: Any, noise: Noise,
    ) -> tuple[Tensor, Any]:
        return x, None


class StepSize(ABC):
    """The length of a Langevin step."""

    @abstractmethod
    def __call__(self, process: Process, t: Tensor, score: Tensor, z: Tensor) -> Tensor:
        """t [b], score and z [b ...] -> [b 1 ...]."""


@dataclass(frozen=True, kw_only=True)
class LadderStep(StepSize):
    """epsilon sigma^2/sigma_min^2. Song & Ermon 2019 (arXiv 1907.05600) algorithm 1."""

    epsilon: float = 2e-5

    def __call__(self, process: Process, t: Tensor, score: Tensor, z: Tensor) -> Tensor:
        last = process.alpha_sigma(t.new_tensor([process.t_min]))[1]
        return per_item(self.epsilon * (process.alpha_sigma(t)[1] / last).square(), score)


@dataclass(frozen=True, kw_only=True)
class SnrStep(StepSize):
    """2 (snr |z|/|score|)^2. Song et al. 2021 (arXiv 2011.13456) algorithms 4 and 5.

    The norms are of each item (their code averages over the batch), and their factor alpha, which
    makes the step depend on the number of steps, is left out.
    """

    snr: float = 0.16

    def __call__(self, process: Process, t: Tensor, score: Tensor, z: Tensor) -> Tensor:
        ratio = z.flatten(1).norm(dim=1) / score.flatten(1).norm(dim=1)
        return per_item(2 * (self.snr * ratio).square(), score)


@dataclass(frozen=True, kw_only=True)
class Langevin:
    """`num_steps` steps of x += step * score + sqrt(2 step) z at one level."""

    step_size: StepSize
    num_steps: int = 1

    def __call__(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, noise: Noise
    ) -> Tensor:
        for _ in range(self.num_steps):
            score = score_of(process, denoise(x, t), t)
            z = fresh(noise, x)
            step = self.step_size(process, t, score, z)
            x = x + step * score + (2 * step).sqrt() * z
        return x


@dataclass(frozen=True, kw_only=True)
class PredictorCorrector(Solver):
    """Correct at t, then predict s; at the end correct once more and return the mean of x0.

    Song et al. 2021 (arXiv 2011.13456) algorithm 1. With `Stay` it is annealed Langevin dynamics
    (1907.05600 algorithm 1) with the last denoising of NCSNv2 (2006.09011 section 3.5).
    """

    predictor: Solver = field(default_factory=ReverseDiffusion)
    corrector: Langevin = field(default_factory=lambda: Langevin(step_size=SnrStep()))

    def init(self) -> Any:
        return self.predictor.init()

    def step(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, s: Tensor,
        carry: Any, noise: Noise,
    ) -> tuple[Tensor, Any]:
        x = self.corrector(denoise, process, x, t, noise)
        return self.predictor.step(denoise, process, x, t, s, carry, noise)

    def finish(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, noise: Noise
    ) -> Tensor:
        x = self.corrector(denoise, process, x, t, noise)
        return self.predictor.finish(denoise, process, x, t, noise)
