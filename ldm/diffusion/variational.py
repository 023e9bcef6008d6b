"""Training on variational bounds: DDPM's discrete one and VDM's continuous one.

All are in bits a dimension, as sums over the chain, so that terms of one unit are added.

Shapes: b batch, ... data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ldm.diffusion.bounds import (
    Decoder,
    DiscretizedGaussian,
    SoftmaxDecoder,
    first_nats,
    prior_kl,
    step_kl,
)
from ldm.diffusion.noise import normal_like
from ldm.diffusion.objective import Drawn, Objective, Terms, mean_flat
from ldm.diffusion.prediction import Denoised
from ldm.diffusion.times import Antithetic, Discrete, Times
from ldm.diffusion.variance import LearnedRange, Variance


@dataclass(frozen=True, kw_only=True)
class Vlb(Objective):
    """num_steps times L_(t-1) (L_0 at the first step), in bits a dimension.

    Ho et al. 2020 (arXiv 2006.11239) eq. 5; its mean over t is the bound but for the prior. With
    `stop_mean` the mean is not trained, only the variance (2102.09672 section 3.1); the hybrid's
    weight for this *sum* is 0.001, whatever num_steps. VDM's discrete loss is FixedSmall().
    """

    num_steps: int = 1000
    stop_mean: bool = False
    variance: Variance = field(default_factory=LearnedRange)
    decoder: Decoder = field(default_factory=DiscretizedGaussian)
    times: Times = field(default_factory=Discrete)

    def terms(self, drawn: Drawn, generator: torch.Generator) -> Terms:
        process, t = drawn.denoiser.process, drawn.t
        x0, eps, aux = drawn.denoised
        found = Denoised(x0.detach(), eps.detach(), aux) if self.stop_mean else drawn.denoised
        step = (process.t_max - process.t_min) / (self.num_steps - 1)
        s = torch.clamp(t - step, min=process.t_min)
        first = t < process.t_min + step / 2
        # the first step has no s below it: the pair (t + step, t) keeps the other branch finite
        t_safe, s_safe = torch.where(first, t + step, t), torch.where(first, t, s)
        truth = Denoised(drawn.x0, drawn.eps)
        kl = mean_flat(step_kl(process, truth, found, t_safe, s_safe, self.variance))
        log_variance = self.variance.first(process, found, s_safe, t_safe)
        nll = mean_flat(self.decoder(drawn.x0, found.x0, log_variance))
        bits = self.num_steps * torch.where(first, nll, kl) / math.log(2)
        return {"loss": bits, "vlb": bits.detach()}


@dataclass(frozen=True, kw_only=True)
class Elbo(Objective):
    """VDM's bound in continuous time, in bits a dimension: prior, diffusion, reconstruction.

    Kingma et al. 2021 (arXiv 2107.00630) eq. 11 and 17: the diffusion term is
    -lambda'(t)/2 |eps - eps_hat|^2 over a range of t_max - t_min.
    """

    decoder: Decoder = field(default_factory=SoftmaxDecoder)
    times: Times = field(default_factory=Antithetic)

    def terms(self, drawn: Drawn, generator: torch.Generator) -> Terms:
        process, x0 = drawn.denoiser.process, drawn.x0
        bits = 1 / (math.log(2) * math.prod(x0.shape[1:]))
        prior = bits * prior_kl(process, x0)
        recon = bits * first_nats(process, x0, normal_like(x0, generator), self.decoder)
        diffusion = diffusion_bits(drawn)
        return {
            "loss": prior + diffusion + recon,
            "prior": prior.detach(),
            "diffusion": diffusion.detach(),
            "reconstruction": recon.detach(),
        }


@dataclass(frozen=True, kw_only=True)
class ElboVariance(Objective):
    """The square of VDM's diffusion term: what the interior of a learned schedule minimises.

    The bound does not depend on the interior, so the gradient of its square, 2 L grad L, is that of
    its variance (2107.00630 appendix I.2). Train `Monotone.interior()` on this and everything else
    on `Elbo`. It takes a pass of its own: the paper multiplies each item's gradient by its 2 L
    where it enters the schedule, but a backward pass of `Elbo` has summed the items by the time it
    reaches the interior's parameters. The price is a second evaluation a step, in training alone.
    """

    times: Times = field(default_factory=Antithetic)

    def terms(self, drawn: Drawn, generator: torch.Generator) -> Terms:
        square = diffusion_bits(drawn).square()
        return {"loss": square, "variance": square.detach()}


def diffusion_bits(drawn: Drawn) -> Tensor:
    """(t_max - t_min) -lambda'/2 |eps - eps_hat|^2 in bits a dimension, [b]. 2107.00630 eq. 17."""
    process = drawn.denoiser.process
    weight = -process.logsnr_slope(drawn.t) * (process.t_max - process.t_min) / (2 * math.log(2))
    return weight.to(drawn.x0.dtype) * mean_flat((drawn.eps - drawn.denoised.eps).square())
