"""The one sampling loop.

Shapes: b batch, ... data; times [n] float64, decreasing, from a Grid.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ldm.diffusion.denoiser import Denoise
from ldm.diffusion.noise import Noise
from ldm.diffusion.prediction import Denoised
from ldm.diffusion.process import Process, per_item
from ldm.diffusion.solvers import Solver


class Snapshot(NamedTuple):
    """A moment of sampling: x [b ...] after a step, and the latest x0 [b ...] for a preview."""

    step: int
    x: Tensor
    x0: Tensor


def start(
    process: Process, times: Tensor, noise: Noise, shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Pure noise sigma(t_0) z to begin from; `shape` of one item [...] -> [b ...]."""
    z = noise.normal(shape, dtype)
    return per_item(process.alpha_sigma(times[:1].double())[1], z) * z


@torch.no_grad()
def trajectory(
    denoise: Denoise, process: Process, solver: Solver, times: Tensor, x: Tensor, noise: Noise
) -> Iterator[Snapshot]:
    """Walk x [b ...] from times[0] down the grid, one snapshot a step; the last is the sample."""
    seen: list[Denoised] = []

    def watched(x: Tensor, t: Tensor) -> Denoised:
        seen[:] = [denoise(x, t)]
        return seen[0]

    grid = times.to(x.device).unsqueeze(1).repeat(1, len(x))
    carry = solver.init()
    for index, (t, s) in enumerate(itertools.pairwise(grid)):
        x, carry = solver.step(watched, process, x, t, s, carry, noise)
        yield Snapshot(index, x, seen[0].x0)
    x = solver.finish(watched, process, x, grid[-1], noise)
    yield Snapshot(len(grid) - 1, x, seen[0].x0)


def sample(
    denoise: Denoise, process: Process, solver: Solver, times: Tensor, x: Tensor, noise: Noise
) -> Tensor:
    """x [b ...] at times[0] -> a sample of x0 [b ...]."""
    for moment in trajectory(denoise, process, solver, times, x, noise):
        x = moment.x
    return x
