"""DALL-E 2, unCLIP (Ramesh et al. 2022, arXiv 2204.06125): caption, embedding, picture.

A small CLIP learns on captioned shapes of 16 x 16 pixels; two priors go from its text to its image
embedding, and a decoder from there to pictures. Pictures are judged by their nearest neighbour in
the finite world of shapes; combinations of attributes that were never trained on are asked for.
"""

from __future__ import annotations

from ldm.ar_prior import ArPriorTraining
from ldm.conditioning import TextConditionerConfig, UnclipConditionerConfig
from ldm.conditioning.clip_training import ClipTaskConfig
from ldm.data.shapes import SIDE, Shapes
from ldm.described import Described, FrozenClip
from ldm.diffusion import X0, Antithetic, Mse, VPCosine
from ldm.networks.code_prior import CodePriorConfig
from ldm.networks.prior import PriorConfig
from ldm.papers import unclip_pictures, unclip_priors
from ldm.papers.bench import Bench, Study
from ldm.papers.findings import Finding
from ldm.papers.shape_samples import SHAPE, TEXT, TIMES, shape_dit
from ldm.papers.unclip_parts import WIDTH, Parts, trained
from ldm.recipe import Recipe
from ldm.stage import EmbeddingCodec, PixelCodec, StageConfig
from ldm.tasks import ClipTraining, StageTraining
from ldm.training import LoopConfig, OptimConfig

CLIP = ClipTaskConfig(
    embed_dim=WIDTH,
    image_size=SIDE,
    patch_size=2,
    vision_width=64,
    vision_layers=2,
    vision_head_width=32,
    text=TEXT,
    min_scale=1.0,
    shift=0.0,
)
TEXT_CONDITION = TextConditionerConfig(
    text_dim=TEXT.width, embed_dim=WIDTH, context_length=TEXT.context_length
)
PRIOR = PriorConfig(
    embedding_dim=WIDTH,
    vector_dim=WIDTH,
    context_dim=TEXT.width,
    context_length=TEXT.context_length,
    width=64,
    depth=2,
    head_dim=32,
    ff_mult=2,
)


def recipes(clip_folder: str | None = None) -> dict[str, Recipe]:
    """The CLIP, two priors and the decoder; without the CLIP's folder the last three only run."""
    data = Described(
        data=Shapes(terse=0.25), clip=FrozenClip(clip=CLIP, folder=clip_folder), batch_size=32
    )
    return {
        "clip": Recipe(
            task=ClipTraining(clip=CLIP),
            data=Shapes(terse=0.25, batch_size=128),
            optim=OptimConfig(lr=2e-3, betas=(0.9, 0.98), weight_decay=0.1, warmup_images=2_000),
            loop=LoopConfig(images=200_000, ema_half_life=2_000),
        ),
        "diffusion_prior": Recipe(
            task=StageTraining(
                stage=StageConfig(
                    codec=EmbeddingCodec(width=WIDTH),
                    conditioner=TEXT_CONDITION,
                    network=PRIOR,
                    process=VPCosine(),
                    prediction=X0(),
                    objective=Mse(times=Antithetic()),
                ),
                shape=(WIDTH,),
            ),
            data=data,
            optim=OptimConfig(lr=2e-3, weight_decay=0.06, warmup_images=1_000),
            loop=LoopConfig(images=120_000, ema_half_life=2_000),
        ),
        "autoregressive_prior": Recipe(
            task=ArPriorTraining(
                network=CodePriorConfig(trunk=PRIOR, num_codes=12), conditioner=TEXT_CONDITION
            ),
            data=data,
            optim=OptimConfig(lr=2e-3, weight_decay=0.06, warmup_images=1_000),
            loop=LoopConfig(images=120_000, ema_half_life=2_000),
        ),
        "decoder": Recipe(
            task=StageTraining(
                stage=StageConfig(
                    codec=PixelCodec(),
                    conditioner=UnclipConditionerConfig(
                        embed_dim=WIDTH,
                        text_dim=TEXT.width,
                        context_length=TEXT.context_length,
                        context_dim=TEXT.width,
                    ),
                    network=shape_dit(vector_dim=WIDTH),
                    process=VPCosine(),
                    prediction=X0(),
                    objective=Mse(times=TIMES),
                    multiple=4,
                ),
                shape=SHAPE,
            ),
            data=data,
            optim=OptimConfig(lr=2e-3, warmup_images=1_000),
            loop=LoopConfig(images=300_000, ema_half_life=4_000),
        ),
    }


def run(bench: Bench) -> list[Finding]:
    """The priors, then what a decoder makes of embeddings."""
    folder = bench.runs / f"clip-x{bench.scale:g}"
    bench.train(recipes()["clip"], "clip").save(folder)
    plans = recipes(str(folder))
    parts: list[Parts] = [trained(bench, plans, seed) for seed in bench.seeds]
    return [*unclip_priors.findings(bench, parts), *unclip_pictures.findings(bench, parts)]


STUDY = Study(
    title="DALL-E 2",
    paper="Ramesh et al. 2022, arXiv 2204.06125",
    about="A prior draws the CLIP embedding of a picture from a caption, a decoder draws pictures "
    "from the embedding. What the embedding holds can then be kept, mixed or changed by words. "
    "One CLIP is trained; priors and decoder are trained anew under each seed. Departures: "
    "embeddings of 32 numbers, a decoder over patches that predicts x0, no upsamplers.",
    run=run,
)
