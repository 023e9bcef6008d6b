"""Noise schedules with the same ends: what VDM's bound costs, and how it varies, on each.

n pictures; b samples
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldm.conditioning.cond import Cond
from ldm.diffusion import Denoiser, GaussianDecoder, Noise, Process, Uniform, normal_like
from ldm.diffusion.bounds import continuous_bound
from ldm.diffusion.objective import Drawn
from ldm.diffusion.prediction import Denoised
from ldm.diffusion.process import logsnr_to_level
from ldm.diffusion.variational import diffusion_bits
from ldm.papers.bench import Bench
from ldm.papers.findings import Finding, Measured, Table

Shape = Callable[[Tensor, float, float], Tensor]  # (t, gamma_min, gamma_max) -> gamma, [b] each

COORDINATES = 64
"""Independent coordinates of an item of the known Gaussian: as many draws of one dimension."""


@dataclass(frozen=True)
class Between(Process):
    """gamma = -log SNR from `low` to `high` in a given shape. 2107.00630 eq. 3-4."""

    low: float
    high: float
    shape: Shape
    t_min: float = 0.0
    t_max: float = 1.0

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return logsnr_to_level(-self.shape(t, self.low, self.high))


def straight(t: Tensor, low: float, high: float) -> Tensor:
    """log-SNR linear in t."""
    return low + (high - low) * t


def cosine(t: Tensor, low: float, high: float) -> Tensor:
    """alpha = cos(u pi/2), u linear in t: gamma = 2 log tan(u pi/2). 2102.09672 eq. 17."""
    first, last = (2 / math.pi * math.atan(math.exp(end / 2)) for end in (low, high))
    return 2 * torch.tan((first + (last - first) * t) * math.pi / 2).log()


def bent(t: Tensor, low: float, high: float) -> Tensor:
    """Half of the way quadratic in t."""
    return low + (high - low) * (t + t * t) / 2


SHAPES: dict[str, Shape] = {"log-SNR linear": straight, "alpha-cosine": cosine}


def schedules_of(denoiser: Denoiser) -> dict[str, Denoiser]:
    """One network under its own learned schedule and under others between the same ends."""
    own = denoiser.process
    ends = -own.logsnr(torch.tensor([own.t_min, own.t_max], dtype=torch.float64)).detach()
    low, high = ends.tolist()
    others = {name: Between(low, high, shape) for name, shape in SHAPES.items()}
    return {"learned": denoiser} | {name: under(denoiser, p) for name, p in others.items()}


def under(denoiser: Denoiser, process: Process) -> Denoiser:
    """The same network, reading another process."""
    return Denoiser(
        denoiser.network,
        process,
        denoiser.prediction,
        input_scale=denoiser.input_scale,
        time_embed=denoiser.time_embed,
        head=denoiser.head,
    ).eval()


@torch.no_grad()
def diffusion_draws(denoiser: Denoiser, x0: Tensor, rounds: int, seed: int) -> Tensor:
    """Draws of the diffusion term in bits a dimension, t uniform: x0 [n ...] -> [rounds * n]."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(rounds):
        t, _weight = Uniform()(denoiser.process, len(x0), generator)
        drawn = Drawn(denoiser, Cond(), x0, normal_like(x0, generator), t)
        found.append(diffusion_bits(drawn))
    return torch.cat(found)


def schedule_findings(bench: Bench, denoisers: list[Denoiser], x0: Tensor) -> list[Finding]:
    """(a) the mean does not depend on the interior; (b) its variance does."""
    rounds = bench.count(40, 2)
    draws: dict[str, list[Tensor]] = {}
    for seed, denoiser in zip(bench.seeds, denoisers, strict=True):
        for name, each in schedules_of(denoiser).items():
            draws.setdefault(name, []).append(diffusion_draws(each, x0, rounds, seed))
    means = {name: pooled(runs) for name, runs in draws.items()}
    spread = {name: Measured.over([float(v.var()) for v in runs]) for name, runs in draws.items()}
    rows = tuple((name, means[name], spread[name]) for name in draws)
    table = Table(("schedule", "diffusion loss, bits a dimension", "variance of one draw"), rows)
    figure = bench.plot("schedules", schedule_figure(denoisers[0]))
    return [invariance(means, table), variance(spread, figure)]


def pooled(runs: list[Tensor]) -> Measured:
    """The mean over the draws of all runs, its error from the draws themselves."""
    error = math.sqrt(sum(float(run.var()) / len(run) for run in runs)) / len(runs)
    mean = sum(float(run.mean()) for run in runs) / len(runs)
    return Measured(mean, error, sum(len(run) for run in runs))


def invariance(means: dict[str, Measured], table: Table) -> Finding:
    """Claim (a)."""
    values = list(means.values())
    gaps = [
        abs(a.mean - b.mean) / math.hypot(a.error or 0.0, b.error or 0.0)
        for i, a in enumerate(values)
        for b in values[:i]
    ]
    said = ", ".join(f"{value} ({name})" for name, value in means.items())
    return Finding(
        claim="The continuous loss does not depend on the schedule between its ends",
        published="an identity, eq. 18 of arXiv 2107.00630; in figure 4 all schedules give "
        "2.66 bits a dimension",
        measured=f"one network under three schedules with the same ends: {said} bits a dimension; "
        f"the largest gap is {max(gaps):.1f} standard errors",
        holds=max(gaps) < 3,
        table=table,
        comment="Errors are those of the draws (held-out digits, uniform times), pooled over "
        "seeds; it holds if no two differ by three of them.",
    )


def variance(spread: dict[str, Measured], figure: str) -> Finding:
    """Claim (b)."""
    learned, straight_line = spread["learned"], spread["log-SNR linear"]
    return Finding(
        claim="A schedule that learns the variance of the loss lowers it",
        published="CIFAR-10: variance 0.53 learned, 6.35 linear in log-SNR, 31.1 cosine (arXiv "
        "2107.00630, figure 4b)",
        measured=f"the variance of one draw is {learned} with the learned interior, "
        f"{straight_line} linear in log-SNR and {spread['alpha-cosine']} with the cosine, the "
        "same network and ends",
        holds=learned.below(straight_line),
        if_not="A short training leaves the learned interior near the straight line.",
        figures=(figure,),
        comment="The interior is a second player of the training loop with the square of the loss "
        "as its own; the network and the ends follow the bound.",
    )


def schedule_figure(denoiser: Denoiser) -> Any:
    """gamma over t for each schedule."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    for name, each in schedules_of(denoiser).items():
        axes.plot(t, -each.process.logsnr(t).detach(), label=name)
    axes.set(xlabel="t", ylabel="gamma = -log SNR")
    axes.legend(fontsize=8)
    return figure


@dataclass(frozen=True)
class ExactGaussian:
    """The denoiser of N(0, std^2) under any process."""

    process: Process
    std: float

    def __call__(self, x: Tensor, t: Tensor) -> Denoised:
        """x [b d], t [b]."""
        alpha, sigma = self.process.at(t, x)
        shrunk = x / ((alpha * self.std).square() + sigma.square())
        return Denoised(alpha * self.std**2 * shrunk, sigma * shrunk)


def gaussian_finding(bench: Bench, std: float = 0.5) -> Finding:
    """Claim (e): the bound of the exact denoiser is the negative log-likelihood."""
    n, low, high = bench.count(400, 20), -9.0, 7.0
    gaps = {}
    for number, (name, shape) in enumerate({**SHAPES, "half quadratic": bent}.items()):
        process = Between(low, high, shape)
        x0 = std * Noise(range(n)).normal((COORDINATES,), torch.float64)
        noise = Noise(range((number + 1) * n, (number + 2) * n))
        exact = ExactGaussian(process, std)
        bound = continuous_bound(exact, process, x0, 200, noise, decoder=GaussianDecoder())
        truth = -torch.distributions.Normal(0.0, std).log_prob(x0).sum(1)
        gap = (bound.total - truth) / (COORDINATES * math.log(2))
        gaps[name] = Measured.over(gap.tolist())
    worst = max(gaps.values(), key=lambda gap: abs(gap.mean))
    return Finding(
        claim="With the exact denoiser the bound is the negative log-likelihood, at any schedule",
        published="section 5 and appendix E of arXiv 2107.00630, an identity up to the two ends",
        measured=f"on N(0, {std:g}^2) the bound exceeds the negative log-likelihood by {worst} "
        "bits a coordinate at worst, over three schedules",
        holds=all(abs(gap.mean) < 3 * (gap.error or 0.0) + 2e-3 for gap in gaps.values()),
        table=Table(("schedule", "bound less truth, bits a coordinate"), tuple(gaps.items())),
        comment=f"Gamma from {low:g} to {high:g}, the integral by 200 midpoints. It holds within "
        "three standard errors and 0.002 bits, which the two ends cost.",
    )
