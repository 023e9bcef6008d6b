"""Diffusion-based representation learning (Abstreiter, Mittal et al. 2021, arXiv 2105.14257).

A denoiser is told a code of the clean picture; what it needs to be told becomes a representation.
Digits of 8 x 8 pixels; codes of 8 numbers.
"""

from __future__ import annotations

from ldm.conditioning import CleanPictureConfig
from ldm.data.digits import Digits
from ldm.diffusion import (
    X0,
    Between,
    CodeHead,
    CodeKl,
    CodeL1,
    Eps,
    Mse,
    Sum,
    Uniform,
    V,
    VPCosine,
)
from ldm.diffusion.objective import Objective
from ldm.diffusion.times import Times
from ldm.networks.flat import FlatConfig, FlatEncoderConfig
from ldm.networks.represented import RepresentedConfig
from ldm.papers import codes
from ldm.papers.bench import Bench, Study
from ldm.papers.findings import Finding
from ldm.recipe import Recipe
from ldm.samplers import Sampler
from ldm.stage import PixelCodec, StageConfig
from ldm.tasks import StageTraining
from ldm.training import LoopConfig, OptimConfig

SHAPE = (1, 8, 8)
WIDTH = 8
PENALTY = 1e-5
"""lambda_z of the authors' configurations, for L1 and for KL."""


def recipes() -> dict[str, Recipe]:
    """E(x0) and E(x0, t) with L1, a Gaussian E(x0) with KL, two ranges of noise, an autoencoder.

    The autoencoder is the same model at the noisy end alone: there x_t says nothing, so that the
    code must say all that the picture is drawn from.
    """
    everywhere, denoise = Uniform(), Mse(space=Eps())
    return {
        "constant": coded(denoise, CodeL1(), everywhere),
        "timed": coded(denoise, CodeL1(), everywhere, timed=True),
        "variational": coded(denoise, CodeKl(), everywhere, gaussian=True),
        "coarse": coded(denoise, CodeL1(), Between(low=0.6, high=1.0)),
        "fine": coded(denoise, CodeL1(), Between(low=0.0, high=0.2)),
        "autoencoder": coded(Mse(space=X0()), CodeL1(), Between(low=1.0, high=1.0)),
    }


def coded(
    denoise: Objective,
    penalty: Objective,
    times: Times,
    *,
    timed: bool = False,
    gaussian: bool = False,
) -> Recipe:
    """A denoiser that is told a code, trained at these times."""
    stage = StageConfig(
        codec=PixelCodec(),
        conditioner=CleanPictureConfig(channels=1, side=8, noise=WIDTH if gaussian else None),
        network=network(timed=timed, said=2 * WIDTH if gaussian else WIDTH),
        process=VPCosine(),
        prediction=V(),
        objective=Sum(parts=((1.0, denoise), (PENALTY, penalty)), times=times),
        head=CodeHead(channels=1),
    )
    return Recipe(
        task=StageTraining(stage=stage, shape=SHAPE, preview=Sampler(steps=20)),
        data=Digits(),
        optim=OptimConfig(lr=2e-3, warmup_images=2_000),
        loop=LoopConfig(images=120_000, ema_half_life=2_000),
    )


def network(*, timed: bool, said: int) -> RepresentedConfig:
    """An MLP that is told what another MLP says: processors train them in seconds."""
    return RepresentedConfig(
        network=FlatConfig(shape=SHAPE, width=128, depth=3, vector_dim=WIDTH),
        encoder=FlatEncoderConfig(shape=SHAPE, out_dim=said, timed=timed),
    )


def run(bench: Bench) -> list[Finding]:
    """Probes with controls, probes by time, the shuffled code, two ranges of noise."""
    tasks = {
        name: [bench.train(plan, name, seed) for seed in bench.seeds]
        for name, plan in recipes().items()
    }
    tasks["random"] = [codes.untrained(recipes()["constant"], seed) for seed in bench.seeds]
    probed = codes.probe_all(tasks)
    return [
        codes.classes(probed, codes.pixels_probed()),
        codes.by_time(bench, tasks["timed"]),
        codes.shuffled(bench, tasks),
        codes.ranges(bench, tasks, probed),
    ]


STUDY = Study(
    title="Diffusion-based representation learning",
    paper="Abstreiter, Mittal et al. 2021, arXiv 2105.14257 (ICML 2023: Diffusion Based "
    "Representation Learning)",
    about="A denoiser is also told z = E(x0), a few numbers about the clean picture, and both are "
    "trained by denoising alone: z comes to hold what noise takes away. z = E(x0, t) may change "
    "with the amount of noise. Digits of scikit-learn; z has 8 numbers for 64 pixels; linear "
    "probes are fitted on training digits and scored on 360 others.",
    run=run,
)
