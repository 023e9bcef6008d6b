"""The terms of a latent model's bits: what each noise level costs, the ends, bytes, a baseline.

b pictures; d latent dimensions; k noise levels; m training latents; ... [c h w] or [d]
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ldm.diffusion.bounds import GaussianDecoder, prior_kl, sum_flat
from ldm.diffusion.denoiser import Denoise
from ldm.diffusion.noise import Noise
from ldm.diffusion.process import Process

SHRINKAGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


class Bound(NamedTuple):
    """-log p(z) of latents from above, in nats, and what each noise level brings to it.

    prior, first: [b]; levels: [b k], its sum the diffusion term; error: [b k], mean squared error
    of the denoised latent; logsnr: [k], falling.
    """

    prior: Tensor
    first: Tensor
    levels: Tensor
    error: Tensor
    logsnr: Tensor

    @property
    def diffusion(self) -> Tensor:
        """[b] nats."""
        return self.levels.sum(1)

    @property
    def total(self) -> Tensor:
        """[b] nats."""
        return self.prior + self.diffusion + self.first

    @property
    def rate(self) -> Tensor:
        """Nats [b k] that are spent when a level has been reached, coming from the noise."""
        return self.prior[:, None] + self.levels.flip(1).cumsum(1).flip(1)

    def packed(self) -> Tensor:
        """All of it in one tensor [b + 1, 2 k + 2] on the CPU, for a file."""
        ends = torch.stack([self.prior, self.first], 1)
        body = torch.cat([ends, self.levels, self.error], 1).double().cpu()
        head = torch.cat([torch.zeros(2), self.logsnr, self.logsnr]).double()
        return torch.cat([head[None], body])

    @classmethod
    def unpacked(cls, packed: Tensor) -> Bound:
        """What `packed` packed."""
        k = packed.shape[1] // 2 - 1
        (prior, first), (levels, error) = packed[1:, :2].T, packed[1:, 2:].split(k, dim=1)
        return cls(prior, first, levels, error, packed[0, 2 : 2 + k])


@dataclass(frozen=True)
class FirstStep:
    """p(z | z_t) at the least noise: mean by the denoiser, one variance for all dimensions.

    logsnr: where it stands; variance: mean squared error of the denoiser there.
    """

    logsnr: float
    variance: float

    @classmethod
    def fitted(
        cls, denoise: Denoise, process: Process, z: Tensor, logsnr: float, noise: Noise
    ) -> FirstStep:
        """The variance that is most likely for latents z [b ...] of training pictures."""
        found, _ = looked(denoise, process, z, logsnr, noise)
        return cls(logsnr, (found - z).square().mean().item())

    def __call__(self, denoise: Denoise, process: Process, z: Tensor, noise: Noise) -> Tensor:
        """-log p(z | z_t) of z [b ...]: [b] nats."""
        found, _ = looked(denoise, process, z, self.logsnr, noise)
        log_variance = torch.full_like(z, math.log(self.variance))
        return sum_flat(GaussianDecoder()(z, found, log_variance))


def latent_bits_bound(
    denoise: Denoise,
    process: Process,
    z: Tensor,
    noise: Noise,
    *,
    num_levels: int,
    first: FirstStep,
) -> Bound:
    """The bound in continuous time from the first step's level to the noise: z [b ...].

    Kingma et al. 2021 (arXiv 2107.00630) eq. 11 and 17, with the log-SNR as the variable: half the
    integral of |eps - eps_found|^2, by the midpoints of `num_levels` equal steps, one draw of the
    noise at each.
    """
    end = float(process.logsnr(torch.tensor([process.t_max]))[0])
    width = (first.logsnr - end) / num_levels
    logsnr = first.logsnr - width * (torch.arange(num_levels, dtype=torch.float64) + 0.5)
    levels, error = [], []
    for level in logsnr.tolist():
        found, off = looked(denoise, process, z, level, noise)
        levels.append(width / 2 * sum_flat(off.square()))
        error.append((found - z).square().flatten(1).mean(1))
    return Bound(
        prior_kl(process, z),
        first(denoise, process, z, noise),
        torch.stack(levels, 1),
        torch.stack(error, 1),
        logsnr,
    )


@torch.no_grad()
def looked(
    denoise: Denoise, process: Process, z: Tensor, logsnr: float, noise: Noise
) -> tuple[Tensor, Tensor]:
    """Noise z [b ...] to a log-SNR: what the denoiser makes of it, and how far its eps is off."""
    t = process.t_of_logsnr(torch.full((len(z),), logsnr, dtype=torch.float64, device=z.device))
    eps = noise.normal(z.shape[1:], z.dtype)
    found = denoise(process.perturb(z, t, eps), t)
    return found.x0, found.eps - eps


def held_logsnr(process: Process, spread: float) -> float:
    """The log-SNR at which the noise on the signal has this spread, within the process's range."""
    ends = process.logsnr(torch.tensor([process.t_min, process.t_max])).tolist()
    return float(min(max(-2 * math.log(spread), ends[1]), ends[0]))


@dataclass(frozen=True)
class ByteTable:
    """p(x | y) of a byte x given the byte y that the autoencoder gives back: log2 p [256 256].

    A probability of bytes, independent given y: a code that could be used.
    """

    log2: Tensor

    @classmethod
    def fitted(cls, x: Tensor, y: Tensor) -> ByteTable:
        """Counted on training pictures x and what they come back as, uint8; one more in each."""
        pairs = y.flatten().long() * 256 + x.flatten().long()
        counts = torch.bincount(pairs, minlength=256 * 256).view(256, 256).double() + 1
        return cls((counts / counts.sum(1, keepdim=True)).log2())

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """-log p of pictures x given y, uint8 [b 3 h w]: [b] nats."""
        return -sum_flat(self.log2[y.long(), x.long()]) * math.log(2)


@dataclass(frozen=True)
class GaussianFit:
    """A Gaussian of all latent dimensions: mean [d], factor of the covariance [d d], shrinkage."""

    mean: Tensor
    factor: Tensor
    shrinkage: float

    @classmethod
    def fitted(cls, z: Tensor) -> GaussianFit:
        """Of training latents [m ...]; the shrinkage is the best for the last quarter of them."""
        flat = z.flatten(1).double()
        kept = flat[: len(flat) * 3 // 4], flat[len(flat) * 3 // 4 :]
        tried = [cls._with(kept[0], s) for s in SHRINKAGES]
        best = min(tried, key=lambda fit: float(fit(kept[1]).mean()))
        return cls._with(flat, best.shrinkage)

    @classmethod
    def _with(cls, z: Tensor, shrinkage: float) -> GaussianFit:
        """(1 - s) covariance + s its diagonal."""
        covariance = torch.cov(z.T)
        diagonal = torch.diag(covariance.diagonal())
        mixed = (1 - shrinkage) * covariance + shrinkage * diagonal
        return cls(z.mean(0), torch.linalg.cholesky(mixed), shrinkage)

    def __call__(self, z: Tensor) -> Tensor:
        """-log p of latents [b ...]: [b] nats."""
        centred = z.flatten(1).double() - self.mean
        white = torch.linalg.solve_triangular(self.factor, centred.T, upper=False)
        log_det = self.factor.diagonal().log().sum()
        constant = len(self.mean) * math.log(2 * math.pi) / 2
        return white.square().sum(0) / 2 + log_det + constant
