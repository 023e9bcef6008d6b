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
    process: Process,
    times: Tensor,
    noise: Noise,
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Pure noise sigma(t_0) z to begin from; `shape` of one item [...] -> [b ...]."""
    return start_from(process, times, noise.normal(shape, dtype))


def start_from(process: Process, times: Tensor, z: Tensor) -> Tensor:
    """sigma(t_0) z for given standard normal z [b ...] -> [b ...]."""
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


@torch.no_grad()
def invert(
    denoise: Denoise, process: Process, solver: Solver, times: Tensor, x0: Tensor, noise: Noise
) -> Tensor:
    """x0 [b ...] -> the noise [b ...] at times[0] from which a deterministic solver returns to it.

    Song et al. 2020 (arXiv 2010.02502) section 4.3: the same solver, up the same grid. The first
    step, from the data to times[-1], is that of `Solver.finish` reversed.
    """
    last = times[-1].to(x0.device).repeat(len(x0))
    x = process.perturb(x0, last, denoise(x0, last).eps)
    for moment in trajectory(denoise, process, solver, times.flip(0), x, noise):
        x = moment.x if moment.step < len(times) - 1 else x
    return x
