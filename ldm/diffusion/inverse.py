"""Inverse problems: solvers wrapped so that what is known of x0 stays known.

What is known is a projection of x0 (some pixels, the grey of each pixel, a coarse picture). After
every step the projection of x_s is replaced by that of the known data at the same noise, and at the
end by the data itself. Song et al. 2021 (arXiv 2011.13456) appendix I.2-I.3; Lugmayr et al. 2022
(arXiv 2201.09865).

Shapes: b batch, c channels, h w picture, ... data; t, s: [b].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ldm.diffusion.denoiser import Denoise
from ldm.diffusion.noise import Noise
from ldm.diffusion.process import Process
from ldm.diffusion.solvers import Solver, fresh
from ldm.diffusion.step import renoise


class Projection(ABC):
    """A linear part of the data that is known."""

    @abstractmethod
    def replace(self, x: Tensor, known: Tensor) -> Tensor:
        """x with its known part taken from `known`: [b ...], [b ...] -> [b ...]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Mask(Projection):
    """Inpainting: where mask is True the data is known. mask [b ...] or [1 ...], bool."""

    mask: Tensor

    def replace(self, x: Tensor, known: Tensor) -> Tensor:
        return torch.where(self.mask, known, x)


@dataclass(frozen=True, kw_only=True)
class Grey(Projection):
    """Colourisation: the first axis of an orthonormal colour basis, (1, 1, 1)/sqrt(3), is known.

    In this basis the noise of the grey is independent of that of the colours, so grey may be
    replaced alone. 2011.13456 appendix I.3.
    """

    def replace(self, x: Tensor, known: Tensor) -> Tensor:
        return x + (known - x).mean(dim=1, keepdim=True)  # [b c h w]


@dataclass(frozen=True, kw_only=True)
class Coarse(Projection):
    """The mean of every factor x factor square is known. Choi et al. 2021 (arXiv 2108.02938) eq. 8.

    Box averages and repetition make a projection, which their bicubic filters only nearly are.
    """

    factor: int

    def replace(self, x: Tensor, known: Tensor) -> Tensor:
        gap = F.avg_pool2d(known - x, self.factor)
        return x + F.interpolate(gap, scale_factor=self.factor, mode="nearest")  # [b c h w]


@dataclass(frozen=True, kw_only=True, eq=False)
class Replacing(Solver):
    """Any solver, with the known part put back at the right noise after each step."""

    solver: Solver
    projection: Projection
    known: Tensor  # [b ...] clean data; outside the known part it is not read

    def init(self) -> Any:
        return self.solver.init()

    def step(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, s: Tensor,
        carry: Any, noise: Noise,
    ) -> tuple[Tensor, Any]:
        x, carry = self.solver.step(denoise, process, x, t, s, carry, noise)
        return self.projection.replace(x, process.perturb(self.known, s, fresh(noise, x))), carry

    def finish(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, noise: Noise
    ) -> Tensor:
        x = self.solver.finish(denoise, process, x, t, noise)
        return self.projection.replace(x, self.known)


@dataclass(frozen=True, kw_only=True, eq=False)
class Resampling(Solver):
    """RePaint: every step is taken `repeats` times, with noise put back in between.

    Lugmayr et al. 2022 (arXiv 2201.09865) algorithm 1, jumps of one step. Around `Replacing` it
    lets the unknown part see the known one.
    """

    solver: Solver
    repeats: int = 10

    def init(self) -> Any:
        return self.solver.init()

    def step(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, s: Tensor,
        carry: Any, noise: Noise,
    ) -> tuple[Tensor, Any]:
        after, told = self.solver.step(denoise, process, x, t, s, carry, noise)
        for _ in range(self.repeats - 1):
            x = renoise(process, after, s, t, fresh(noise, x))
            after, told = self.solver.step(denoise, process, x, t, s, carry, noise)
        return after, told

    def finish(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, noise: Noise
    ) -> Tensor:
        return self.solver.finish(denoise, process, x, t, noise)
