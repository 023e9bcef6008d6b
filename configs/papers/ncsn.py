"""NCSN (Song & Ermon 2019, arXiv 1907.05600): scores at many noise levels, followed downhill.

A mixture whose score is known tests the sampler alone; small networks on the same mixture test what
is learned; digits are drawn and completed by a conditional RefineNet.
"""

from __future__ import annotations

import dataclasses

from ldm.conditioning import UnconditionalConfig
from ldm.data.digits import Digits
from ldm.data.stream import Source
from ldm.data.toys import Mixture
from ldm.diffusion import VE, Discrete, Eps, Mse, Score, SlicedScoreMatching, StandardInput
from ldm.networks.mlp import MlpConfig
from ldm.networks.refinenet import RefineNetConfig
from ldm.papers import ncsn_digits, ncsn_toy
from ldm.papers.bench import Bench, Study
from ldm.papers.findings import Finding
from ldm.recipe import Recipe
from ldm.stage import PixelCodec, PointCodec, StageConfig
from ldm.tasks import StageTraining
from ldm.training import LoopConfig, OptimConfig

LEVELS = 10
LADDER = VE(sigma_min=1.0, sigma_max=20.0)
"""Of the mixture: from its own deviation to more than the way between its modes."""
NEARLY_CLEAN = VE(sigma_min=0.05, sigma_max=20.0)
DIGIT_LADDER = VE(sigma_min=0.05, sigma_max=5.0)
"""In units of [-1, 1]; about the distance between two digits at the top, as NCSNv2 advises."""


def recipes() -> dict[str, Recipe]:
    """Three toys (ladder by both objectives, nearly clean data by one) and the digits.

    On the ladder the network says -sigma score, as NCSNv2 has it (arXiv 2006.09011 section 3.3).
    """
    point = StageConfig(
        codec=PointCodec(),
        conditioner=UnconditionalConfig(),
        network=MlpConfig(dim=2, out_dim=2, width=64, depth=2),
        process=LADDER,
        prediction=Eps(),
        objective=Mse(times=Discrete(num_steps=LEVELS)),
        input_scale=StandardInput(sigma_data=5.0),
    )
    sliced = SlicedScoreMatching(times=Discrete(num_steps=LEVELS))
    clean = SlicedScoreMatching(times=Discrete(num_steps=1))
    digit = replaced(
        point,
        codec=PixelCodec(),
        network=RefineNetConfig(in_channels=1, channels=16, dilations=(1, 2)),
        process=DIGIT_LADDER,
        input_scale=StandardInput(sigma_data=0.75),
        multiple=2,
    )
    return {
        "denoising": plan(point, (2,), Mixture(batch_size=256), 200_000),
        "sliced": plan(replaced(point, objective=sliced), (2,), Mixture(batch_size=256), 200_000),
        "nearly-clean": plan(
            replaced(point, objective=clean, process=NEARLY_CLEAN, prediction=Score()),
            (2,), Mixture(batch_size=256), 200_000,
        ),
        "digits": plan(digit, (1, 8, 8), Digits(batch_size=32), 16_000),
    }  # fmt: skip


def replaced(stage: StageConfig, **changes: object) -> StageConfig:
    """A stage with parts exchanged."""
    return dataclasses.replace(stage, **changes)  # type: ignore[arg-type]


def plan(stage: StageConfig, shape: tuple[int, ...], data: Source, images: int) -> Recipe:
    """A training run."""
    return Recipe(
        task=StageTraining(stage=stage, shape=shape),
        data=data,
        optim=OptimConfig(lr=2e-3, warmup_images=images // 20),
        loop=LoopConfig(images=images, ema_half_life=images // 20),
    )


def run(bench: Bench) -> list[Finding]:
    """The sampler on a known score, then what networks learn, then digits."""
    return [
        ncsn_toy.annealing(bench, LADDER, LEVELS),
        *ncsn_toy.learning(bench, recipes(), LEVELS),
        *ncsn_digits.digits(bench, recipes()["digits"], LEVELS),
    ]


STUDY = Study(
    title="NCSN",
    paper="Song & Ermon 2019, arXiv 1907.05600",
    about="A network learns the gradient of the log-density of data under noise of ten strengths; "
    "Langevin dynamics follows it from the strongest noise to the weakest. The mixture of the "
    "paper's section 3 shows why one strength is not enough, first with the exact score and then "
    "with learned ones; 8 x 8 digits are then drawn and completed.",
    run=run,
)
