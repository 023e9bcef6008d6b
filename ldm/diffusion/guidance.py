"""Guidance: functions from denoiser to denoiser, all of them in x0.

Any affine mix of two denoisers with weights that sum to one is the same in x0, eps and v, so one
form serves every network; channels that speak of variance are never mixed.

Shapes: b batch, ... data; t: [b].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from ldm.diffusion.denoiser import Denoise, Denoiser
from ldm.diffusion.noise import Noise
from ldm.diffusion.prediction import Denoised, given_x0
from ldm.diffusion.process import Process, per_item
from ldm.diffusion.solvers import Solver, fresh
from ldm.diffusion.step import transfer_mean
from ldm.diffusion.variance import FixedSmall, Variance

LogProb = Callable[[Tensor, Tensor], Tensor]  # (x_t [b ...], t [b]) -> log p(y | x_t) [b]

C = TypeVar("C")


class Joinable(Protocol):
    """A condition that can be put in one batch with another: Cond."""

    def cat(self: C, other: C) -> C: ...


def mix(weak: Denoised, strong: Denoised, scale: Tensor) -> Denoised:
    """weak + scale (strong - weak), extra channels of `strong`; scale broadcasts to [b ...]."""
    x0 = weak.x0 + scale * (strong.x0 - weak.x0)
    eps = weak.eps + scale * (strong.eps - weak.eps)
    return Denoised(x0, eps, strong.aux)


def cfg(
    denoiser: Denoiser,
    cond: Joinable,
    null: Joinable,
    scale: float,
    *,
    interval: tuple[float, float] | None = None,
    rescale: float = 0.0,
) -> Denoise:
    """Classifier-free guidance in one network call. Ho & Salimans 2022 (arXiv 2207.12598) eq. 6.

    `scale` = 1 is the conditional model. `interval` = (low, high) in sigma/alpha: outside it the
    scale is 1 and the null is not evaluated (Kynkaanniemi et al. 2024, arXiv 2404.07724 eq. 5).
    `rescale` in [0, 1] pulls the standard deviation of x0 back to that of the conditional x0
    (Lin et al. 2023, arXiv 2305.08891 eq. 15-16, in x0 instead of the network's output).
    """
    if not 0.0 <= rescale <= 1.0:
        raise ValueError(f"rescale={rescale} was given; it lies between 0 and 1.")
    both = cond.cat(null)
    low, high = interval or (0.0, math.inf)

    def denoise(x: Tensor, t: Tensor) -> Denoised:
        ratio = (-denoiser.process.logsnr(t) / 2).exp()
        acts = (ratio >= low) & (ratio <= high)
        if scale == 1.0 or not bool(acts.any()):
            return denoiser(x, t, cond)
        strong, weak = split(denoiser(torch.cat([x, x]), torch.cat([t, t]), both))
        guided = mix(weak, strong, per_item(torch.where(acts, scale, 1.0), x))
        return _rescaled(denoiser, x, t, guided, strong, rescale) if rescale else guided

    return denoise


def split(denoised: Denoised) -> tuple[Denoised, Denoised]:
    """The two halves of a doubled batch: [2b ...] -> two of [b ...]."""
    first, second = zip(*((v, v) if v is None else v.chunk(2) for v in denoised), strict=True)
    return Denoised(*first), Denoised(*second)


def _rescaled(
    denoiser: Any, x: Tensor, t: Tensor, guided: Denoised, strong: Denoised, amount: float
) -> Denoised:
    ratio = strong.x0.flatten(1).std(1) / guided.x0.flatten(1).std(1)
    factor = per_item(1 + amount * (ratio - 1), x)
    return given_x0(denoiser.process, t, x, factor * guided.x0, guided.aux)


def autoguidance(strong: Denoise, weak: Denoise, scale: float) -> Denoise:
    """weak + scale (strong - weak), the weak one a lesser model of the same data.

    Karras et al. 2024 (arXiv 2406.02507) eq. 3.
    """

    def denoise(x: Tensor, t: Tensor) -> Denoised:
        return mix(weak(x, t), strong(x, t), x.new_tensor(scale))

    return denoise


def within(
    process: Process, interval: tuple[float, float], inside: Denoise, outside: Denoise
) -> Denoise:
    """`inside` where sigma/alpha lies in [low, high], `outside` elsewhere. 2404.07724 eq. 5."""

    def denoise(x: Tensor, t: Tensor) -> Denoised:
        ratio = (-process.logsnr(t) / 2).exp()
        acts = (ratio >= interval[0]) & (ratio <= interval[1])
        if bool(acts.all()) or not bool(acts.any()):
            return inside(x, t) if bool(acts.any()) else outside(x, t)
        return mix(outside(x, t), inside(x, t), per_item(acts.double(), x))

    return denoise


def gradient_of(log_prob: LogProb, x: Tensor, t: Tensor) -> Tensor:
    """The gradient of log p(y | x_t) by x: [b ...]."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(log_prob(x, t).sum(), x)[0]


def classifier(denoise: Denoise, process: Process, log_prob: LogProb, scale: float) -> Denoise:
    """x0 += (sigma^2/alpha) scale grad log p(y | x_t), that is eps -= sigma scale grad.

    Dhariwal & Nichol 2021 (arXiv 2105.05233) algorithm 2, and the exact posterior score at scale 1
    for a classifier that knows the noise. Their algorithm 1 is `GuidedAncestral`.
    """

    def guided(x: Tensor, t: Tensor) -> Denoised:
        found = denoise(x, t)
        alpha, sigma = process.at(t, x)
        gradient = scale * gradient_of(log_prob, x, t)
        return Denoised(
            found.x0 + sigma.square() / alpha * gradient, found.eps - sigma * gradient, found.aux
        )

    return guided


def clip_guidance(
    denoise: Denoise,
    process: Process,
    image_tower: Callable[[Tensor, Tensor], Tensor],
    text: Tensor,
    scale: float,
    logit_scale: float = 100.0,
) -> Denoise:
    """`classifier` with logit_scale f(x_t, t) . g, f a noise-aware CLIP image tower.

    Nichol et al. 2021 (arXiv 2112.10741) section 2.4. image_tower: (x [b ...], t [b]) -> [b e];
    text [b e]; both are brought to unit norm.
    """
    words = torch.nn.functional.normalize(text, dim=-1)

    def log_prob(x: Tensor, t: Tensor) -> Tensor:
        picture = torch.nn.functional.normalize(image_tower(x, t), dim=-1)
        return logit_scale * (picture * words).sum(-1)

    return classifier(denoise, process, log_prob, scale)


def clip_x0(denoise: Denoise, process: Process, low: float = -1.0, high: float = 1.0) -> Denoise:
    """x0 held in [low, high], eps following. Pixels only: latents have no range.

    Ho et al. 2020 (arXiv 2006.11239), their code.
    """

    def clipped(x: Tensor, t: Tensor) -> Denoised:
        found = denoise(x, t)
        return given_x0(process, t, x, found.x0.clamp(low, high), found.aux)

    return clipped


def dynamic_threshold(denoise: Denoise, process: Process, quantile: float = 0.995) -> Denoise:
    """x0 clipped at s = max(1, quantile of |x0|) and divided by s. Pixels only.

    Saharia et al. 2022 (arXiv 2205.11487) section 2.3.
    """
    if not 0.0 < quantile <= 1.0:
        raise ValueError(f"quantile={quantile} was given; it lies above 0 and up to 1.")

    def thresholded(x: Tensor, t: Tensor) -> Denoised:
        found = denoise(x, t)
        size = found.x0.abs().flatten(1).quantile(quantile, dim=1).clamp(min=1.0)
        s = per_item(size, x)
        return given_x0(process, t, x, found.x0.clamp(-s, s) / s, found.aux)

    return thresholded


@dataclass(frozen=True, kw_only=True)
class GuidedAncestral(Solver):
    """Ancestral sampling with its mean moved by scale * variance * grad log p(y | x_t).

    2105.05233 algorithm 1. With the variance beta it is `classifier` times sqrt(1 - beta).
    """

    log_prob: LogProb
    scale: float = 1.0
    variance: Variance = field(default_factory=FixedSmall)

    def step(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, s: Tensor,
        carry: Any, noise: Noise,
    ) -> tuple[Tensor, Any]:
        found = denoise(x, t)
        log_variance = self.variance(process, found, t, s)
        mean = transfer_mean(process, found, t, s, eta=1.0)
        mean = mean + self.scale * log_variance.exp() * gradient_of(self.log_prob, x, t)
        return mean + (log_variance / 2).exp() * fresh(noise, x), None
