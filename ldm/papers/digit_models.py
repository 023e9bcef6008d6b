"""Models of 8 x 8 digits that train in seconds, drawn and judged alike in several studies.

n samples
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from autoencoder.pixels import to_uint8
from ldm.conditioning import UnconditionalConfig
from ldm.data.batch import Batch
from ldm.data.digits import Digits
from ldm.diffusion.denoiser import InputScale, ScaledTime, TimeEmbed, UnitInput
from ldm.diffusion.grids import Grid
from ldm.diffusion.noise import Noise
from ldm.diffusion.objective import Objective
from ldm.diffusion.prediction import Prediction
from ldm.diffusion.process import Process
from ldm.diffusion.solvers import Solver
from ldm.networks.flat import FlatConfig
from ldm.papers.bench import Bench
from ldm.papers.measures import energy_distance
from ldm.recipe import Recipe
from ldm.samplers import Sampler
from ldm.stage import Buildable, PixelCodec, StageConfig
from ldm.tasks import StageTraining
from ldm.training import LoopConfig, OptimConfig

SHAPE = (1, 8, 8)
NETWORK = FlatConfig(shape=SHAPE, width=192, depth=3)
"""Sees a digit as a row of 64 numbers: tens of thousands of digits a second."""
OPTIM = OptimConfig(lr=2e-3, warmup_images=2_000)
AS_IT_IS = UnitInput()
PLAIN_TIME = ScaledTime()
SIGMA_DATA = 0.75
"""Root mean square of the digits' pixels in [-1, 1]."""


def digit_recipe(
    process: Process,
    prediction: Prediction,
    objective: Objective,
    *,
    images: int,
    network: Buildable = NETWORK,
    input_scale: InputScale = AS_IT_IS,
    time_embed: TimeEmbed = PLAIN_TIME,
    optim: OptimConfig = OPTIM,
) -> Recipe:
    """An unconditional model of the digits' pixels."""
    stage = StageConfig(
        codec=PixelCodec(),
        conditioner=UnconditionalConfig(),
        network=network,
        process=process,
        prediction=prediction,
        objective=objective,
        input_scale=input_scale,
        time_embed=time_embed,
    )
    return Recipe(
        task=StageTraining(stage=stage, shape=SHAPE),
        data=Digits(batch_size=128),
        optim=optim,
        loop=LoopConfig(images=images, ema_half_life=4_000),
    )


@torch.no_grad()
def draw(task: Any, solver: Solver, grid: Grid, steps: int, n: int, *, seed: int = 0) -> Tensor:
    """x0 [n 1 8 8] from n seeds that no other `seed` shares."""
    seeds = range(seed * 1_000_000, seed * 1_000_000 + n)
    sampler = Sampler(solver=solver, grid=grid, steps=steps)
    drawn: Tensor = task.stage.sample(Batch(key=("",) * n), sampler, Noise(seeds), SHAPE)
    return drawn


@functools.cache
def real(part: str = "test") -> Tensor:
    """Digits [n 1 8 8] in [-1, 1]; those of the test part no model has seen."""
    image = Digits(part=part).whole().image  # type: ignore[arg-type]
    assert image is not None
    return image.float() / 127.5 - 1


def distance(x: Tensor) -> float:
    """Energy distance of drawn digits [n 1 8 8], clamped to pixels, to those of the test part."""
    return energy_distance(x.clamp(-1, 1), real())


def floor() -> float:
    """The distance of the training digits to the test digits: what a perfect model would reach."""
    return distance(real("train"))


def sheet(bench: Bench, label: str, rows: list[Tensor], columns: int) -> str:
    """The first `columns` of each row of digits [n 1 8 8] as one picture."""
    chosen = torch.cat([row[:columns] for row in rows])
    return bench.pictures(label, to_uint8(chosen.clamp(-1, 1)), columns, enlarge=4)
