"""Sampling from the product of a model with a second function r: posteriors and inpainting.

Sohl-Dickstein et al. 2015 (arXiv 1503.03585) section 2.5: each reverse step p(x_s | x_t) is
multiplied by r_s(x_s) and normalised (eq. 22). That is the product p(x0) r(x0) itself only where
the normalising constant does not depend on x_t (eq. 21), which a constant r_s does not grant; with
r_s(x_s) = E[r(x0) | x_s] it does. A clean value that replaces a coordinate at every step is the
factor `Known`; `inverse.Replacing` noises it first.

Shapes: b batch, ... data; s: [b].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldm.diffusion.denoiser import Denoise
from ldm.diffusion.guidance import LogProb, gradient_of
from ldm.diffusion.noise import Noise
from ldm.diffusion.process import Process, per_item
from ldm.diffusion.solvers import Solver, fresh
from ldm.diffusion.step import transfer_mean
from ldm.diffusion.variance import Variance


class Factor(ABC):
    """The second factor, r_s(x_s)."""

    @abstractmethod
    def __call__(self, mean: Tensor, variance: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """N(x; mean, variance) r_s(x), normalised: mean and variance [b ...] -> the same."""


@dataclass(frozen=True, kw_only=True)
class GaussianFactor(Factor):
    """r = N(mean, variance) for every coordinate, multiplied in closed form.

    `annealed` raises r to the power 1 - s, so that the start has none of it: the second choice of
    section 2.5.4. Without it r is the same at every step, eq. 23, the paper's own.
    """

    mean: float
    variance: float
    annealed: bool = False

    def __call__(self, mean: Tensor, variance: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        power = 1 - s if self.annealed else torch.ones_like(s)
        precision = per_item(power / self.variance, mean)
        product = 1 / (1 / variance + precision)
        return product * (mean / variance + precision * self.mean), product


@dataclass(frozen=True, kw_only=True, eq=False)
class SmoothFactor(Factor):
    """A smooth r: the mean moves by variance * grad log r. 1503.03585 appendix C, table App.1."""

    log_r: LogProb

    def __call__(self, mean: Tensor, variance: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return mean + variance * gradient_of(self.log_r, mean, s), variance


@dataclass(frozen=True, kw_only=True, eq=False)
class Known(Factor):
    """Inpainting: a delta at `value` where `mask` is True, a constant elsewhere. Figure 5.

    mask, value: [b ...] or [1 ...].
    """

    mask: Tensor
    value: Tensor

    def __call__(self, mean: Tensor, variance: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return (
            torch.where(self.mask, self.value, mean),
            torch.where(self.mask, torch.zeros_like(mean), variance),
        )


@dataclass(frozen=True, kw_only=True)
class ProductAncestral(Solver):
    """Ancestral sampling, each step multiplied by the factor. 1503.03585 eq. 22."""

    factor: Factor
    variance: Variance

    def step(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, s: Tensor,
        carry: Any, noise: Noise,
    ) -> tuple[Tensor, Any]:
        found = denoise(x, t)
        variance = self.variance(process, found, t, s).exp()
        mean, variance = self.factor(transfer_mean(process, found, t, s, eta=1.0), variance, s)
        return mean + variance.sqrt() * fresh(noise, x), None

    def finish(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, noise: Noise
    ) -> Tensor:
        found = denoise(x, t)
        sigma = process.at(t, x).sigma  # the first step's own: x_1 = alpha x0 + sigma eps
        return self.factor(found.x0, sigma.square().expand_as(x), torch.zeros_like(t))[0]


def product_start(factor: Factor, process: Process, times: Tensor, z: Tensor) -> Tensor:
    """A draw of p(x_T) r_T(x_T) from standard normal z [b ...], T = times[0]: [b ...]."""
    t = times[:1].double()
    variance = process.at(t, z).sigma.square().expand_as(z)
    mean, variance = factor(torch.zeros_like(z), variance, t)
    return mean + variance.sqrt() * z
