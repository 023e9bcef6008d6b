"""DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095) and UniPC: fewer steps for the same picture.

One digit model, no guidance; solvers start from the same noise and are compared with a fine
solution of the same ODE.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ldm.conditioning import UnconditionalConfig
from ldm.data.batch import Batch
from ldm.data.digits import Digits
from ldm.diffusion import (
    Ddim,
    DpmSolverPP2M,
    DpmSolverPP2S,
    Heun,
    LogSnrGrid,
    Mse,
    Noise,
    Solver,
    UniPC,
    V,
    VPCosine,
)
from ldm.papers.bench import Bench, Study
from ldm.papers.findings import Finding, Measured, Rows, Table
from ldm.papers.small import digit_unet
from ldm.recipe import Recipe
from ldm.samplers import Sampler
from ldm.stage import PixelCodec, StageConfig
from ldm.tasks import StageTraining
from ldm.training import LoopConfig, OptimConfig

SHAPE = (1, 8, 8)
SOLVERS: dict[str, tuple[Solver, int]] = {
    "DDIM": (Ddim(), 1),
    "Heun": (Heun(), 2),
    "DPM-Solver++(2S)": (DpmSolverPP2S(), 2),
    "DPM-Solver++(2M)": (DpmSolverPP2M(), 1),
    "UniPC": (UniPC(), 1),
}
"""Each solver with the evaluations of the network that one step costs."""
EVALUATIONS = (6, 10, 20, 40)


def recipes() -> dict[str, Recipe]:
    """The digit model."""
    return {
        "digits": Recipe(
            task=StageTraining(
                stage=StageConfig(
                    codec=PixelCodec(),
                    conditioner=UnconditionalConfig(),
                    network=digit_unet(),
                    process=VPCosine(),
                    prediction=V(),
                    objective=Mse(),
                    multiple=2,
                ),
                shape=SHAPE,
            ),
            data=Digits(),
            optim=OptimConfig(lr=1e-3, warmup_images=2_000),
            loop=LoopConfig(images=60_000, ema_half_life=4_000),
        )
    }


def run(bench: Bench) -> list[Finding]:
    """Error against a fine solution over the number of evaluations."""
    errors = [errors_of(bench, seed) for seed in bench.seeds]
    measured = {
        (name, n): Measured.over([error[name, n] for error in errors])
        for name in SOLVERS
        for n in EVALUATIONS
    }
    rows: Rows = tuple((name, *(measured[name, n] for n in EVALUATIONS)) for name in SOLVERS)
    table = Table(("solver", *(f"{n} evaluations" for n in EVALUATIONS)), rows)
    second, first = measured["DPM-Solver++(2M)", 10], measured["DDIM", 10]
    return [
        Finding(
            claim="A multistep solver of second order beats DDIM at 10 to 20 evaluations",
            published="ImageNet-256, guidance 8: DPM-Solver++(2M) converges in 15 to 20 steps "
            "where DDIM needs more (arXiv 2211.01095, figure 1)",
            measured=f"at 10 evaluations the distance to the fine solution is {second} for "
            f"DPM-Solver++(2M) and {first} for DDIM",
            holds=second.below(first),
            table=table,
            figures=(bench.plot("error", drawn(measured)),),
            comment="Root mean square distance in pixels of [-1, 1] to 500 steps of "
            "DPM-Solver++(2M) from the same noise; grids even in log-SNR.",
        )
    ]


def errors_of(bench: Bench, seed: int) -> dict[tuple[str, int], float]:
    """Distance to the fine solution for each solver and number of evaluations."""
    task, n = bench.train(recipes()["digits"], "digits", seed), bench.count(64)
    fine = draw(task, DpmSolverPP2M(), bench.count(500, 50), n)
    return {
        (name, evaluations): rms(draw(task, solver, evaluations // cost, n) - fine)
        for name, (solver, cost) in SOLVERS.items()
        for evaluations in EVALUATIONS
    }


@torch.no_grad()
def draw(task: Any, solver: Solver, steps: int, n: int) -> Tensor:
    """Digits [n 1 8 8] from seeds 0 to n - 1."""
    sampler = Sampler(solver=solver, grid=LogSnrGrid(), steps=steps)
    drawn: Tensor = task.stage.sample(Batch(key=("",) * n), sampler, Noise(range(n)), SHAPE)
    return drawn


def rms(x: Tensor) -> float:
    """Root mean square."""
    return float(x.square().mean().sqrt())


def drawn(measured: dict[tuple[str, int], Measured]) -> Any:
    """Error over evaluations, one line a solver."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    for name in SOLVERS:
        axes.loglog(EVALUATIONS, [measured[name, n].mean for n in EVALUATIONS], "o-", label=name)
    axes.set_xlabel("evaluations of the network")
    axes.set_ylabel("RMS distance to the fine solution")
    axes.legend()
    return figure


STUDY = Study(
    title="DPM-Solver++ and UniPC",
    paper="Lu et al. 2022, arXiv 2211.01095; Zhao et al. 2023, arXiv 2302.04867",
    about="The flow ODE is semi-linear: solved exactly in its linear part, the rest is smooth in "
    "log-SNR and a polynomial over past answers of the network follows it. A model of 8 x 8 "
    "digits is sampled by five solvers from the same noise.",
    run=run,
)
