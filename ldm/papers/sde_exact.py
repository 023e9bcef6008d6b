"""Score-SDE where the score is known: three SDEs, the flow ODE, likelihoods, correctors.

n points; a cloud is one item [1 n 2], so that a seed serves all of it and the corrector's norms are
averaged over the cloud, as the paper's are over the batch.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from ldm.data.toys import Mixture
from ldm.diffusion import (
    VE,
    AdaptiveRk45,
    ExactTrace,
    FlowLikelihood,
    Langevin,
    Noise,
    PredictorCorrector,
    Process,
    RademacherTrace,
    ReverseDiffusion,
    SnrStep,
    Solver,
    SubVP,
    UniformGrid,
    VPLinear,
    sample,
    start,
    trajectory,
)
from ldm.papers.bench import Bench
from ldm.papers.clouds import Panel, sheet
from ldm.papers.exact import Exact
from ldm.papers.findings import Cell, Finding, Measured, Rows, Table
from ldm.papers.measures import energy_distance

DATA = Mixture(
    means=((1.0, 1.0), (-1.2, 0.6), (0.2, -1.4)), weights=(0.5, 0.3, 0.2), std=0.2, n=2000
)
SDES: dict[str, Process] = {"VP": VPLinear(), "sub-VP": SubVP(), "VE": VE()}
POINTS = 1000
SIDE = 3.0  # half of a panel's width
CORRECTED = PredictorCorrector(
    predictor=ReverseDiffusion(), corrector=Langevin(step_size=SnrStep(snr=0.16))
)


def held_out() -> Tensor:
    """Fresh data [n 2]."""
    return dataclasses.replace(DATA, seed=12345).draw()[0]


def cloud(process: Process, solver: Solver, times: Tensor, n: int, seed: int) -> Tensor:
    """n points [n 2] drawn with the exact score."""
    noise = Noise([seed])
    x = start(process, times, noise, (n, 2))
    return sample(Exact(DATA, process), process, solver, times, x, noise)[0]


# 1. The SDEs


def three_sdes(bench: Bench) -> Finding:
    """The forward SDEs, simulated, against the kernels that are used in their place."""
    gaps = {
        name: Measured.over([kernel_gap(bench, process, seed) for seed in bench.seeds])
        for name, process in SDES.items()
    }
    t = torch.linspace(0.001, 1, 200, dtype=torch.float64)
    smaller = bool((SDES["sub-VP"].alpha_sigma(t)[1] <= SDES["VP"].alpha_sigma(t)[1]).all())
    worst = max(gap.mean for gap in gaps.values())
    rows: Rows = tuple((name, gap) for name, gap in gaps.items())
    return Finding(
        claim="VP, sub-VP and VE have Gaussian kernels in closed form; sub-VP's variance is never "
        "above VP's",
        published="equation 29 and the remark below it",
        measured=f"simulated means and deviations lie within {100 * worst:.2g}% of the kernels' "
        f"(largest over times, mean over seeds); sub-VP's deviation "
        f"{'is' if smaller else 'is not'} below VP's at every time",
        holds=worst < 0.03 and smaller,
        table=Table(("SDE", "largest gap to the kernel, relative to its size"), rows),
        figures=(bench.plot("chains", chains(bench)),),
        comment="Euler-Maruyama on the forward SDE from x0 = 1; drift and diffusion are "
        "derivatives of alpha and sigma, which are all that a process states. In the figure: data "
        "turned to noise and back by the corrected reverse SDE with the exact score.",
    )


def kernel_gap(bench: Bench, process: Process, seed: int) -> float:
    """Largest gap of simulated mean and deviation, in units of sqrt(alpha^2 + sigma^2)."""
    n, steps = bench.count(10_000, 500), bench.count(400, 100)
    draws = torch.Generator().manual_seed(seed)
    times = torch.linspace(process.t_min, process.t_max, steps + 1, dtype=torch.float64)
    alpha, sigma = process.alpha_sigma(times)
    drift, g = process.drift(times), process.diffusion_sq(times).sqrt()
    x = alpha[0] + sigma[0] * torch.randn(n, generator=draws, dtype=torch.float64)
    worst = 0.0
    for i in range(steps):
        h, middle = times[i + 1] - times[i], (i, i + 1)
        f, g_sq = drift[list(middle)].mean(), g[list(middle)].square().mean()
        z = torch.randn(n, generator=draws, dtype=torch.float64)
        x = x + h * f * x + (h * g_sq).sqrt() * z
        size = (alpha[i + 1].square() + sigma[i + 1].square()).sqrt()
        off = torch.stack([x.mean() - alpha[i + 1], x.std() - sigma[i + 1]]).abs().max() / size
        worst = max(worst, float(off))
    return worst


def chains(bench: Bench) -> Any:
    """Forward and reverse clouds of the three SDEs."""
    rows = []
    for name, process in SDES.items():
        times = UniformGrid()(process, bench.count(100, 10))
        n, noise = bench.count(POINTS, 100), Noise([0])
        at = [i * (len(times) - 1) // 5 for i in range(6)]
        clean, eps = DATA.draw()[0][None, :n], Noise([1]).normal((n, 2))
        x = start(process, times, noise, (n, 2))
        walk = list(trajectory(Exact(DATA, process), process, CORRECTED, times, x, noise))
        ahead = [panel(times[i], process.perturb(clean, times[[i]], eps)[0]) for i in at]
        back = [panel(times[i], walk[i].x[0]) for i in at]
        rows += [(name, ahead[::-1]), (f"{name} back", back)]
    return sheet(rows, SIDE)


def panel(t: Tensor, points: Tensor) -> Panel:
    """Points [n 2] on the scale of the sheet, with its side where a wide cloud is shrunk to it."""
    title, side = f"t {float(t):.2g}", SIDE
    while float(points.abs().quantile(0.9)) > side:
        side *= 2
    return title if side == SIDE else f"{title}, within ±{side:g}", points * (SIDE / side)


# 2. The flow ODE


def flow(bench: Bench) -> Finding:
    """The law of the ODE's samples, and what they cost."""
    process, real = SDES["VP"], held_out()
    ends = UniformGrid()(process, 2)
    rows: list[tuple[str, float | int, Measured]] = []
    steps, n = bench.count(1000, 20), bench.count(POINTS, 200)
    long = UniformGrid()(process, steps)
    sde = [cloud(process, ReverseDiffusion(), long, n, s) for s in bench.seeds]
    rows.append(("reverse SDE", steps, over(sde, real)))
    for tolerance in (1e-5, 1e-3, 1e-2):
        solver, counts, drawn = AdaptiveRk45(rtol=tolerance, atol=tolerance), [], []
        for seed in bench.seeds:
            exact, noise = Counted(Exact(DATA, process)), Noise([seed])
            x = start(process, ends, noise, (n, 2))
            drawn.append(sample(exact, process, solver, ends, x, noise)[0])
            counts.append(exact.calls)
        rows.append((f"flow ODE, tolerance {tolerance:g}", counts[0], over(drawn, real)))
    best = rows[2]
    floor = energy_distance(DATA.draw()[0], real)
    return Finding(
        claim="The flow ODE has the SDE's marginals, at a tenth of the evaluations",
        published="evaluations cut by over 90% without visible loss (section 4.3, figure 3)",
        measured=f"energy distance to fresh data {best[2]} with {best[1]} evaluations of the ODE "
        f"(tolerance 0.001), {rows[0][2]} with {rows[0][1]} of the SDE, {floor:.4f} for the data "
        "themselves",
        holds=not rows[0][2].below(best[2]) and float(best[1]) <= 0.1 * steps,
        table=Table(("sampler", "evaluations", "energy distance to data"), tuple(rows)),
        comment="VP, exact score of a mixture of three Gaussians. The distance is unbiased, so "
        "values around zero of either sign mean that no difference was found.",
    )


def over(drawn: list[Tensor], real: Tensor) -> Measured:
    """Energy distance over seeds."""
    return Measured.over([energy_distance(x, real) for x in drawn])


class Counted:
    """A denoiser that counts its calls."""

    def __init__(self, denoise: Exact) -> None:
        self.denoise, self.calls = denoise, 0

    def __call__(self, x: Tensor, t: Tensor) -> Any:
        self.calls += 1
        return self.denoise(x, t)


# 3. Likelihood


def likelihood(bench: Bench) -> Finding:
    """The flow's log-likelihood against the closed form, and Hutchinson's estimate."""
    x = held_out()[: bench.count(48, 8)].double()
    errors: Rows = ()
    for name, process in SDES.items():
        begin = torch.full((len(x),), process.t_min, dtype=torch.float64)
        truth = Exact(DATA, process).log_prob(x, begin)
        found = exactly(process, x)
        gap = (found - truth).abs()
        errors = (*errors, (name, "exact", Measured.over(gap.tolist()), float(gap.max()), ""))
    vp = SDES["VP"]
    exact = exactly(vp, x)
    offs = []
    for probes in (1, 4, 16):
        off = [hutchinson(vp, x, probes, seed) - exact for seed in bench.seeds]
        every = torch.cat(off)
        offs.append(Measured.over(every.tolist()))
        gap = every.abs()
        row = (f"VP, {probes} probes", "Hutchinson", Measured.over(gap.tolist()), float(gap.max()))
        errors = (*errors, (*row, offs[-1]))
    worst = max(float(row[3]) for row in errors[:3])  # type: ignore[arg-type]
    mean = max(row[2].mean for row in errors[:3])  # type: ignore[union-attr]
    unbiased = all(abs(off.mean) < 3 * (off.error or 0.0) for off in offs)
    return Finding(
        claim="The flow ODE gives exact log-likelihoods; Hutchinson's trace is unbiased",
        published="section 4.3 and appendix D.2 (no figure for a known density)",
        measured=f"against the closed form the error is {mean:.2g} nats on average under the worst "
        f"of three SDEs, {worst:.2g} at most; "
        f"Hutchinson's estimate with one probe is off by {offs[0]} nats",
        holds=mean < 0.02 and unbiased,
        table=Table(("SDE", "trace", "mean |error|", "largest |error|", "mean error"), errors),
        comment="Nats of points in two dimensions, tolerance 1e-5; what is left is the prior, "
        "which the noised data only nearly are at t_max. Hutchinson's rows are against the "
        "exact trace.",
    )


def exactly(process: Process, x: Tensor) -> Tensor:
    """log p [n] with the exact trace."""
    flow = FlowLikelihood(trace=ExactTrace())
    return flow(Exact(DATA, process), process, x, Noise(range(len(x))))


def hutchinson(process: Process, x: Tensor, probes: int, seed: int) -> Tensor:
    """log p [n] by random signs."""
    noise = Noise(range(1000 * seed, 1000 * seed + len(x)))
    return FlowLikelihood(trace=RademacherTrace(num_probes=probes))(
        Exact(DATA, process), process, x, noise
    )


# 4. Predictor and corrector


def correctors(bench: Bench, evaluations: tuple[int, ...] = (20, 100)) -> Rows:
    """Energy distance at equal evaluations, exact score: a row an SDE and a number."""
    real, rows = held_out(), list[tuple[Cell, ...]]()
    for name, process in SDES.items():
        for count in evaluations:
            pair = [
                over(
                    [
                        cloud(process, solver, times, bench.count(POINTS, 100), s)
                        for s in bench.seeds
                    ],
                    real,
                )
                for solver, times in (
                    (ReverseDiffusion(), UniformGrid()(process, count)),
                    (CORRECTED, UniformGrid()(process, count // 2)),
                )
            ]
            rows.append((f"{name}, exact score", count, *pair))
    return tuple(rows)
