"""Progressive lossy coding: what a receiver pays for x_t, and how well it knows x0 from it.

Ho et al. 2020 (arXiv 2006.11239) section 4.3: the chain is a code in which x_T is sent first, and
then each step at the price of its KL.

Shapes: b batch, ... data; times [n] float64, decreasing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ldm.diffusion.bounds import prior_kl, step_kl, sum_flat
from ldm.diffusion.denoiser import Denoise
from ldm.diffusion.noise import Noise
from ldm.diffusion.prediction import Denoised
from ldm.diffusion.process import Process
from ldm.diffusion.variance import Variance


class Progress(NamedTuple):
    """A code, moment by moment, for each item; what is left after the last is L_0."""

    rate: Tensor  # [n b] nats sent by the time that x_t is known, t = times[i]
    distortion: Tensor  # [n b] mean squared error of x0 as guessed from x_t


@torch.no_grad()
def progressive(
    denoise: Denoise, process: Process, x0: Tensor, times: Tensor, noise: Noise,
    *, variance: Variance,
) -> Progress:
    """Rate and distortion of x0 [b ...] along a chain. 2006.11239 eq. 5 and 15, figure 5."""
    grid = times.to(x0.device).unsqueeze(1).repeat(1, len(x0))
    paid = [prior_kl(process, x0)]
    wrong = []
    for index, t in enumerate(grid):
        eps = noise.normal(x0.shape[1:], x0.dtype)
        found = denoise(process.perturb(x0, t, eps), t)
        wrong.append((found.x0 - x0).square().flatten(1).mean(1))
        if index + 1 < len(grid):
            kl = step_kl(process, Denoised(x0, eps), found, t, grid[index + 1], variance)
            paid.append(paid[-1] + sum_flat(kl))
    return Progress(torch.stack(paid), torch.stack(wrong))
