"""Training objectives: (denoiser, x0 [b ...], cond, generator) -> named terms, each [b].

The term "loss" is the one to average and back-propagate. One draw of (t, eps) and one evaluation
of the network serve every term of an objective.
"""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ldm.diffusion.denoiser import Denoiser
from ldm.diffusion.noise import normal_like
from ldm.diffusion.prediction import Denoised, Prediction
from ldm.diffusion.times import Times, Uniform
from ldm.diffusion.weighting import Unit, Weighting

Terms = dict[str, Tensor]
AnyObjective = TypeVar("AnyObjective", bound="Objective")


@dataclass(frozen=True)
class Drawn:
    """One noised batch, and what the denoiser makes of it (evaluated once, when asked for)."""

    denoiser: Denoiser
    cond: Any
    x0: Tensor  # [b ...]
    eps: Tensor  # [b ...]
    t: Tensor  # [b] float64

    @functools.cached_property
    def x_t(self) -> Tensor:
        """[b ...]"""
        return self.denoiser.process.perturb(self.x0, self.t, self.eps)

    @functools.cached_property
    def denoised(self) -> Denoised:
        """[b ...]"""
        found: Denoised = self.denoiser(self.x_t, self.t, self.cond)
        return found


def mean_flat(x: Tensor) -> Tensor:
    """The mean over all but the batch: [b ...] -> [b]."""
    return x.flatten(1).mean(1)


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """Draw times and noise, evaluate the network once, weigh the loss."""

    times: Times = field(default_factory=Uniform)

    def build(self: AnyObjective) -> AnyObjective:
        """The objective to train with: its times built, with the memory of those that have one."""
        return dataclasses.replace(self, times=self.times.build())

    def memory(self) -> nn.Module | None:
        """What a checkpoint must hold of a built objective beside the denoiser."""
        return self.times.memory()

    @abstractmethod
    def terms(self, drawn: Drawn, generator: torch.Generator) -> Terms:
        """Named terms [b]; "loss" among them, before the importance weight of t."""

    def __call__(
        self, denoiser: Denoiser, x0: Tensor, cond: Any, generator: torch.Generator
    ) -> Terms:
        """x0 [b ...], of zero mean and unit variance -> terms, each [b]."""
        t, weight = (v.to(x0.device) for v in self.times(denoiser.process, len(x0), generator))
        eps = normal_like(x0, generator)
        terms = self.terms(Drawn(denoiser, cond, x0, eps, t), generator)
        self.times.update(denoiser.process, t, terms["loss"].detach())
        return {**terms, "loss": weight.to(terms["loss"].dtype) * terms["loss"]}


@dataclass(frozen=True, kw_only=True)
class Mse(Objective):
    """Weighted mean squared error in the space of any prediction.

    `space=None` is the network's own space. Ho et al. 2020 (arXiv 2006.11239) eq. 14 is Eps with
    unit weight; denoising score matching (Vincent 2011) is Score with weight sigma^2, or Eps.
    """

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


@dataclass(frozen=True, kw_only=True)
class Sum(Objective):
    """Weighted sum of objectives on one draw of t and eps; the times of the parts are not used.

    Improved DDPM's hybrid (2102.09672 eq. 16) is ((1, Mse()), (0.001, Vlb(stop_mean=True))).
    """

    parts: tuple[tuple[float, Objective], ...]

    def terms(self, drawn: Drawn, generator: torch.Generator) -> Terms:
        found = [part.terms(drawn, generator) for _, part in self.parts]
        weights = [weight for weight, _ in self.parts]
        losses = [w * terms["loss"] for w, terms in zip(weights, found, strict=True)]
        named = {name: value for terms in found for name, value in terms.items()}
        return {**named, "loss": torch.stack(losses).sum(0)}


@dataclass(frozen=True, kw_only=True)
class SlicedScoreMatching(Objective):
    """sigma^2 (|s|^2/2 + v . grad(v . s)), v of random signs, per dimension.

    Song et al. 2019 (arXiv 1905.07088) eq. 8, the form of reduced variance; no use is made of eps.
    """

    def terms(self, drawn: Drawn, generator: torch.Generator) -> Terms:
        x = drawn.x_t.detach().requires_grad_()
        denoised = drawn.denoiser(x, drawn.t, drawn.cond)
        sigma = drawn.denoiser.process.at(drawn.t, x).sigma
        score = -denoised.eps / sigma
        v = normal_like(x, generator).sign()
        slope = torch.autograd.grad((v * score).sum(), x, create_graph=True)[0]
        loss = mean_flat(sigma.square() * (score.square() / 2 + v * slope))
        return {"loss": loss, "sliced": loss.detach()}
