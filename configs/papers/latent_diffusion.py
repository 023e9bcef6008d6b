"""Latent diffusion (Rombach et al. 2022, arXiv 2112.10752): an autoencoder first, then diffusion in
its latents.

Digits enlarged to 16 x 16 pixels; KL and VQ autoencoders to 4 x 4 latents of 4 channels; a
class-conditional model of the latents at several scales; the cost of a step against pixels.
"""

from __future__ import annotations

from autoencoder import (
    AutoencoderConfig,
    AutoencoderTraining,
    ReconstructionLossConfig,
    VQConfig,
    VQTraining,
)
from ldm.conditioning import LabelsConfig
from ldm.data.enlarged import LargeDigits
from ldm.diffusion import Ddim, Discrete, Eps, LeadingGrid, Mse, ScaledLinearChain, ScaledTime
from ldm.first_stage import Encoded, FirstStage, FirstStageCodec
from ldm.networks.flat import FlatConfig
from ldm.networks.unet import UNetConfig
from ldm.papers import latents
from ldm.papers.bench import Bench, Study
from ldm.papers.findings import Finding
from ldm.papers.small import digit_unet
from ldm.recipe import Recipe
from ldm.samplers import Sampler
from ldm.stage import Buildable, CodecConfig, PixelCodec, StageConfig
from ldm.tasks import StageTraining
from ldm.training import LoopConfig, OptimConfig

SIDE, CHANNELS, FACTOR = 16, 4, 4
SHAPE = (CHANNELS, SIDE // FACTOR, SIDE // FACTOR)
SIZES = AutoencoderConfig(
    in_channels=1,
    out_channels=1,
    patch_size=FACTOR,
    block_out_channels=(32,),
    latent_channels=CHANNELS,
    norm_num_groups=8,
    sample_size=SIDE,
    mid_block_add_attention=False,
)
VQ = VQConfig(sizes=SIZES, codes=128)
LOSS = ReconstructionLossConfig(gradients=0.0, perceptual=0.0, kl=1e-6)
PUBLISHED_SPREAD = 1 / 0.18215
"""Deviation of the raw latents of the published text-to-image autoencoder (f = 8, KL)."""
CLASS_WIDTH = 32
PIXELS = (1, SIDE, SIDE)
OPTIM = OptimConfig(lr=1e-3, warmup_images=2_000)
LOOP = LoopConfig(images=40_000, ema_half_life=2_000)
SPREADS: dict[str, float | None] = {
    "latent_narrow": 1 / PUBLISHED_SPREAD,
    "latent": 1.0,
    "latent_wide": PUBLISHED_SPREAD,
    "latent_raw": None,
}


def recipes() -> dict[str, Recipe]:
    """Two autoencoders; models of the KL one's latents at four scales, of the VQ one's, of pixels.

    The autoencoder of a latent model is drawn, not trained, until `run` names its folder.
    """
    kl = {name: latent(FirstStage(autoencoder=SIZES, spread=s)) for name, s in SPREADS.items()}
    return {
        "kl": first_stage(AutoencoderTraining(autoencoder=SIZES, loss=LOSS)),
        "vq": first_stage(VQTraining(autoencoder=VQ, loss=LOSS)),
        **kl,
        "latent_vq": latent(FirstStage(autoencoder=VQ)),
        "pixels": Recipe(
            task=training(stage(PixelCodec(), network(PIXELS)), PIXELS),
            data=LargeDigits(side=SIDE, batch_size=64),
            optim=OPTIM,
            loop=LOOP,
        ),
    }


def first_stage(task: AutoencoderTraining | VQTraining) -> Recipe:
    """An autoencoder of the digits."""
    return Recipe(
        task=task,
        data=LargeDigits(side=SIDE, batch_size=32),
        optim=OptimConfig(lr=3e-3, warmup_images=1_000, weight_decay=0.0),
        loop=LoopConfig(images=60_000, ema_half_life=500),
    )


def latent(first: FirstStage) -> Recipe:
    """A model of the latents of this autoencoder, encoded once."""
    return Recipe(
        task=training(stage(FirstStageCodec(first=first), network(SHAPE)), SHAPE),
        data=Encoded(pictures=LargeDigits(side=SIDE), first=first, batch_size=64),
        optim=OPTIM,
        loop=LOOP,
    )


def stage(codec: CodecConfig, body: Buildable) -> StageConfig:
    """The paper's process and objective; the ends of beta are those of its LSUN configurations."""
    return StageConfig(
        codec=codec,
        conditioner=LabelsConfig(num_classes=10, dim=CLASS_WIDTH, drop=0.0),
        network=body,
        process=ScaledLinearChain(beta_start=0.0015, beta_end=0.0155),
        prediction=Eps(),
        objective=Mse(times=Discrete()),
        time_embed=ScaledTime(scale=1000.0, shift=-1.0),
    )


def training(config: StageConfig, shape: tuple[int, ...]) -> StageTraining:
    """Drawn by DDIM in 50 steps."""
    preview = Sampler(solver=Ddim(), grid=LeadingGrid(offset=1), steps=50)
    return StageTraining(stage=config, shape=shape, preview=preview)


def run(bench: Bench) -> list[Finding]:
    """Reconstruction; the scale of the latents; the cost of a step."""
    folders = {kind: latents.trained(bench, recipes()[kind], kind) for kind in ("kl", "vq")}
    plans = {
        name: [latent(FirstStage(autoencoder=SIZES, spread=s, folder=f)) for f in folders["kl"]]
        for name, s in SPREADS.items()
    }
    plans["latent_vq"] = [latent(FirstStage(autoencoder=VQ, folder=f)) for f in folders["vq"]]
    plans["pixels"] = [recipes()["pixels"]] * len(bench.seeds)
    in_latents = FirstStageCodec(first=FirstStage(autoencoder=SIZES, folder=folders["kl"][0]))
    return [
        latents.reconstruction(bench, {"kl": SIZES, "vq": VQ}, folders),
        latents.scale(bench, plans),
        latents.cost(bench, stage(PixelCodec(), unet(1)), stage(in_latents, unet(CHANNELS))),
    ]


def network(shape: tuple[int, int, int]) -> FlatConfig:
    """An MLP, which a processor trains in seconds."""
    return FlatConfig(shape=shape, width=128, depth=3, vector_dim=CLASS_WIDTH)


def unet(channels: int) -> UNetConfig:
    """The network whose cost is measured, for data of so many channels."""
    return digit_unet(in_channels=channels, out_channels=channels, vector_dim=CLASS_WIDTH)


STUDY = Study(
    title="Latent diffusion",
    paper="Rombach et al. 2022, arXiv 2112.10752; the codebook: van den Oord et al. 2017, "
    "arXiv 1711.00937",
    about="Most of what a picture's pixels say is not worth a diffusion model's work. An "
    "autoencoder is trained first, and the diffusion then runs on its smaller grid. Digits of "
    "scikit-learn, enlarged to 16 x 16 pixels, go through 4 x 4 latents of 4 channels.",
    run=run,
)
