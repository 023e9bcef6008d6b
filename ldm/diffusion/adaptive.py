"""Runge-Kutta of order 5(4) whose error is controlled per item.

Each item has its own time and its own step, so it does not depend on its batch.

Shapes: b batch, d dimensions of a flattened item, ... data; t, s: [b].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldm.diffusion.denoiser import Denoise
from ldm.diffusion.noise import Noise
from ldm.diffusion.process import Process
from ldm.diffusion.solvers import Solver
from ldm.diffusion.step import velocity

# Dormand & Prince 1980, table 2: nodes, stages, and the fifth-order weights less the fourth-order.
_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (
    71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40,
)  # fmt: skip

Rate = Callable[[Tensor, Tensor], Tensor]  # (y [b d], t [b]) -> dy/dt [b d]


@dataclass(frozen=True, kw_only=True)
class Rk45:
    """Tolerances of the integration: error below atol + rtol |y|, root mean square over an item."""

    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 2000

    def __post_init__(self) -> None:
        if not (self.rtol > 0 and self.atol > 0 and self.max_steps > 0):
            raise ValueError(f"{self}: rtol, atol and max_steps are positive.")

    def __call__(self, rate: Rate, y: Tensor, t: Tensor, end: Tensor) -> Tensor:
        """y [b d] at t [b] -> y at end [b]. Items that have arrived wait for the others."""
        h = (end - t) / 100
        for _ in range(self.max_steps):
            arrived = (end - t).abs() <= 1e-12 * (end.abs() + t.abs())
            if arrived.all():
                return y
            h = torch.where((end - t).abs() < h.abs(), end - t, h)
            moved, error = _stages(rate, y, t, h)
            scale = self.atol + self.rtol * torch.maximum(y.abs(), moved.abs())
            size = (error / scale).square().mean(1).sqrt().double().nan_to_num(nan=math.inf)
            accept = (size <= 1) & ~arrived
            y, t = torch.where(accept[:, None], moved, y), torch.where(accept, t + h, t)
            factor = (0.9 * size.clamp(min=1e-10) ** -0.2).clamp(0.2, 5.0)
            h = torch.where(arrived, h, h * factor)
        raise RuntimeError(
            f"the integration was not done after {self.max_steps} steps: the field is stiff or not "
            "finite. Raise max_steps or the tolerances, or end the grid further from t=0."
        )


def _stages(rate: Rate, y: Tensor, t: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """One step of every item: the fifth-order value and its error, [b d] each."""
    step = h.to(y.dtype)[:, None]
    slopes: list[Tensor] = []
    point = y
    for node, weights in zip(_NODES, _STAGES, strict=True):
        point = y + step * _weighted(weights, slopes, y)
        slopes.append(rate(point, t + node * h))
    return point, step * _weighted(_ERROR, slopes, y)


def _weighted(weights: tuple[float, ...], slopes: list[Tensor], like: Tensor) -> Tensor:
    pairs = zip(weights, slopes, strict=True)
    return sum((weight * slope for weight, slope in pairs), torch.zeros_like(like))


@dataclass(frozen=True, kw_only=True)
class AdaptiveRk45(Solver):
    """The probability-flow ODE to a tolerance, from each time of the grid to the next.

    Song et al. 2021 (arXiv 2011.13456) section 4.3 and appendix D.4; a grid of two times leaves all
    to the error control, which is per item where their code's is per batch.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 2000

    def step(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, s: Tensor,
        carry: Any, noise: Noise,
    ) -> tuple[Tensor, Any]:
        def rate(y: Tensor, time: Tensor) -> Tensor:
            return velocity(process, denoise(y.view_as(x), time), time).flatten(1)

        integrate = Rk45(rtol=self.rtol, atol=self.atol, max_steps=self.max_steps)
        return integrate(rate, x.flatten(1), t, s).view_as(x), None
