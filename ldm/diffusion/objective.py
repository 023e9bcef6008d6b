"""Training objectives: (denoiser, x0 [b ...], cond, generator) -> named terms, each [b].

The term "loss" is the one to average and back-propagate. One draw of (t, eps) and one evaluation
of the network serve every term of an objective.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ldm.diffusion.denoiser import Denoiser
from ldm.diffusion.noise import normal_like
from ldm.diffusion.prediction import Denoised, Prediction
from ldm.diffusion.times import Times, Uniform
from ldm.diffusion.weighting import Unit, Weighting

Terms = dict[str, Tensor]


class Drawn(NamedTuple):
    """One noised batch and what the denoiser made of it."""

    denoiser: Denoiser
    cond: Any
    x0: Tensor  # [b ...]
    eps: Tensor  # [b ...]
    t: Tensor  # [b] float64
    x_t: Tensor  # [b ...]
    denoised: Denoised


def mean_flat(x: Tensor) -> Tensor:
    """The mean over all but the batch: [b ...] -> [b]."""
    return x.flatten(1).mean(1)


class Objective(ABC):
    """Draw times and noise, evaluate the network once, weigh the loss."""

    times: Times

    @abstractmethod
    def terms(self, drawn: Drawn, generator: torch.Generator) -> Terms:
        """Named terms [b]; "loss" among them, before the importance weight of t."""

    def __call__(
        self, denoiser: Denoiser, x0: Tensor, cond: Any, generator: torch.Generator
    ) -> Terms:
        """x0 [b ...], of zero mean and unit variance -> terms, each [b]."""
        t, weight = (v.to(x0.device) for v in self.times(denoiser.process, len(x0), generator))
        eps = normal_like(x0, generator)
        x_t = denoiser.process.perturb(x0, t, eps)
        drawn = Drawn(denoiser, cond, x0, eps, t, x_t, denoiser(x_t, t, cond))
        terms = self.terms(drawn, generator)
        self.times.update(t, terms["loss"].detach())
        return {**terms, "loss": weight.to(terms["loss"].dtype) * terms["loss"]}


@dataclass(frozen=True, kw_only=True)
class Mse(Objective):
    """Weighted mean squared error in the space of any prediction.

    `space=None` is the network's own space. Ho et al. 2020 (arXiv 2006.11239) eq. 14 is Eps with
    unit weight; denoising score matching (Vincent 2011) is Score with weight sigma^2, or Eps.
    """

    times: Times = field(default_factory=Uniform)
    weighting: Weighting = field(default_factory=Unit)
    space: Prediction | None = None

    def terms(self, drawn: Drawn, generator: torch.Generator) -> Terms:
        process, t = drawn.denoiser.process, drawn.t
        space = self.space or drawn.denoiser.prediction
        target = space.target(process, t, drawn.x0, drawn.eps)
        found = space.target(process, t, drawn.denoised.x0, drawn.denoised.eps)
        mse = mean_flat((found - target).square())
        weight = self.weighting(process, space, t).to(mse)
        return {"loss": weight * mse, "mse": mse.detach()}
