"""Digit models on a discrete chain: their recipe, their samples, their bits.

Shared by the studies of DDPM, improved DDPM and DDIM. n samples; b digits; pixels lie in [-1, 1].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from autoencoder.pixels import from_uint8, to_uint8
from ldm.conditioning import UnconditionalConfig
from ldm.conditioning.cond import Cond
from ldm.data.digits import Digits
from ldm.diffusion import (
    Denoise,
    DiscretizedGaussian,
    LinspaceGrid,
    Noise,
    Prediction,
    Process,
    Solver,
    bits_per_dim,
    clip_x0,
    discrete_bound,
    sample,
    start,
)
from ldm.diffusion.variance import Variance
from ldm.networks.flat import FlatConfig
from ldm.papers.measures import frechet_distance
from ldm.recipe import Recipe
from ldm.stage import PixelCodec, StageConfig
from ldm.tasks import StageTraining
from ldm.training import LoopConfig, OptimConfig

SHAPE = (1, 8, 8)
PIXELS = 64
LEVELS = 17
"""Grey levels of the digits: log2(17) = 4.09 bits a pixel say nothing about them."""
DECODER = DiscretizedGaussian(levels=LEVELS)


def digit_mlp(**changes: Any) -> FlatConfig:
    """About 0.3 M parameters: 100 times as fast as a U-Net on one core, for 8 x 8 pixels."""
    return FlatConfig(**{"shape": SHAPE, "width": 128, "depth": 3, **changes})


def digit_recipe(
    process: Process,
    prediction: Prediction,
    objective: Any,
    *,
    images: int,
    batch_size: int = 128,
    lr: float = 2e-3,
    **stage: Any,
) -> Recipe:
    """A digit model trained on `images` digits; `stage` changes fields of its `StageConfig`."""
    settings = {"network": digit_mlp(), **stage}
    return Recipe(
        task=StageTraining(
            stage=StageConfig(
                codec=PixelCodec(),
                conditioner=UnconditionalConfig(),
                process=process,
                prediction=prediction,
                objective=objective,
                multiple=2,
                **settings,
            ),
            shape=SHAPE,
        ),
        data=Digits(batch_size=batch_size),
        optim=OptimConfig(lr=lr, warmup_images=images // 20),
        loop=LoopConfig(images=images, ema_half_life=max(1, images // 20)),
    )


def digits(part: Any, n: int | None = None) -> Tensor:
    """Real digits [n 1 8 8]: all of a part or its first n."""
    image = Digits(part=part).whole().image
    assert image is not None
    return from_uint8(image[:n])


def bound(task: Any, *, clip: bool = True) -> Denoise:
    """A trained model as (x, t) -> Denoised, its x0 held to the range of pixels as in DDPM's code;
    not so where the way back must be open.
    """
    denoiser = task.stage.denoiser
    denoise: Denoise = denoiser.bind(Cond())
    return clip_x0(denoise, denoiser.process) if clip else denoise


@torch.no_grad()
def draw(
    task: Any, solver: Solver, times: Tensor, n: int, *, clip: bool = True, first: int = 0
) -> Tensor:
    """Digits [n 1 8 8] from seeds `first` to first + n - 1, in [-1, 1]."""
    noise, process = Noise(range(first, first + n)), task.stage.denoiser.process
    x = start(process, times, noise, SHAPE)
    return sample(bound(task, clip=clip), process, solver, times, x, noise).clamp(-1, 1)


def steps(process: Any, n: int | None = None) -> Tensor:
    """The chain's times, or n of them with even steps between: [n] float64."""
    return LinspaceGrid(num_steps=process.num_steps)(process, n or process.num_steps)


def distance(x: Tensor) -> float:
    """Frechet distance in pixels between samples [n 1 8 8] and the training digits."""
    return frechet_distance(x, digits("train"))


@torch.no_grad()
def heldout_bits(task: Any, times: Tensor, variance: Variance, n: int) -> float:
    """Bits a pixel of the first n test digits by the chain with these times (2006.11239 eq. 5)."""
    process = task.stage.denoiser.process
    found = discrete_bound(
        bound(task), process, digits("test", n), times, Noise(range(n)),
        variance=variance, decoder=DECODER,
    )  # fmt: skip
    return float(bits_per_dim(found.total, PIXELS).mean())


def bytes_of(x: Tensor) -> Tensor:
    """For sheets of pictures: [n 1 8 8] in [-1, 1] -> uint8."""
    return to_uint8(x.clamp(-1, 1))
