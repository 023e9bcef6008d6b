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
from ldm.diffusion.grids import Grid
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
    """RePaint: any solver down the grid, and noise put back where a `JumpingGrid` goes up.

    Lugmayr et al. 2022 (arXiv 2201.09865) algorithm 1. Around `Replacing` it lets the unknown part
    see the known one. On the way up a solver's memory of earlier steps is forgotten.
    """

    solver: Solver

    def init(self) -> Any:
        return self.solver.init()

    def step(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, s: Tensor,
        carry: Any, noise: Noise,
    ) -> tuple[Tensor, Any]:
        if bool((s > t).all()):
            return renoise(process, x, t, s, fresh(noise, x)), self.init()
        return self.solver.step(denoise, process, x, t, s, carry, noise)

    def finish(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, noise: Noise
    ) -> Tensor:
        return self.solver.finish(denoise, process, x, t, noise)


@dataclass(frozen=True, kw_only=True)
class JumpingGrid(Grid):
    """A grid of which every `length` steps are walked `repeats` times, for `Resampling`.

    2201.09865 section 4.2 and appendix B: at each level that is a multiple of `length`, counted
    from the data, the walk jumps `length` levels up, repeats - 1 times in all. Their steps up, one
    by one, are a single draw of q(x_t | x_s) here, which has the same law. repeats = 1 is the base
    grid. The one grid that is not decreasing; n levels cost about n * repeats evaluations.
    """

    base: Grid
    length: int = 10
    repeats: int = 10

    def __post_init__(self) -> None:
        if self.length < 1 or self.repeats < 1:
            raise ValueError(
                f"length={self.length} and repeats={self.repeats} were given; both are 1 or more."
            )

    def __call__(self, process: Process, n: int) -> Tensor:
        return self.base(process, n)[[n - 1 - level for level in self.levels(n)]]

    def levels(self, n: int) -> list[int]:
        """The levels in the order of the walk, n - 1 (noise) to 0 (data)."""
        walk = [n - 1]
        for level in range(n - 2, -1, -1):
            walk.append(level)
            if level % self.length == 0 and level + self.length < n:
                again = range(level + self.length, level - 1, -1)
                walk += [*again] * (self.repeats - 1)
        return walk
