"""Score-SDE (Song et al. 2021, arXiv 2011.13456): one frame for diffusion, and what it gives.

Most claims are tested where the score is known; bits, encodings and inverse problems need networks,
which are small and see 8 x 8 digits.
"""

from __future__ import annotations

from ldm.conditioning import UnconditionalConfig
from ldm.data.digits import Digits
from ldm.data.enlarged import ColouredDigits
from ldm.data.stream import Source
from ldm.dequantise import DequantisedCodec
from ldm.diffusion import Eps, Mse, Process, SubVP, VPLinear
from ldm.networks.flat import FlatConfig
from ldm.networks.unet import UNetConfig
from ldm.papers import sde_digits, sde_exact
from ldm.papers.bench import Bench, Study
from ldm.papers.findings import Finding
from ldm.papers.small import digit_unet
from ldm.recipe import Recipe
from ldm.stage import CodecConfig, PixelCodec, StageConfig
from ldm.tasks import StageTraining
from ldm.training import LoopConfig, OptimConfig

EARLY = 1e-5  # where training and likelihoods begin, appendix C


def recipes() -> dict[str, Recipe]:
    """Digits under VP and sub-VP, alike but for the process, and coloured digits under VP."""
    vp, levels = VPLinear(t_min=EARLY), DequantisedCodec(levels=17)
    mlp = FlatConfig(shape=(1, 8, 8), width=192, depth=3)
    unet = digit_unet(in_channels=3, out_channels=3, channels=(16, 32), attention_levels=())
    digits = Digits(batch_size=128)
    coloured = ColouredDigits(side=8, copies=4, batch_size=32)
    return {
        "vp": plan(vp, levels, mlp, 1, digits, 240_000),
        "sub-vp": plan(SubVP(t_min=EARLY), levels, mlp, 1, digits, 240_000),
        # An MLP of these pictures errs so far at high noise that their colours leave all range.
        "colour": plan(vp, PixelCodec(), unet, 3, coloured, 64_000),
    }


def plan(
    process: Process,
    codec: CodecConfig,
    network: FlatConfig | UNetConfig,
    channels: int,
    data: Source,
    images: int,
) -> Recipe:
    """A training run on pictures of 8 x 8 pixels."""
    return Recipe(
        task=StageTraining(
            stage=StageConfig(
                codec=codec,
                conditioner=UnconditionalConfig(),
                network=network,
                process=process,
                prediction=Eps(),
                objective=Mse(),
            ),
            shape=(channels, 8, 8),
        ),
        data=data,
        optim=OptimConfig(lr=2e-3, warmup_images=images // 20),
        loop=LoopConfig(images=images, ema_half_life=images // 20),
    )


def run(bench: Bench) -> list[Finding]:
    """First with the exact score, then with networks."""
    return [
        sde_exact.three_sdes(bench),
        sde_exact.flow(bench),
        sde_exact.likelihood(bench),
        *sde_digits.digits(bench, recipes()),
    ]


STUDY = Study(
    title="Score-SDE",
    paper="Song et al. 2021, arXiv 2011.13456",
    about="Noise added in continuous time is an SDE; its reverse needs only the score, has an ODE "
    "with the same marginals, and so exact likelihoods and encodings. Three SDEs are taken to a "
    "mixture of Gaussians whose score is known, and to small networks on 8 x 8 digits.",
    run=run,
)
