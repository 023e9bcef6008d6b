"""EDM's claims on solvers, where the denoiser is exact: a mixture around a hundred real digits.

Nothing is trained, so all error is the solver's. n samples; d dimensions
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ldm.data.toys import Mixture
from ldm.diffusion import (
    VE,
    Edm,
    Euler,
    Heun,
    KarrasGrid,
    Noise,
    SigmaFrame,
    UniformGrid,
    VPCosine,
    VPLinear,
    sample,
    trajectory,
)
from ldm.diffusion.grids import Grid
from ldm.diffusion.process import Process
from ldm.diffusion.sample import start_from
from ldm.diffusion.solvers import Solver
from ldm.papers.bench import Bench
from ldm.papers.digit_models import real
from ldm.papers.exact import Exact
from ldm.papers.findings import Finding, Measured, Rows, Table
from ldm.papers.measures import energy_distance, typical
from ldm.papers.steps import log_axis

SPREAD = 0.1
"""Deviation of each digit's Gaussian, in pixels of [-1, 1]."""
EVALUATIONS = (11, 19, 35, 79, 159)
TOLERANCE = SPREAD / 10
"""The error whose price in evaluations is asked, in pixels of [-1, 1]."""
BEST = "Heun, Karras grid"
RHOS = (1.0, 3.0, 5.0, 7.0, 10.0, 30.0)
CHURNS = (0.0, 0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True)
class Way:
    """How an ODE is solved; `cost` evaluations a step, the last evaluation always one."""

    process: Process
    solver: Solver
    grid: Grid
    cost: int = 1

    def steps(self, evaluations: int) -> int:
        """Grid times for this many evaluations."""
        return (evaluations - 1) // self.cost + 1


WAYS: dict[str, Way] = {
    BEST: Way(Edm(), Heun(), KarrasGrid(), 2),
    "Euler, Karras grid": Way(Edm(), Euler(), KarrasGrid()),
    "Euler in t, VP, even grid": Way(VPLinear(), Euler(), UniformGrid()),
    "Euler in t, VE, even grid": Way(VE(sigma_max=80.0), Euler(), UniformGrid()),
    "DDIM, cosine VP, even grid": Way(VPCosine(), Euler(frame=SigmaFrame()), UniformGrid()),
}


def mixture() -> Mixture:
    """A hundred training digits with Gaussian fuzz of deviation `SPREAD`."""
    digits = real("train").flatten(1)[::14][:100]
    means = tuple(tuple(row) for row in digits.tolist())
    return Mixture(means=means, weights=(0.01,) * 100, std=SPREAD)


def solved(way: Way, times: int, z: Tensor) -> Tensor:
    """x0 [n d] from standard normal z [n d], by the exact denoiser."""
    grid = way.grid(way.process, times)
    x = start_from(way.process, grid, z)
    return sample(Exact(mixture(), way.process), way.process, way.solver, grid, x, Noise([0]))


def fine(process: Process, z: Tensor, times: int) -> Tensor:
    """The ODE's solution from z, as well as it can be had."""
    return solved(Way(process, Heun(frame=SigmaFrame()), KarrasGrid()), times, z)


def normal(bench: Bench, seed: int, n: int) -> Tensor:
    """Standard normal [n 64], another for each seed."""
    first = seed * 1_000_000
    return Noise(range(first, first + bench.count(n))).normal((64,))


def strayed(error: Tensor) -> float:
    """The share of samples that ended at another digit: error [n d]."""
    return float((error.square().mean(1).sqrt() > 3 * SPREAD).double().mean())


# 1. Heun on the Karras grid at equal evaluations ------------------------------------------------


def solvers(bench: Bench) -> Finding:
    """Error against evaluations for five ways to solve."""
    found: dict[tuple[str, int], list[float]] = {}
    lost: dict[str, list[float]] = {}
    for seed in bench.seeds:
        z = normal(bench, seed, 64)
        for name, way in WAYS.items():
            truth = fine(way.process, z, bench.count(150, 50))
            for n in EVALUATIONS:
                error = solved(way, way.steps(n), z) - truth
                found.setdefault((name, n), []).append(typical(error))
                if n == 35:
                    lost.setdefault(name, []).append(strayed(error))
    measured = {key: Measured.over(values) for key, values in found.items()}
    prices = {name: priced([found[name, n] for n in EVALUATIONS]) for name in WAYS}
    rows: Rows = tuple(
        (name, *(measured[name, n] for n in EVALUATIONS), prices[name], Measured.over(lost[name]))
        for name in WAYS
    )
    others = {name: price for name, price in prices.items() if name != BEST}
    early = min((measured[name, 11] for name in others), key=lambda value: value.mean)
    return Finding(
        claim="Heun's method on the Karras grid needs fewer evaluations than Euler's on the "
        "grids of VP, VE and DDIM",
        published="the sampler of table 1 reaches the same FID with 7.3 (VP), 300 (VE) and 3.2 "
        "(DDIM) times fewer evaluations (arXiv 2206.00364, section 3)",
        measured=f"an error of {TOLERANCE} takes {prices[BEST]} evaluations, against "
        + ", ".join(f"{price} ({name})" for name, price in others.items())
        + f"; at 11, where the steps are long, Heun's error is {measured[BEST, 11]} and the best "
        f"of the others' {early}",
        holds=all(prices[BEST].below(price) for price in others.values()),
        table=Table(
            (
                "way",
                *(f"{n} evaluations" for n in EVALUATIONS),
                f"evaluations to {TOLERANCE}",
                "strayed, 35 evaluations",
            ),
            rows,
        ),
        figures=(bench.plot("solvers", lines(measured)), bench.plot("paths", paths(bench))),
        comment="Median over samples of the root mean square distance, in pixels of [-1, 1], to a "
        "fine solution from the same noise. A mean over samples decided nothing in a first run: a "
        "few that end at another digit (strayed) outweigh all others. Evaluations to an error are "
        "read off between the counts, linearly in both logarithms; a way that does not come so "
        f"far is given {EVALUATIONS[-1]}, which favours it. The denoiser is exact (a "
        "mixture of narrow Gaussians around a hundred digits), so all error is the solver's. "
        "Euler in sigma/alpha is DDIM. The second picture shows one pixel of eight samples on "
        "their way: nearly straight in sigma, bent in VP's time.",
    )


def priced(errors: Sequence[Sequence[float]]) -> Measured:
    """Evaluations to `TOLERANCE` from the errors at each count and seed: [counts][seeds]."""
    return Measured.over([needed(of_seed) for of_seed in zip(*errors, strict=True)])


def needed(errors: Sequence[float]) -> float:
    """Evaluations at which errors, one a count, first fall to `TOLERANCE`; at most the last."""
    counts = zip(pairwise(EVALUATIONS), pairwise(errors), strict=True)
    if errors[0] <= TOLERANCE:
        return float(EVALUATIONS[0])
    for (few, many), (high, low) in counts:
        if low <= TOLERANCE:
            share = math.log(high / TOLERANCE) / math.log(high / low)
            return float(few * (many / few) ** share)
    return float(EVALUATIONS[-1])


def lines(measured: dict[tuple[str, int], Measured]) -> Any:
    """Error over evaluations, a line for each way."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    for name in WAYS:
        axes.semilogy(EVALUATIONS, [measured[name, n].mean for n in EVALUATIONS], "o-", label=name)
    log_axis(axes, EVALUATIONS)
    axes.set_xlabel("evaluations of the denoiser")
    axes.set_ylabel("distance to the fine solution, median")
    axes.legend(fontsize=8)
    return figure


def paths(bench: Bench) -> Any:
    """One pixel of eight samples over the time of EDM and of VP."""
    from matplotlib.figure import Figure

    z, figure = normal(bench, 0, 16)[:8], Figure(figsize=(8, 3))
    for axes, (name, process) in zip(
        figure.subplots(1, 2), {"EDM": Edm(t_max=5.0), "VP": VPLinear()}.items(), strict=True
    ):
        way = Way(process, Heun(frame=SigmaFrame()), KarrasGrid())
        grid = way.grid(process, 60)
        x, denoise = start_from(process, grid, z), Exact(mixture(), process)
        walk = trajectory(denoise, process, way.solver, grid, x, Noise([0]))
        seen = [x, *(moment.x for moment in walk)][:-1]
        axes.plot(grid, torch.stack(seen)[:, :, 27], linewidth=0.8)
        axes.set_xlabel("t")
        axes.set_title(name)
    return figure


# 2. The exponent of the grid ---------------------------------------------------------------------


def exponents(bench: Bench) -> Finding:
    """Error at 35 evaluations over rho."""
    found: dict[float, list[float]] = {rho: [] for rho in RHOS}
    for seed in bench.seeds:
        z = normal(bench, seed, 32)
        truth = fine(Edm(), z, bench.count(150, 50))
        for rho in RHOS:
            way = Way(Edm(), Heun(), KarrasGrid(rho=rho), 2)
            found[rho].append(typical(solved(way, way.steps(35), z) - truth))
    measured = {rho: Measured.over(values) for rho, values in found.items()}
    return Finding(
        claim="Steps shortened towards the data: rho of 5 to 10 beats an even grid (rho = 1) and 3",
        published="rho = 7 in table 1; rho = 3 nearly equalises the truncation error of the "
        "steps, 5 to 10 gives better pictures (arXiv 2206.00364, appendix D.1)",
        measured=f"error at 35 evaluations {measured[7.0]} with rho = 7, {measured[3.0]} with "
        f"rho = 3, {measured[1.0]} with rho = 1 and {measured[30.0]} with rho = 30",
        holds=all(
            measured[good].below(measured[poor]) for good in (5.0, 7.0, 10.0) for poor in (1.0, 3.0)
        ),
        if_not="Where the denoiser is exact the best rho depends on how narrow the data "
        "are; the paper chose 7 by the samples, not by the error (its section 3 "
        "and appendix D.1).",
        table=Table(
            ("rho", "distance to the fine solution, median"),
            tuple((f"{rho:g}", measured[rho]) for rho in RHOS),
        ),
    )


# 3. Churn heals errors that were made before -----------------------------------------------------


def churn(bench: Bench) -> Finding:
    """Start from noise of half the deviation, and see what churn makes of it."""
    n, found = bench.count(1_000, 20), dict[float, list[float]]()
    for seed in bench.seeds:
        z, data = normal(bench, seed, 200), truth_of(seed, n)
        for amount in CHURNS:
            way = Way(Edm(), Heun(churn=amount, churn_range=(0.05, 50.0)), KarrasGrid())
            drawn = churned(way, z / 2, seed)
            found.setdefault(amount, []).append(energy_distance(drawn, data))
    measured = {amount: Measured.over(values) for amount, values in found.items()}
    best = min(CHURNS, key=lambda amount: measured[amount].mean)
    return Finding(
        claim="Churn corrects errors made earlier on the way",
        published="no single figure; S_churn above 0 improves the published VP, VE and ImageNet "
        "models, and not EDM's own of CIFAR-10 (arXiv 2206.00364, section 4, figures 4 and 5)",
        measured=f"from a start with half of the right deviation the energy distance to the data "
        f"is {measured[0.0]} without churn and {measured[best]} with gamma = {best:g}",
        holds=measured[best].below(measured[0.0]),
        table=Table(
            ("gamma a step (40 steps)", "energy distance to the data"),
            tuple((f"{amount:g}", measured[amount]) for amount in CHURNS),
        ),
        comment="The denoiser is exact and the start is wrong on purpose: the ODE carries the "
        "error to the end, fresh noise forgets it.",
    )


def churned(way: Way, z: Tensor, seed: int) -> Tensor:
    """x0 [n d] from z [n d] by 40 stochastic steps, each sample with its own noise."""
    grid = way.grid(way.process, 40)
    noise = Noise(range(seed * 1_000_000 + 500_000, seed * 1_000_000 + 500_000 + len(z)))
    x = start_from(way.process, grid, z)
    return sample(Exact(mixture(), way.process), way.process, way.solver, grid, x, noise)


def truth_of(seed: int, n: int) -> Tensor:
    """Draws [n d] of the mixture itself."""
    return dataclasses.replace(mixture(), n=n, seed=seed).draw()[0]
