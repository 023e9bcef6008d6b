"""The two ends of a chain's bound: the prior as a term to train on, a first step that is fixed.

Shapes: b batch, ... data; t: [b].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.diffusion.bounds import prior_kl
from ldm.diffusion.objective import Drawn, Objective, Terms
from ldm.diffusion.prediction import Denoised
from ldm.diffusion.process import Process, per_item
from ldm.diffusion.variance import Variance


@dataclass(frozen=True, kw_only=True)
class PriorBits(Objective):
    """KL(q(x_T | x0) || p(x_T)) in bits a dimension: the term of the bound that `Vlb` leaves out.

    Beside `Vlb` in a `Sum` it makes the whole bound, which a process with learned levels needs:
    without it, to noise less is always cheaper. It makes no use of t.
    """

    def terms(self, drawn: Drawn, generator: torch.Generator) -> Terms:
        dims = math.prod(drawn.x0.shape[1:])
        bits = prior_kl(drawn.denoiser.process, drawn.x0) / (dims * math.log(2))
        return {"loss": bits, "prior": bits.detach()}


@dataclass(frozen=True, kw_only=True)
class FixedFirst(Variance):
    """`later` for every step but the first, which has the forward step's own variance sigma_1^2.

    Sohl-Dickstein et al. 2015 (arXiv 1503.03585) appendix B.2: the edge of the chain is not
    learned, for the density of a few points grows without end as that variance falls.
    """

    later: Variance

    def __call__(self, process: Process, denoised: Denoised, t: Tensor, s: Tensor) -> Tensor:
        return self.later(process, denoised, t, s)

    def first(self, process: Process, denoised: Denoised, t1: Tensor, t2: Tensor) -> Tensor:
        sigma = process.alpha_sigma(t1.double())[1]
        return per_item(2 * sigma.log(), denoised.x0)
