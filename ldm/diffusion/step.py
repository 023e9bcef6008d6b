"""The kernels that move x from one time to another. Tensors in, tensors out.

Shapes: b batch, ... data; t (from) and s (to): [b].
"""

from __future__ import annotations

import torch
from torch import Tensor

from ldm.diffusion.prediction import Denoised
from ldm.diffusion.process import Process, per_item


def posterior_std(process: Process, t: Tensor, s: Tensor) -> Tensor:
    """tau of q(x_s | x_t, x0), tau^2 = -sigma_s^2 expm1(lambda_t - lambda_s): [b] float64.

    DDPM's beta-tilde (2006.11239 eq. 7) on any process; VDM (2107.00630) eq. 25.
    """
    _, sigma = process.alpha_sigma(s.double())
    return sigma * (-torch.expm1(process.logsnr(t) - process.logsnr(s))).clamp(min=0).sqrt()


def transfer_mean(
    process: Process, denoised: Denoised, t: Tensor, s: Tensor, eta: float = 0.0
) -> Tensor:
    """alpha_s x0 + sqrt(sigma_s^2 - eta^2 tau^2) eps: [b ...].

    Song et al. 2020 (arXiv 2010.02502) eq. 12. eta = 0 is the deterministic step of DDIM, eta = 1
    the posterior mean of DDPM.
    """
    alpha, sigma = process.alpha_sigma(s.double())
    tau = posterior_std(process, t, s)
    direction = (sigma.square() - (eta * tau).square()).clamp(min=0).sqrt()
    x0, eps, _ = denoised
    return per_item(alpha, x0) * x0 + per_item(direction, x0) * eps


def transfer(
    process: Process, denoised: Denoised, t: Tensor, s: Tensor, eta: float, z: Tensor
) -> Tensor:
    """x_s = transfer_mean + eta tau z, z [b ...] standard normal: [b ...]."""
    tau = posterior_std(process, t, s)
    return transfer_mean(process, denoised, t, s, eta) + per_item(eta * tau, z) * z


def velocity(process: Process, denoised: Denoised, t: Tensor) -> Tensor:
    """Probability-flow dx/dt = alpha' x0 + sigma' eps: [b ...]. 2011.13456 eq. 13."""
    alpha, sigma = process.slope(t, denoised.x0)
    return alpha * denoised.x0 + sigma * denoised.eps


def conditional_variance(process: Process, t: Tensor, s: Tensor) -> Tensor:
    """Variance of q(x_t | x_s), s < t: sigma_t^2 - (alpha_t/alpha_s)^2 sigma_s^2, [b] float64.

    DDPM's beta of the (respaced) chain; VDM (2107.00630) eq. 3.
    """
    _, sigma = process.alpha_sigma(t.double())
    return sigma.square() * -torch.expm1(process.logsnr(t) - process.logsnr(s))


def renoise(process: Process, x: Tensor, s: Tensor, t: Tensor, z: Tensor) -> Tensor:
    """Forward again, from s to the noisier t: a draw of q(x_t | x_s), z [b ...]: [b ...].

    2107.00630 eq. 2-3; EDM's churn (2206.00364 algorithm 2) and RePaint's step back.
    """
    ratio = process.alpha_sigma(t.double())[0] / process.alpha_sigma(s.double())[0]
    std = conditional_variance(process, t, s).clamp(min=0).sqrt()
    return per_item(ratio, x) * x + per_item(std, x) * z
