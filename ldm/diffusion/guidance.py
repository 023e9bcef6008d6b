"""Guidance: functions from denoiser to denoiser, all of them in x0.

Any affine mix of two denoisers with weights that sum to one is the same in x0, eps and v, so one
form serves every network; channels that speak of variance are never mixed.

Shapes: b batch, ... data; t: [b].
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from ldm.diffusion.denoiser import Denoise, Denoiser
from ldm.diffusion.prediction import Denoised, given_x0
from ldm.diffusion.process import per_item

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
    low, high = interval or (0.0, float("inf"))

    def denoise(x: Tensor, t: Tensor) -> Denoised:
        ratio = (-denoiser.process.logsnr(t) / 2).exp()
        acts = (ratio >= low) & (ratio <= high)
        if scale == 1.0 or not acts.any():
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
