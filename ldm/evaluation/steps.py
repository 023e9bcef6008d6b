"""Quality against the number of times that the network is asked, for every solver.

n pictures; z h w latent grid
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ldm.diffusion.grids import Grid, LogSnrGrid, UniformGrid
from ldm.diffusion.noise import Noise
from ldm.diffusion.prediction import Denoised, given_x0
from ldm.diffusion.process import Process
from ldm.diffusion.sample import sample
from ldm.diffusion.solvers import Heun
from ldm.errors import RequestError
from ldm.evaluation.figures import Figure, known_figure, mean_figure
from ldm.evaluation.grids import sheet
from ldm.evaluation.plots import Point, lines
from ldm.evaluation.section import Bench, Section
from ldm.evaluation.sweep import MEASURED, Asked, Meter, about, ask, draw, own_sampler, pictures
from ldm.samplers import SOLVERS, Sampler, solver_named

if TYPE_CHECKING:
    from PIL import Image

GRIDS: dict[str, Grid] = {
    "ddpm": UniformGrid(),
    "ddpm_large": UniformGrid(),
    "ddim": UniformGrid(),
    "euler": UniformGrid(),
    "euler_ancestral": UniformGrid(),
    "heun": UniformGrid(),
    "dpmpp_2m": LogSnrGrid(),
    "dpmpp_2m_sde": LogSnrGrid(),
}
"""Where each solver's steps lie: DPM-Solver's formulas are in log-SNR, the others' in t.

On three captions of the shipped model, distances to the solution after 9 or 10 evaluations were,
on the grids even in t and in log-SNR: DPM-Solver++(2M) 14.9 and 14.2 %, Heun 18.7 and 31.9 %, DDIM
15.2 and 26.6 %.
"""

SECOND_NAMES = ("euler_ancestral",)
"""It is ddpm on every process; euler is ddim only where the process is linear in t."""
SHOWN = 6
EVALUATIONS = "evaluations"
DISTANCE = "distance to the solution"
ABOUT_COUNT = (
    "Evaluations: how often the guided denoiser is asked for one picture; each is two passes of "
    "the network where guidance acts, one where it does not. A solver gets as many steps as fit: "
    "Heun asks twice a step and once at the end. Lines lie over each other where two names are one "
    "method: ddim and euler where the process is linear in t. Euler_ancestral is ddpm and left out."
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is drawn: evaluations at most, captions, and points of the fine solution's grid.

    On three captions of the shipped model, 32 points of Heun and 64 of DPM-Solver++(2M) ended 1.7 %
    apart: distances of that size are those of the fine solution.
    """

    evaluations: tuple[int, ...] = (5, 10, 20, 40)
    captions: int = 24
    fine: int = 48

    def __post_init__(self) -> None:
        if min(self.evaluations, default=0) < 1 or self.captions < 2 or self.fine < 2:
            raise RequestError(
                f"evaluations {self.evaluations}, {self.captions} captions, {self.fine} points of "
                "the fine grid: give 1 evaluation, 2 captions and 2 points or more"
            )


@dataclass(frozen=True)
class Cost:
    """What a solver asks for on a grid: evaluations of the denoiser, and draws of noise."""

    evaluations: int
    noises: int


def cost_of(sampler: Sampler, process: Process) -> Cost:
    """Counted on a walk with a denoiser that costs nothing."""
    asked, noise = [0], _CountedNoise([0])

    def denoise(x: Tensor, t: Tensor) -> Denoised:
        asked[0] += 1
        return given_x0(process, t, x, torch.zeros_like(x))

    sample(denoise, process, sampler.solver, sampler.times(process), torch.ones(1, 1), noise)
    return Cost(asked[0], noise.draws)


def within(sampler: Sampler, process: Process, evaluations: int) -> Sampler:
    """The sampler with as many steps as cost no more than `evaluations`."""
    counts = range(1, evaluations + 1)
    fitting = bisect.bisect_right(
        counts,
        evaluations,
        key=lambda steps: cost_of(replace(sampler, steps=steps), process).evaluations,
    )
    return replace(sampler, steps=fitting)


def evaluate(bench: Bench, plan: Plan | None = None, solvers: Sequence[str] = ()) -> Section:
    """What the judge says of each solver's pictures at each number of evaluations."""
    plan = plan or Plan()
    asked, meter = ask(bench, plan.captions, 1), Meter(bench)
    samplers = plan_samplers(bench, plan, solvers)
    process = bench.pipe.decoder.denoiser.process
    drawn = {row: pictures(bench, _drawn(bench, asked, s)) for row, s in samplers.items()}
    rows = {
        row: {EVALUATIONS: _cost(s, process, len(asked.places)), **meter(asked, drawn[row])}
        for row, s in samplers.items()
    }
    fidelity = (meter.kid, f"{meter.kid} to real pictures (lower is better)", False)
    drawings = _plots(rows, plan, named(solvers), {"steps-fidelity": fidelity, **JUDGED})
    few = [row_name(name, plan.evaluations[1 % len(plan.evaluations)]) for name in named(solvers)]
    captions = asked.captions[:SHOWN]
    return Section(
        title="Evaluations of the network",
        notes=(
            ABOUT_COUNT,
            MEASURED,
            f"Grid, from above: {'; '.join(few)}. Every row draws the same captions from the same "
            "seeds and embeddings.",
        ),
        protocol={**about(bench, asked, meter), **_about(bench, samplers)},
        rows=rows,
        grids={
            **drawings,
            "steps-pictures": sheet(
                [drawn[row][:SHOWN] for row in few], captions, columns=len(captions)
            ),
        },
        shown={**{name: () for name in drawings}, "steps-pictures": captions},
    )


def evaluate_solutions(
    bench: Bench, plan: Plan | None = None, solvers: Sequence[str] = ()
) -> Section:
    """How far each solver without noise ends from where the exact flow would."""
    plan = plan or Plan()
    asked, process = ask(bench, plan.captions, 1), bench.pipe.decoder.denoiser.process
    samplers = {
        row: sampler
        for row, sampler in plan_samplers(bench, plan, solvers).items()
        if cost_of(sampler, process).noises == 0
    }
    fine = _fine(bench, plan)
    truth = _drawn(bench, asked, fine)
    rows = {
        row: {
            EVALUATIONS: _cost(sampler, process, len(asked.places)),
            DISTANCE: mean_figure(relative(_drawn(bench, asked, sampler), truth), "%"),
        }
        for row, sampler in samplers.items()
    }
    names = [name for name in named(solvers) if row_name(name, plan.evaluations[0]) in rows]
    return Section(
        title="Distance to the flow's solution",
        notes=(
            "Root mean square over a picture's latents of the difference from the fine solution "
            "from the same noise, as a share of the solution's own. Solvers that draw noise on "
            "the way have no such solution and are left out.",
            ABOUT_COUNT,
        ),
        protocol={
            "split": "heldout",
            "captions": len(asked.places),
            "seeds": f"picture i has seed {bench.options.seed} + i in prior and decoder",
            "fine solution": fine.describe(),
            **_about(bench, samplers),
        },
        rows=rows,
        grids=_plots(rows, plan, names, SOLVED),
        shown={name: () for name in SOLVED},
    )


def relative(found: Tensor, truth: Tensor) -> Tensor:
    """|found - truth| / |truth| of latents [n z h w], twice -> [n]."""
    difference = (found - truth).double().flatten(1).norm(dim=1)
    return difference / truth.double().flatten(1).norm(dim=1)


def named(solvers: Sequence[str]) -> list[str]:
    """The names in the order of `SOLVERS`; for none, all but second names of one method.

    Raises:
        RequestError: a name that is no solver.
    """
    for name in solvers:
        solver_named(name)
    return [n for n in SOLVERS if (n in solvers if solvers else n not in SECOND_NAMES)]


def plan_samplers(bench: Bench, plan: Plan, solvers: Sequence[str]) -> dict[str, Sampler]:
    """The samplers by the rows of the tables: all of the model's own but solver, grid, steps."""
    own, process = own_sampler(bench, plan.fine), bench.pipe.decoder.denoiser.process
    return {
        row_name(name, most): within(
            replace(own, solver=solver_named(name), grid=GRIDS[name]), process, most
        )
        for name in named(solvers)
        for most in plan.evaluations
    }


def row_name(solver: str, evaluations: int) -> str:
    """What a row of the tables is called."""
    return f"{solver}, at most {evaluations}"


Plot = tuple[str, str, bool]
JUDGED: dict[str, Plot] = {
    "steps-concept": ("concept top-5", "asked concept among the 5 nearest", False),
    "steps-clip": ("CLIP score", "CLIP score", False),
}
SOLVED: dict[str, Plot] = {
    "steps-solution": (DISTANCE, "distance to the fine solution", True),
}
"""Plots by name: the column, what the axis says, whether it is logarithmic."""


def _plots(
    rows: Mapping[str, Mapping[str, Figure]],
    plan: Plan,
    names: Sequence[str],
    wanted: Mapping[str, Plot],
) -> dict[str, Image.Image]:
    """A line a solver over the evaluations that it made."""

    def line(name: str, column: str) -> list[Point]:
        mine = [rows[row_name(name, most)] for most in plan.evaluations]
        return [Point(row[EVALUATIONS].value, row[column]) for row in mine]

    return {
        plot: lines(
            {name: line(name, column) for name in names},
            "evaluations of the guided denoiser",
            label,
            logx=True,
            logy=log,
            ticks=plan.evaluations,
        )
        for plot, (column, label, log) in wanted.items()
    }


def _drawn(bench: Bench, asked: Asked, sampler: Sampler) -> Tensor:
    """Latents [n z h w] by a sampler."""
    return draw(bench, asked, lambda rows: sampler, {"sampler": sampler.describe()})


def _fine(bench: Bench, plan: Plan) -> Sampler:
    """Heun's method on many points, which is of second order."""
    own = own_sampler(bench, plan.fine)
    return replace(own, solver=Heun(), grid=UniformGrid(), steps=plan.fine)


def _cost(sampler: Sampler, process: Process, n: int) -> Figure:
    return known_figure(cost_of(sampler, process).evaluations, n, "count")


def _about(bench: Bench, samplers: Mapping[str, Sampler]) -> dict[str, object]:
    """For protocols: what all samplers share, and each one's grid and steps."""
    own = own_sampler(bench, 1)
    return {
        "guidance": own.guidance,
        "interval": own.interval,
        "rescale": own.rescale,
        "steps": {
            row: f"{s.steps} points of {type(s.grid).__name__}" for row, s in samplers.items()
        },
    }


class _CountedNoise(Noise):
    """Noise that knows how often it was asked for."""

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__(seeds)
        self.draws = 0

    def normal(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        self.draws += 1
        return super().normal(shape, dtype)
