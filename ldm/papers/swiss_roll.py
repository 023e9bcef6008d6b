"""The swiss roll of Sohl-Dickstein et al. 2015: its chain, its exact density, its bound in bits.

n points; T steps
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ldm.conditioning.cond import Cond
from ldm.data.toys import SwissRoll
from ldm.diffusion import (
    Ancestral,
    Denoiser,
    GaussianDecoder,
    LearnedLogit,
    LinspaceGrid,
    Noise,
    start,
    trajectory,
)
from ldm.diffusion.bounds import prior_kl, step_kl, sum_flat
from ldm.diffusion.ends import FixedFirst
from ldm.diffusion.prediction import Denoised
from ldm.papers.clouds import sheet

STEPS = 40
VARIANCE = FixedFirst(later=LearnedLogit(num_steps=STEPS))
GRID = LinspaceGrid(num_steps=STEPS)
GAUSSIAN_BITS = math.log2(2 * math.pi * math.e)
"""Entropy of two independent coordinates of unit variance: the isotropic Gaussian's bits."""


@torch.no_grad()
def bits_by_step(denoiser: Denoiser, x0: Tensor, noise: Noise) -> Tensor:
    """Bits a point of the prior, of each step, and of the first step: x0 [n 2] -> [T + 1, n].

    1503.03585 eq. 14, in its order of generation: the sum bounds -log p(x0).
    """
    process, denoise = denoiser.process, denoiser.bind(Cond())
    times = GRID(process, STEPS).unsqueeze(1).repeat(1, len(x0))
    nats = [prior_kl(process, x0)]
    for t, s in pairwise(times):
        eps = noise.normal((2,))
        found = denoise(process.perturb(x0, t, eps), t)
        kl = step_kl(process, Denoised(x0, eps), found, t, s, VARIANCE)
        nats.append(sum_flat(kl))
    first = process.perturb(x0, times[-1], noise.normal((2,)))
    found = denoise(first, times[-1])
    width = VARIANCE.first(process, found, times[-1], times[-2])
    nats.append(sum_flat(GaussianDecoder()(x0, found.x0, width)))
    return torch.stack(nats) / math.log(2)


@torch.no_grad()
def walk(denoiser: Denoiser, n: int) -> list[Tensor]:
    """x_T and every x on the way to the sample, [n 2] each."""
    noise, process = Noise(range(n)), denoiser.process
    times = GRID(process, STEPS)
    x = start(process, times, noise, (2,))
    solver = Ancestral(variance=VARIANCE)
    moments = trajectory(denoiser.bind(Cond()), process, solver, times, x, noise)
    return [x, *(moment.x for moment in moments)]


@dataclass(frozen=True)
class RollDensity:
    """The density of `SwissRoll` with this noise, its angle summed over an even grid."""

    noise: float = SwissRoll.noise
    angles: int = 4000

    def spine(self) -> tuple[Tensor, Tensor]:
        """The noiseless spiral as standardised points [angles 2], and its scale [] before."""
        share = (torch.arange(self.angles, dtype=torch.float64) + 0.5) / self.angles
        angle = 1.5 * math.pi * (1 + 2 * share)
        raw = torch.stack([angle * angle.cos(), angle * angle.sin()], dim=1)
        centred = raw - raw.mean(0)
        scale = (centred.square().mean() + self.noise**2).sqrt()
        return centred / scale, scale

    def log_prob(self, x: Tensor) -> Tensor:
        """log p in nats: x [n 2] -> [n]."""
        spine, scale = self.spine()
        variance = (self.noise / scale).square()
        size = torch.cdist(x.double(), spine).square() / (2 * variance)
        return (-size).logsumexp(1) - math.log(self.angles) - torch.log(2 * math.pi * variance)

    def second_given_first(self, first: float, n: int, generator: torch.Generator) -> Tensor:
        """n draws of the second coordinate given the first: [n]."""
        spine, scale = self.spine()
        std = self.noise / scale
        weight = (-((spine[:, 0] - first) / std).square() / 2).softmax(0)
        row = torch.multinomial(weight, n, replacement=True, generator=generator)
        fresh = torch.randn(n, generator=generator, dtype=torch.float64)
        return spine[row, 1] + std * fresh


def chains(denoiser: Denoiser, data: Tensor, n: int) -> Any:
    """The forward chain of data above, the reverse chain from noise below, at the same times."""
    seen, back = (STEPS, 30, 20, 10, 4, 0), walk(denoiser, n)
    noise = Noise(range(len(data)))
    ahead = []
    for k in seen:
        t = torch.full((len(data),), max(k, 1) / STEPS, dtype=torch.float64)
        noised = denoiser.process.perturb(data, t, noise.normal((2,))).detach()
        ahead.append((f"t = {k}", noised if k else data))
    behind = [(f"t = {k}", back[STEPS - k]) for k in seen]
    return sheet([("forward", ahead), ("reverse", behind)], limit=2.5)
