"""VDM's bound with T steps instead of infinitely many.

Shapes: b batch, ... data.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from ldm.diffusion.bounds import Bound, Decoder, first_nats, prior_kl, step_kl, sum_flat
from ldm.diffusion.denoiser import Denoise
from ldm.diffusion.grids import UniformGrid
from ldm.diffusion.noise import Noise
from ldm.diffusion.prediction import Denoised
from ldm.diffusion.process import Process
from ldm.diffusion.variance import FixedSmall


@torch.no_grad()
def finite_bound(
    denoise: Denoise, process: Process, x0: Tensor, num_steps: int, noise: Noise,
    *, decoder: Decoder,
) -> Bound:
    """T steps between T + 1 even times, and z_0 read by no network: x0 [b ...] -> [b] each.

    Kingma et al. 2021 (arXiv 2107.00630) eq. 11 and 13. `continuous_bound` is its limit;
    `discrete_bound` is DDPM's, whose last step is the network's.
    """
    times = UniformGrid()(process, num_steps + 1).to(x0.device).unsqueeze(1).repeat(1, len(x0))
    diffusion = torch.zeros(len(x0), dtype=x0.dtype, device=x0.device)
    for t, s in pairwise(times):
        eps = noise.normal(x0.shape[1:], x0.dtype)
        found = denoise(process.perturb(x0, t, eps), t)
        kl = step_kl(process, Denoised(x0, eps), found, t, s, FixedSmall())
        diffusion = diffusion + sum_flat(kl)
    eps = noise.normal(x0.shape[1:], x0.dtype)
    return Bound(prior_kl(process, x0), diffusion, first_nats(process, x0, eps, decoder))
