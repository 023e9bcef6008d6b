"""Drawing coloured shapes from a stage, for what is asked of it.

b pictures; s side
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ldm.conditioning import TextTowerConfig
from ldm.data.batch import Batch
from ldm.data.shapes import SIDE, attributes_of, captions, is_held_out
from ldm.diffusion import (
    Ddim,
    DpmSolverPP2M,
    LogitNormal,
    LogSnrGrid,
    Noise,
    Process,
    Snapshot,
    Solver,
    clip_x0,
    start,
    trajectory,
)
from ldm.diffusion.denoiser import Denoise
from ldm.networks.dit import DiTConfig

SHAPE = (3, SIDE, SIDE)
TIMES = LogitNormal(mean=1.0, std=1.5)
"""Of training: mostly noisy ones, for colour, shape and place are decided while x_t says little."""
TEXT = TextTowerConfig(context_length=14, vocab_size=4096, width=64, heads=2, layers=1)
"""A text transformer of 0.3 M parameters; the longest caption has 14 tokens."""


def shape_dit(vector_dim: int = TEXT.width, concat_channels: int = 0) -> DiTConfig:
    """0.5 M parameters on 16 patches of 4 x 4 pixels, attending to tokens of `TEXT`'s width."""
    return DiTConfig(
        in_channels=3,
        out_channels=3,
        patch_size=4,
        depth=3,
        width=96,
        heads=3,
        ff_mult=2,
        vector_dim=vector_dim,
        context_dim=TEXT.width,
        concat_channels=concat_channels,
        apart=16.0,
    )


def combinations(held_out: bool, copies: int = 1, every: int = 1) -> Tensor:
    """Colour, shape, place of the trained or held-out combinations, each `copies` times: [b 3].

    `every` takes one in so many.
    """
    found = attributes_of(torch.arange(100))
    chosen = found[is_held_out(found) == held_out][::every]
    return chosen.repeat_interleave(copies, dim=0)


def asked(attributes: Tensor) -> Batch:
    """A batch of captions alone for attributes [b 3]."""
    return Batch(key=("",) * len(attributes), caption=captions(attributes))


def moments(
    process: Process,
    denoise: Denoise,
    seeds: Sequence[int],
    *,
    steps: int = 12,
    solver: Solver | None = None,
) -> Iterator[Snapshot]:
    """The way from noise to pictures, one a seed, with x0 held in [-1, 1] at each step."""
    times, noise = LogSnrGrid()(process, steps), Noise(seeds)
    x, held = start(process, times, noise, SHAPE), clip_x0(denoise, process)
    return trajectory(held, process, solver or DpmSolverPP2M(), times, x, noise)


def walk(
    process: Process,
    denoise: Denoise,
    seeds: Sequence[int],
    *,
    steps: int = 12,
    solver: Solver | None = None,
) -> Tensor:
    """The pictures [b 3 s s] at the end of the way, in [-1, 1]."""
    *_, last = moments(process, denoise, seeds, steps=steps, solver=solver)
    return last.x.clamp(-1, 1)


def varied(process: Process, denoise: Denoise, seeds: Sequence[int], steps: int = 24) -> Tensor:
    """`walk` with fresh noise at each step (eta = 1)."""
    return walk(process, denoise, seeds, steps=steps, solver=Ddim(eta=1.0))
