"""The kernels that move x from one time to another. Tensors in, tensors out.

Shapes: b batch, ... data; t (from) and s (to): [b].
"""

from __future__ import annotations

from torch import Tensor

from ldm.diffusion.prediction import Denoised
from ldm.diffusion.process import Process, per_item


def transfer_mean(
    process: Process, denoised: Denoised, t: Tensor, s: Tensor, eta: float = 0.0
) -> Tensor:
    """alpha_s x0 + sqrt(sigma_s^2 - eta^2 tau^2) eps: [b ...].

    Song et al. 2020 (arXiv 2010.02502) eq. 12. eta = 0 is the deterministic step of DDIM, eta = 1
    the posterior mean of DDPM.
    """
    alpha, sigma = process.alpha_sigma(s.double())
    tau = process.posterior_std(t, s)
    direction = (sigma.square() - (eta * tau).square()).clamp(min=0).sqrt()
    x0, eps, _ = denoised
    return per_item(alpha, x0) * x0 + per_item(direction, x0) * eps


def transfer(
    process: Process, denoised: Denoised, t: Tensor, s: Tensor, eta: float, z: Tensor
) -> Tensor:
    """x_s = transfer_mean + eta tau z, z [b ...] standard normal: [b ...]."""
    tau = process.posterior_std(t, s)
    return transfer_mean(process, denoised, t, s, eta) + per_item(eta * tau, z) * z


def velocity(process: Process, denoised: Denoised, t: Tensor) -> Tensor:
    """Probability-flow dx/dt = alpha' x0 + sigma' eps: [b ...]. 2011.13456 eq. 13."""
    alpha, sigma = process.slope(t, denoised.x0)
    return alpha * denoised.x0 + sigma * denoised.eps


def renoise(process: Process, x: Tensor, s: Tensor, t: Tensor, z: Tensor) -> Tensor:
    """Forward again, from s to the noisier t: a draw of q(x_t | x_s), z [b ...]: [b ...].

    2107.00630 eq. 2-3; EDM's churn (2206.00364 algorithm 2) and RePaint's step back.
    """
    ratio = process.alpha_sigma(t.double())[0] / process.alpha_sigma(s.double())[0]
    std = process.conditional_variance(t, s).sqrt()
    return per_item(ratio, x) * x + per_item(std, x) * z
