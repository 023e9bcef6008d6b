"""How straight the paths of a flow are. k moments; n samples"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ldm.conditioning import Cond
from ldm.diffusion import Ddim, Noise, TrailingGrid, trajectory
from ldm.diffusion.sample import start_from


def bend(path: Tensor, times: Tensor) -> float:
    """Mean square distance of the velocity from the chord's, over that of the chord; 0: straight.

    Liu et al. 2022 (arXiv 2209.03003) section 2.2, S(Z), divided by E|Z_1 - Z_0|^2 over the time.
    path [k n ...], times [k].
    """
    dt = times.diff()
    chord = (path[-1] - path[0]) / (times[-1] - times[0])
    velocity = path.diff(dim=0) / dt.view(-1, *[1] * (path.ndim - 1))
    off = (velocity - chord).square().flatten(1).mean(1)
    return float((off * dt).sum() / dt.sum() / chord.square().mean())


def detour(path: Tensor) -> float:
    """Mean length of the paths [k n ...] over that of their chords, at least 1; no clock in it."""
    steps = path.diff(dim=0).flatten(2).norm(dim=2).sum(0)
    return float((steps / (path[-1] - path[0]).flatten(1).norm(dim=1)).mean())


@torch.no_grad()
def walked(task: Any, z: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Path [k n ...] from standard normal z [n ...] and its times [k], by DDIM.

    On a straight flow that is Euler's method.
    """
    denoiser = task.stage.denoiser
    process, denoise = denoiser.process, denoiser.bind(Cond())
    times = TrailingGrid()(process, steps)
    x = start_from(process, times, z)
    moments = trajectory(denoise, process, Ddim(), times, x, Noise([0]))
    path = torch.stack([x, *(moment.x for moment in moments)])
    return path, torch.cat([times, times.new_zeros(1)]).float()
