"""The four stages of a diffusion course: pixels, pixels from pixels, latents, latents from pixels.

One U-Net, one process and one sampler throughout; what changes is the codec and the conditioner.
"""

from __future__ import annotations

from configs.papers.latent_diffusion import FACTOR, SHAPE, SIDE, SIZES
from configs.papers.latent_diffusion import recipes as autoencoders
from ldm.conditioning import UnconditionalConfig
from ldm.conditioning.edges import EdgesConfig
from ldm.data.digits import Digits
from ldm.data.enlarged import LargeDigits
from ldm.data.stream import Source
from ldm.diffusion import Mse, V, VPCosine
from ldm.first_stage import Encoded, FirstStage, FirstStageCodec
from ldm.papers import stages
from ldm.papers.bench import Bench, Study
from ldm.papers.findings import Finding
from ldm.papers.latents import trained
from ldm.papers.small import digit_unet
from ldm.recipe import Recipe
from ldm.samplers import Sampler
from ldm.stage import Buildable, CodecConfig, PixelCodec, StageConfig
from ldm.tasks import StageTraining
from ldm.training import LoopConfig, OptimConfig

PIXELS = (1, 8, 8)


def recipes() -> dict[str, Recipe]:
    """The four stages; the autoencoder of the last two is the KL one of `latent_diffusion`."""
    return four(None)


def four(folder: str | None) -> dict[str, Recipe]:
    """The four stages with the trained autoencoder of this folder (None: one that is drawn)."""
    first = FirstStage(autoencoder=SIZES, folder=folder)
    codec, encoded = (
        FirstStageCodec(first=first),
        Encoded(pictures=LargeDigits(side=SIDE), first=first),
    )
    edges = EdgesConfig(channels=1, side=8)
    squares = EdgesConfig(channels=1, side=SIDE, shrink=FACTOR)
    return {
        "pixel": recipe(Digits(), PixelCodec(), UnconditionalConfig(), PIXELS),
        "pixel_from_edges": recipe(Digits(), PixelCodec(), edges, PIXELS, concat=1),
        "latent": recipe(encoded, codec, UnconditionalConfig(), SHAPE),
        "latent_from_edges": recipe(encoded, codec, squares, SHAPE, concat=FACTOR**2),
    }


def recipe(
    data: Source,
    codec: CodecConfig,
    conditioner: Buildable,
    shape: tuple[int, ...],
    concat: int = 0,
) -> Recipe:
    """One stage."""
    network = digit_unet(
        in_channels=shape[0], out_channels=shape[0], channels=(16, 32), concat_channels=concat
    )
    config = StageConfig(
        codec=codec,
        conditioner=conditioner,
        network=network,
        process=VPCosine(),
        prediction=V(),
        objective=Mse(),
        multiple=2,
    )
    return Recipe(
        task=StageTraining(stage=config, shape=shape, preview=Sampler(steps=20)),
        data=data,
        optim=OptimConfig(lr=2e-3, warmup_images=1_000),
        loop=LoopConfig(images=80_000, ema_half_life=1_000),
    )


def run(bench: Bench) -> list[Finding]:
    """A picture and a criterion for each stage."""
    folders = trained(bench, autoencoders()["kl"], "autoencoder")
    plans = [four(folder) for folder in folders]
    tasks = {
        name: [bench.train(plan[name], name, s) for plan, s in zip(plans, bench.seeds, strict=True)]
        for name in plans[0]
    }
    seen, unseen = Digits().whole(), Digits(part="test").whole()
    large, large_unseen = (LargeDigits(side=SIDE, part=part).whole() for part in ("train", "test"))
    return [
        stages.drawn(bench, tasks["pixel"], seen, unseen, "pixel"),
        stages.translated(bench, tasks["pixel_from_edges"], unseen, "pixel_from_edges"),
        stages.drawn(bench, tasks["latent"], large, large_unseen, "latent"),
        stages.translated(bench, tasks["latent_from_edges"], large_unseen, "latent_from_edges"),
    ]


STUDY = Study(
    title="The four stages of a diffusion course",
    paper="The order of the public course DiffusionFastForward; parts after Ho et al. 2020, "
    "arXiv 2006.11239, Saharia et al. 2022 (Palette), arXiv 2111.05826, and Rombach et al. 2022, "
    "arXiv 2112.10752",
    about="Diffusion of pixels; of pixels given another picture (here: the digit given its "
    "outlines); of latents; of latents given another picture. One network, process, objective "
    "and sampler; the codec and the conditioner change.",
    run=run,
)
