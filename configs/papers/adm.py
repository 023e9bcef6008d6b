"""ADM, ADM-G and ADM-U (Dhariwal & Nichol 2021, arXiv 2105.05233) on 8 x 8 digits.

A class-conditional and an unconditional U-Net, a classifier of noised digits whose gradient guides
both, an upsampler from 4 x 4, and the paper's ablation at this size. The measurements are in
`ldm.papers.adm_guidance`, `adm_upsampler` and `adm_ablation`.
"""

from __future__ import annotations

from typing import Any

from ldm.classifier import ClassifierConfig, ClassifierTraining
from ldm.conditioning import (
    ConcatConfig,
    ConditionerConfig,
    LabelsConfig,
    LowResConfig,
    UnconditionalConfig,
)
from ldm.data.digits import Digits
from ldm.diffusion import (
    Ancestral,
    Discrete,
    Eps,
    LearnedRange,
    LinearChain,
    LinspaceGrid,
    Mse,
    Sum,
    VarianceHead,
    Vlb,
)
from ldm.networks.encoder import EncoderConfig
from ldm.networks.rescaled import RescaledConfig
from ldm.networks.unet import UNetConfig
from ldm.papers import adm_ablation, adm_guidance, adm_upsampler
from ldm.papers.bench import Bench, Study
from ldm.papers.findings import Finding
from ldm.papers.guided import SHAPE
from ldm.papers.small import digit_unet
from ldm.recipe import Recipe
from ldm.samplers import Sampler
from ldm.stage import PixelCodec, StageConfig
from ldm.tasks import StageTraining
from ldm.training import LoopConfig, OptimConfig

LABELS = LabelsConfig(num_classes=10, dim=64, drop=0.0)
LOW_RES = LowResConfig(small=4, large=8, channels=1, max_blur=0.0, max_noise=0.0)


def network(**changes: Any) -> UNetConfig:
    """ADM's choices at this size: attention on both grids, BigGAN's resampling, two outputs."""
    adm: dict[str, Any] = {
        "out_channels": 2,
        "channels": (16, 32),
        "attention_levels": (0, 1),
        "head_dim": 16,
        "resample": "resblock",
    }
    return digit_unet(**(adm | changes))


def diffusion(
    net: UNetConfig | RescaledConfig, conditioner: ConditionerConfig, images: int
) -> Recipe:
    """A digit model: the linear chain, eps and a learned variance, the hybrid objective."""
    return Recipe(
        task=StageTraining(
            stage=StageConfig(
                codec=PixelCodec(),
                conditioner=conditioner,
                network=net,
                process=LinearChain(),
                prediction=Eps(),
                objective=Sum(parts=((1.0, Mse()), (0.001, Vlb(stop_mean=True))), times=Discrete()),
                head=VarianceHead(),
                multiple=2,
            ),
            shape=SHAPE,
            preview=Sampler(
                solver=Ancestral(variance=LearnedRange()), grid=LinspaceGrid(), steps=25
            ),
        ),
        data=Digits(batch_size=32),
        optim=OptimConfig(lr=2e-3, warmup_images=1_000),
        loop=LoopConfig(images=images, ema_half_life=1_000),
    )


def classifier() -> Recipe:
    """The half U-Net on digits noised as in the diffusion; weight decay as published."""
    trunk = network(in_channels=1, out_channels=10, dropout=0.1)
    return Recipe(
        task=ClassifierTraining(
            classifier=ClassifierConfig(
                codec=PixelCodec(),
                network=EncoderConfig(trunk=trunk, grid=SHAPE[1]),
                process=LinearChain(),
                times=Discrete(),
            )
        ),
        data=Digits(batch_size=32),
        optim=OptimConfig(lr=2e-3, weight_decay=0.05, warmup_images=1_000),
        loop=LoopConfig(images=16_000, ema_half_life=1_000),
    )


def recipes() -> dict[str, Recipe]:
    """The models, and the networks of the ablation in short trainings."""
    labelled = network(vector_dim=LABELS.dim)
    upsampler = network(vector_dim=LABELS.dim, concat_channels=1)
    short = 3_000
    return {
        "conditional": diffusion(labelled, LABELS, 36_000),
        "unconditional": diffusion(network(), UnconditionalConfig(), 36_000),
        "classifier": classifier(),
        "upsampler": diffusion(upsampler, ConcatConfig(parts=(LABELS, LOW_RES)), 8_000),
        "adm": diffusion(labelled, LABELS, short),
        "one_attention": diffusion(
            network(vector_dim=LABELS.dim, attention_levels=(1,)), LABELS, short
        ),
        "plain_resampling": diffusion(
            network(vector_dim=LABELS.dim, resample="conv"), LABELS, short
        ),
        "rescaled": diffusion(RescaledConfig(base=labelled), LABELS, short),
    }


def run(bench: Bench) -> list[Finding]:
    """Every part of the paper in turn."""
    plans = recipes()
    return [
        *adm_guidance.findings(bench, plans),
        *adm_upsampler.findings(bench, plans),
        *adm_ablation.findings(bench, plans),
    ]


STUDY = Study(
    title="ADM, classifier guidance and the upsampler",
    paper="Dhariwal & Nichol 2021, arXiv 2105.05233",
    about="A U-Net with adaptive group norm, attention on several grids and BigGAN's resampling; "
    "a classifier of noised pictures whose gradient trades diversity for fidelity; an upsampler "
    "that is told the small picture. Here on 8 x 8 digits, judged by a support vector machine "
    "that no model has met, and on a mixture of two Gaussians, where the guided score is known.",
    run=run,
)
