"""Variational bounds on -log p(x0): prior, diffusion and reconstruction, in nats and in bits.

Shapes: b batch, ... data; t (from) and s (to): [b]; times [n] float64, decreasing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ldm.diffusion.denoiser import Denoise
from ldm.diffusion.noise import Noise
from ldm.diffusion.prediction import Denoised
from ldm.diffusion.process import Process, per_item
from ldm.diffusion.step import transfer_mean
from ldm.diffusion.variance import Variance


def sum_flat(x: Tensor) -> Tensor:
    """The sum over all but the batch: [b ...] -> [b]."""
    return x.flatten(1).sum(1)


def gaussian_kl(mean_q: Tensor, log_q: Tensor, mean_p: Tensor, log_p: Tensor) -> Tensor:
    """KL(q||p) of Gaussians given their means and log variances, elementwise in nats: [b ...]."""
    gap = (mean_q - mean_p).square() * torch.exp(-log_p)
    return (log_p - log_q + torch.exp(log_q - log_p) - 1 + gap) / 2


def prior_kl(process: Process, x0: Tensor) -> Tensor:
    """KL(q(x_T | x0) || N(0, sigma_T^2)) in nats, [b]: the prior from which `start` draws."""
    t = torch.full((len(x0),), process.t_max, dtype=torch.float64, device=x0.device)
    alpha, sigma = process.at(t, x0)
    return sum_flat((alpha * x0 / sigma).square() / 2)


class Decoder(ABC):
    """-log p(x0) of the last stage, given a mean and a log variance."""

    @abstractmethod
    def __call__(self, x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        """All [b ...] -> nats, elementwise [b ...]."""


@dataclass(frozen=True, kw_only=True)
class GaussianDecoder(Decoder):
    """A density: for latents and other data without levels."""

    def __call__(self, x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        gap = (x0 - mean).square() * torch.exp(-log_variance)
        return (gap + log_variance + math.log(2 * math.pi)) / 2


@dataclass(frozen=True, kw_only=True)
class DiscretizedGaussian(Decoder):
    """A Gaussian integrated over the bin of each of `levels` values in [-1, 1], open at the ends.

    Ho et al. 2020 (arXiv 2006.11239) eq. 13; the logarithms are exact in the tails.
    """

    levels: int = 256

    def __call__(self, x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        half, std = 1 / (self.levels - 1), torch.exp(log_variance / 2)
        upper, lower = (x0 + half - mean) / std, (x0 - half - mean) / std
        # where the bin lies above the mean, the mirrored difference keeps its digits
        mirrored = lower > 0
        high = torch.where(mirrored, -lower, upper)
        low = torch.where(mirrored, -upper, lower)
        log_high, log_low = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
        share = -torch.expm1(log_low - log_high)
        inside = log_high + share.clamp(min=torch.finfo(share.dtype).tiny).log()
        inside = torch.where(x0 < -0.999, torch.special.log_ndtr(upper), inside)
        return -torch.where(x0 > 0.999, torch.special.log_ndtr(-lower), inside)


@dataclass(frozen=True, kw_only=True)
class SoftmaxDecoder(Decoder):
    """A choice among `levels` values in [-1, 1], in proportion to the density at each.

    Kingma et al. 2021 (arXiv 2107.00630) section 3.3 and appendix C.
    """

    levels: int = 256

    def __call__(self, x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        values = torch.linspace(-1, 1, self.levels, dtype=x0.dtype, device=x0.device)
        precision = torch.exp(-log_variance).unsqueeze(-1)
        logits = -(mean.unsqueeze(-1) - values).square() * precision / 2  # [b ... levels]
        index = ((x0 + 1) / 2 * (self.levels - 1)).round().long().unsqueeze(-1)
        return -logits.log_softmax(-1).gather(-1, index).squeeze(-1)


def step_kl(
    process: Process, truth: Denoised, found: Denoised, t: Tensor, s: Tensor, variance: Variance
) -> Tensor:
    """KL(q(x_s | x_t, x0) || p(x_s | x_t)) in nats, elementwise [b ...]. 2006.11239 eq. 5."""
    log_q = per_item(2 * process.posterior_std(t, s).log(), truth.x0)
    mean_q = transfer_mean(process, truth, t, s, eta=1.0)
    mean_p = transfer_mean(process, found, t, s, eta=1.0)
    return gaussian_kl(mean_q, log_q, mean_p, variance(process, found, t, s))


class Bound(NamedTuple):
    """-log p(x0) from above, in nats an item: three terms, [b] each."""

    prior: Tensor
    diffusion: Tensor
    reconstruction: Tensor

    @property
    def total(self) -> Tensor:
        """[b] nats."""
        return self.prior + self.diffusion + self.reconstruction


def discrete_bound(
    denoise: Denoise, process: Process, x0: Tensor, times: Tensor, noise: Noise,
    *, variance: Variance, decoder: Decoder,
) -> Bound:
    """The bound of the chain with these times: x0 [b ...], times [n >= 2] -> [b] each.

    Ho et al. 2020 (arXiv 2006.11239) eq. 5: L_T, the sum of L_(t-1), and L_0.
    """
    grid = times.to(x0.device).unsqueeze(1).repeat(1, len(x0))
    diffusion = torch.zeros(len(x0), dtype=x0.dtype, device=x0.device)
    for t, s in pairwise(grid):
        truth, found = _look(denoise, process, x0, t, noise)
        diffusion = diffusion + sum_flat(step_kl(process, truth, found, t, s, variance))
    _, found = _look(denoise, process, x0, grid[-1], noise)
    last = decoder(x0, found.x0, variance.first(process, found, grid[-1], grid[-2]))
    return Bound(prior_kl(process, x0), diffusion, sum_flat(last))


def continuous_bound(
    denoise: Denoise, process: Process, x0: Tensor, num_times: int, noise: Noise,
    *, decoder: Decoder,
) -> Bound:
    """The bound in continuous time, its integral by `num_times` midpoints: x0 [b ...] -> [b].

    Kingma et al. 2021 (arXiv 2107.00630) eq. 11, 17 and section 3.3. The decoder reads
    z_0/alpha_0, with variance 1/SNR, at t_min.
    """
    width = (process.t_max - process.t_min) / num_times
    diffusion = torch.zeros(len(x0), dtype=x0.dtype, device=x0.device)
    for index in range(num_times):
        t = torch.full((len(x0),), process.t_min + (index + 0.5) * width, device=x0.device).double()
        truth, found = _look(denoise, process, x0, t, noise)
        weight = -process.logsnr_slope(t).to(x0.dtype) / 2
        diffusion = diffusion + width * weight * sum_flat((truth.eps - found.eps).square())
    eps = noise.normal(x0.shape[1:], x0.dtype)
    return Bound(prior_kl(process, x0), diffusion, first_nats(process, x0, eps, decoder))


def first_nats(process: Process, x0: Tensor, eps: Tensor, decoder: Decoder) -> Tensor:
    """-log p(x0 | z_0) from z_0 = alpha x0 + sigma eps at t_min, by no network: [b] nats."""
    t = torch.full((len(x0),), process.t_min, dtype=torch.float64, device=x0.device)
    mean = x0 + per_item((-process.logsnr(t) / 2).exp(), x0) * eps
    return sum_flat(decoder(x0, mean, per_item(-process.logsnr(t), x0)))


def _look(
    denoise: Denoise, process: Process, x0: Tensor, t: Tensor, noise: Noise
) -> tuple[Denoised, Denoised]:
    """Noise x0 to t: what is true of it, and what the denoiser finds."""
    eps = noise.normal(x0.shape[1:], x0.dtype)
    return Denoised(x0, eps), denoise(process.perturb(x0, t, eps), t)


def bits_per_dim(nats: Tensor, num_dims: int, bin_width: float | None = None) -> Tensor:
    """Nats an item [b] -> bits a dimension [b].

    A density is turned into the bits of data with bins of `bin_width` (2/256 for bytes brought to
    [-1, 1], which adds 7); None if the nats are those of a probability already.
    """
    offset = 0.0 if bin_width is None else math.log2(1 / bin_width)
    return nats / (num_dims * math.log(2)) + offset


class LatentBound(NamedTuple):
    """-log p(x) of a latent model from above, in nats an item: [b] each."""

    reconstruction: Tensor  # -log p(x | z), z drawn from the encoder
    negative_entropy: Tensor  # log q(z | x)
    latent: Tensor  # -log p(z), in the units of z

    @property
    def total(self) -> Tensor:
        """[b] nats; divide by the dimensions of x with `bits_per_dim`."""
        return self.reconstruction + self.negative_entropy + self.latent


def latent_bound(
    x_given_z: Tensor, z_given_x: Tensor, latent_nats: Tensor, log_scale: float
) -> LatentBound:
    """A whole latent model, autoencoder and diffusion. Vahdat et al. 2021 (2106.05931) eq. 1.

    x_given_z = -log p(x | z) and z_given_x = log q(z | x), [b] nats, from the autoencoder;
    latent_nats = -log p of the *normalised* latent the diffusion models, [b]; `log_scale` is the
    sum over latent dimensions of log std of the codec, which turns one density into the other.
    """
    return LatentBound(x_given_z, z_given_x, latent_nats + log_scale)
