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
from ldm.papers import sde_digits, sde_exact
from ldm.papers.bench import Bench, Study
from ldm.papers.findings import Finding
from ldm.recipe import Recipe
from ldm.stage import CodecConfig, PixelCodec, StageConfig
from ldm.tasks import StageTraining
from ldm.training import LoopConfig, OptimConfig

EARLY = 1e-5  # where training and likelihoods begin, appendix C


def recipes() -> dict[str, Recipe]:
    """Digits under VP and sub-VP, alike but for the process, and coloured digits under VP."""
    levels, grey = DequantisedCodec(levels=17), (1, 8, 8)
    digits = Digits(batch_size=128)
    return {
        "vp": plan(VPLinear(t_min=EARLY), levels, grey, digits, 80_000),
        "sub-vp": plan(SubVP(t_min=EARLY), levels, grey, digits, 80_000),
        "colour": plan(
            VPLinear(t_min=EARLY), PixelCodec(), (3, 8, 8),
            ColouredDigits(side=8, copies=4, batch_size=128), 60_000,
        ),
    }  # fmt: skip


def plan(
    process: Process, codec: CodecConfig, shape: tuple[int, int, int], data: Source, images: int
) -> Recipe:
    """A training run."""
    return Recipe(
        task=StageTraining(
            stage=StageConfig(
                codec=codec,
                conditioner=UnconditionalConfig(),
                network=FlatConfig(shape=shape, width=192, depth=3),
                process=process,
                prediction=Eps(),
                objective=Mse(),
            ),
            shape=shape,
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
