"""Variational diffusion models (Kingma et al. 2021, arXiv 2107.00630) on 8 x 8 digits of 17 levels.

Three models: a schedule linear in log-SNR with learned ends, with and without Fourier features, and
a schedule whose interior learns the variance of the loss.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ldm.conditioning import UnconditionalConfig
from ldm.conditioning.cond import Cond
from ldm.data.digits import Digits
from ldm.diffusion import (
    Ancestral,
    Denoiser,
    Elbo,
    LearnedLinearConfig,
    LogSnrTime,
    MonotoneConfig,
    Noise,
    SoftmaxDecoder,
    UniformGrid,
    bits_per_dim,
    start,
    trajectory,
)
from ldm.diffusion.bounds import continuous_bound
from ldm.diffusion.finite import finite_bound
from ldm.diffusion.learned import LearnedConfig
from ldm.diffusion.residual import EpsResidual
from ldm.learned_schedule import ScheduleTraining
from ldm.networks.waves import WavesConfig
from ldm.papers.bench import Bench, Study
from ldm.papers.findings import Finding, Measured, Table
from ldm.papers.schedules import gaussian_finding, schedule_findings
from ldm.papers.small import digit_unet
from ldm.papers.steps import log_axis
from ldm.recipe import Recipe
from ldm.samplers import Sampler
from ldm.stage import PixelCodec, StageConfig
from ldm.tasks import StageTraining
from ldm.training import LoopConfig, OptimConfig

SHAPE, DIMS = (1, 8, 8), 64
DECODER = SoftmaxDecoder(levels=17)
WAVES = (3, 4)
"""A bin of 17 levels in [-1, 1] is 2^-3 wide: 3 and 4 are to it what 7 and 8 are to 256 levels."""
LINEAR = LearnedLinearConfig(gamma_min=-8.0, gamma_max=5.0)
SAMPLER = Sampler(solver=Ancestral(), grid=UniformGrid(), steps=100)
STEPS = (5, 10, 20, 40, 80)


def recipes() -> dict[str, Recipe]:
    """Fourier features, none, and the learned interior (with Fourier features)."""
    interior = MonotoneConfig(gamma_min=-8.0, gamma_max=5.0, hidden=256)
    return {
        "fourier": recipe(StageTraining(stage=stage(LINEAR, WAVES), preview=SAMPLER, shape=SHAPE)),
        "plain": recipe(StageTraining(stage=stage(LINEAR, ()), preview=SAMPLER, shape=SHAPE)),
        "interior": recipe(
            ScheduleTraining(stage=stage(interior, WAVES), preview=SAMPLER, shape=SHAPE)
        ),
    }


def stage(process: LearnedConfig, waves: tuple[int, ...]) -> StageConfig:
    """VDM's parts around a small U-Net, which sees the waves of each pixel where there are some."""
    base = digit_unet(in_channels=1 + 2 * len(waves), channels=(16, 32), attention_levels=())
    return StageConfig(
        codec=PixelCodec(),
        conditioner=UnconditionalConfig(),
        network=WavesConfig(base=base, exponents=waves) if waves else base,
        process=process,
        prediction=EpsResidual(),
        objective=Elbo(decoder=DECODER),
        time_embed=LogSnrTime(),
    )


def recipe(task: StageTraining | ScheduleTraining) -> Recipe:
    """The same data and length for every variant."""
    return Recipe(
        task=task,
        data=Digits(batch_size=32),
        optim=OptimConfig(lr=2e-3, warmup_images=2_000),
        loop=LoopConfig(images=64_000, ema_half_life=1_000),
    )


def run(bench: Bench) -> list[Finding]:
    """Schedules, Fourier features, numbers of steps, and a case that is known exactly."""
    denoisers = {
        name: [bench.train(plan, name, seed).stage.denoiser for seed in bench.seeds]
        for name, plan in recipes().items()
    }
    return [
        *schedule_findings(bench, denoisers["interior"], held_out(bench)),
        fourier(bench, denoisers),
        steps(bench, denoisers["fourier"]),
        gaussian_finding(bench),
    ]


def held_out(bench: Bench) -> Tensor:
    """Test digits [n 1 8 8] in [-1, 1]."""
    stream = Digits(part="test").open()
    x0: Tensor = PixelCodec().build(None).encode(stream.whole)
    return x0[: bench.count(len(x0), 8)]


def bits(denoiser: Denoiser, x0: Tensor, num_steps: int | None, times: int = 64) -> float:
    """The bound in bits a dimension with this many steps, None for continuous time."""
    noise, denoise, process = Noise(range(len(x0))), denoiser.bind(Cond()), denoiser.process
    with torch.no_grad():
        found = (
            continuous_bound(denoise, process, x0, times, noise, decoder=DECODER)
            if num_steps is None
            else finite_bound(denoise, process, x0, num_steps, noise, decoder=DECODER)
        )
    return float(bits_per_dim(found.total, DIMS).mean())


def fourier(bench: Bench, denoisers: dict[str, list[Any]]) -> Finding:
    """Claim (c)."""
    x0 = held_out(bench)
    found = {
        name: Measured.over([bits(denoiser, x0, None) for denoiser in runs])
        for name, runs in denoisers.items()
    }
    names = {
        "fourier": "Fourier features",
        "plain": "none",
        "interior": "Fourier features, learned interior",
    }
    return Finding(
        claim="Fourier features of the input lower the bits a dimension",
        published="CIFAR-10: clearly lower in figure 5 of arXiv 2107.00630; 2.65 bits a "
        "dimension with them (table 1)",
        measured=f"{found['fourier']} bits a dimension on held-out digits with them, "
        f"{found['plain']} without",
        holds=found["fourier"].below(found["plain"]),
        if_not="The gain was found at 8 bits a channel, in whose finest ones the waves show "
        "structure; digits of 17 levels have none so fine.",
        table=Table(
            ("model", "bits a dimension"), tuple((names[name], found[name]) for name in found)
        ),
        figures=(bench.pictures("chains", chains(denoisers["fourier"][0], x0), 8, enlarge=4),),
        comment="Digits have 17 levels (4.09 bits a pixel at most), so the waves are those of a "
        "bin 16 times as wide. Above: held-out digits noised more and more; "
        "below: the way back from noise.",
    )


def steps(bench: Bench, denoisers: list[Denoiser]) -> Finding:
    """Claim (d)."""
    x0 = held_out(bench)
    found = {n: Measured.over([bits(d, x0, n) for d in denoisers]) for n in STEPS}
    limit = Measured.over([bits(d, x0, None) for d in denoisers])
    values = [found[n].mean for n in STEPS]
    falls = all(fewer > more for fewer, more in pairwise(values))
    rows = (*((str(n), found[n]) for n in STEPS), ("continuous", limit))
    return Finding(
        claim="The bound of T steps falls towards the continuous one as T grows",
        published="CIFAR-10: 2.67 bits a dimension at T = 1000, 2.65 in continuous time (arXiv "
        "2107.00630, table 2)",
        measured=f"{found[STEPS[0]]} bits a dimension at T = {STEPS[0]}, {found[STEPS[-1]]} at "
        f"T = {STEPS[-1]}, {limit} in continuous time",
        holds=falls and found[STEPS[0]].mean - limit.mean > 4 * abs(values[-1] - limit.mean),
        table=Table(("steps T", "bits a dimension"), rows),
        figures=(bench.plot("steps", step_figure(found, limit)),),
        comment="One model, trained in continuous time, evaluated with each T. It holds if the "
        "bound falls at each doubling and the last gap to the limit is below a quarter of "
        "the first.",
    )


@torch.no_grad()
def chains(denoiser: Denoiser, x0: Tensor) -> Tensor:
    """Eight digits noised in five rows, then five rows of sampling: uint8 [80 1 8 8]."""
    process, noise = denoiser.process, Noise(range(8))
    rows = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        t = torch.full((8,), share, dtype=torch.float64)
        rows.append(process.perturb(x0[:8], t, noise.normal(SHAPE)))
    times = SAMPLER.times(process)
    x = start(process, times, noise, SHAPE)
    rows.append(x)
    seen = (24, 49, 74, 99)
    for moment in trajectory(denoiser.bind(Cond()), process, SAMPLER.solver, times, x, noise):
        if moment.step in seen:
            rows.append(moment.x)
    shown = (torch.cat(rows).clamp(-1, 1) + 1) * 127.5
    return shown.round().to(torch.uint8)


def step_figure(found: dict[int, Measured], limit: Measured) -> Any:
    """Bits over T, and the limit."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    means = [value.mean for value in found.values()]
    errors = [value.error or 0.0 for value in found.values()]
    axes.errorbar(list(found), means, errors, marker="o", label="T steps")
    axes.axhline(limit.mean, linestyle="--", color="grey", label="continuous")
    axes.set(xlabel="T", ylabel="bits a dimension")
    log_axis(axes, list(found))
    axes.legend()
    return figure


STUDY = Study(
    title="Variational diffusion models",
    paper="Kingma et al. 2021, arXiv 2107.00630",
    about="The bound on the likelihood in continuous time depends on the schedule's two ends "
    "alone, so these are learned from it, and the interior from its variance. 8 x 8 digits with "
    "their 17 levels kept, a U-Net that sees waves of each pixel, and a Gaussian known exactly.",
    run=run,
)
