"""GLIDE (Nichol et al. 2021, arXiv 2112.10741): a caption guides a picture.

Coloured shapes of 16 x 16 pixels; as on the web, one caption in ten belongs to another picture, and
what a caption leaves open goes with what it says.
Every picture is judged by its nearest neighbour in the finite world of shapes, not by a network.
"""

from __future__ import annotations

import dataclasses

from ldm.conditioning import ConcatConfig, LowResConfig
from ldm.conditioning.caption import CaptionConfig
from ldm.conditioning.masked import MaskedConfig
from ldm.data.shapes import SIDE
from ldm.diffusion import X0, Mse, VPCosine
from ldm.networks.encoder import EncoderConfig
from ldm.networks.unet import UNetConfig
from ldm.noisy_clip import NoisyClipConfig, NoisyClipTraining
from ldm.papers import glide_guidance, glide_known
from ldm.papers.bench import Bench, Study
from ldm.papers.findings import Finding
from ldm.papers.shape_samples import SHAPE, TEXT, TIMES, shape_dit
from ldm.recipe import Recipe
from ldm.stage import Buildable, PixelCodec, StageConfig
from ldm.tasks import StageTraining
from ldm.training import LoopConfig, OptimConfig

CAPTION = CaptionConfig(text=TEXT, dim=TEXT.width, drop=0.2)


def recipes() -> dict[str, Recipe]:
    """The base model, one told a picture with a hole, an upsampler, and two CLIPs."""
    hole = ConcatConfig(parts=(CAPTION, MaskedConfig(side=SIDE)))
    small = ConcatConfig(parts=(CAPTION, LowResConfig(small=SIDE // 2, large=SIDE)))
    return {
        "base": pictures(CAPTION, concat_channels=0, images=160_000),
        "inpainting": pictures(hole, concat_channels=4, images=160_000),
        "upsampler": pictures(small, concat_channels=3, images=32_000),
        "noise_aware_clip": clip(timed=True),
        "clean_clip": clip(timed=False),
    }


def pictures(conditioner: Buildable, *, concat_channels: int, images: int) -> Recipe:
    """A diffusion of pictures under `conditioner`."""
    return Recipe(
        task=StageTraining(
            stage=StageConfig(
                codec=PixelCodec(),
                conditioner=conditioner,
                network=shape_dit(concat_channels=concat_channels),
                process=VPCosine(),
                prediction=X0(),
                objective=Mse(times=TIMES),
                multiple=4,
            ),
            shape=SHAPE,
        ),
        data=glide_guidance.SHOWN,
        optim=OptimConfig(lr=2e-3, warmup_images=1_000),
        loop=LoopConfig(images=images, ema_half_life=4_000),
    )


def clip(*, timed: bool) -> Recipe:
    """A CLIP on noised pictures, or on clean ones."""
    tower = UNetConfig(
        in_channels=3,
        out_channels=32,
        channels=(8, 16, 32),
        blocks_per_level=1,
        head_dim=16,
        resample="conv",
        norm_groups=8,
    )
    return Recipe(
        task=NoisyClipTraining(
            clip=NoisyClipConfig(
                codec=PixelCodec(),
                image=EncoderConfig(trunk=tower, grid=SIDE, timed=timed),
                text=CaptionConfig(text=TEXT, dim=32, drop=0.0),
                process=VPCosine(),
            )
        ),
        data=dataclasses.replace(glide_guidance.SHOWN, batch_size=64),
        optim=OptimConfig(lr=2e-3, warmup_images=1_000),
        loop=LoopConfig(images=80_000, ema_half_life=2_000),
    )


def run(bench: Bench) -> list[Finding]:
    """Guidance, then what else may be known of the picture."""
    return [*glide_guidance.findings(bench, recipes()), *glide_known.findings(bench, recipes())]


STUDY = Study(
    title="GLIDE",
    paper="Nichol et al. 2021, arXiv 2112.10741",
    about="A transformer reads the caption and is trained with the diffusion that it steers. The "
    "caption can be given weight by extrapolating from the model without one (classifier-free "
    "guidance) or by the gradient of a CLIP that has learned on noised pictures. The same model, "
    "told the rest of a picture, fills a hole as the caption says; told a small picture, it "
    "enlarges it. Departures: a transformer over patches that predicts x0 in place of a U-Net "
    "that predicts eps and a variance; 12 evaluations of DPM-Solver++(2M) for each sample.",
    run=run,
)
