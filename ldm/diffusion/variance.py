"""The variance of a reverse step p(x_s | x_t): fixed, or read from the network's extra channels.

Shapes: b batch, ... data; t (from) and s (to): [b].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.diffusion.prediction import Denoised
from ldm.diffusion.process import Process, per_item


class Variance(ABC):
    """The variance of an ancestral step."""

    @abstractmethod
    def __call__(self, process: Process, denoised: Denoised, t: Tensor, s: Tensor) -> Tensor:
        """-> log of the variance, [b 1 ...] or [b ...]."""

    def first(self, process: Process, denoised: Denoised, t1: Tensor, t2: Tensor) -> Tensor:
        """log variance of p(x0 | x_t1), t1 the first time: that of the step after it, t2 -> t1.

        The posterior of the first step has no variance of its own; 2102.09672 section 3.1.
        """
        return self(process, denoised, t2, t1)


@dataclass(frozen=True, kw_only=True)
class FixedSmall(Variance):
    """beta-tilde, the variance of q(x_s | x_t, x0). 2006.11239 eq. 7."""

    def __call__(self, process: Process, denoised: Denoised, t: Tensor, s: Tensor) -> Tensor:
        return per_item(2 * process.posterior_std(t, s).log(), denoised.x0)


@dataclass(frozen=True, kw_only=True)
class FixedLarge(Variance):
    """beta of the chain between t and s. 2006.11239 section 3.2."""

    def __call__(self, process: Process, denoised: Denoised, t: Tensor, s: Tensor) -> Tensor:
        return per_item(process.conditional_variance(t, s).log(), denoised.x0)


@dataclass(frozen=True, kw_only=True)
class LearnedRange(Variance):
    """Between the two in logarithm, as the network says: nu = (aux + 1)/2. 2102.09672 eq. 15."""

    def __call__(self, process: Process, denoised: Denoised, t: Tensor, s: Tensor) -> Tensor:
        nu = (require_aux(self, denoised) + 1) / 2
        small = FixedSmall()(process, denoised, t, s)
        large = FixedLarge()(process, denoised, t, s)
        return nu * large + (1 - nu) * small


@dataclass(frozen=True, kw_only=True)
class LearnedLogit(Variance):
    """sigmoid(aux/sqrt(T) + logit beta): Sohl-Dickstein et al. 2015 (arXiv 1503.03585), their code.

    Starts at the forward variance and may move anywhere in (0, 1).
    """

    num_steps: int = 40

    def __call__(self, process: Process, denoised: Denoised, t: Tensor, s: Tensor) -> Tensor:
        aux = require_aux(self, denoised)
        logit = torch.logit(process.conditional_variance(t, s))
        return torch.nn.functional.logsigmoid(aux / self.num_steps**0.5 + per_item(logit, aux))


def require_aux(variance: Variance, denoised: Denoised) -> Tensor:
    """The variance channels [b ...], or a ValueError that says how to have them."""
    if denoised.aux is None:
        raise ValueError(
            f"{variance} needs the variance channels of the network and found none. Build the "
            "denoiser with VarianceHead(), or use FixedSmall() or FixedLarge()."
        )
    return denoised.aux
