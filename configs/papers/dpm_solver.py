"""DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095) and UniPC: fewer steps for the same picture.

One digit model, no guidance; solvers start from the same noise and are compared with a fine
solution of the same ODE.
"""

from __future__ import annotations

from typing import Any

from ldm.diffusion import (
    Ddim,
    DpmSolverPP2M,
    DpmSolverPP2S,
    Heun,
    LogSnrGrid,
    Mse,
    Solver,
    UniPC,
    V,
    VPCosine,
)
from ldm.papers.bench import Bench, Study
from ldm.papers.digit_models import digit_recipe, draw, sheet
from ldm.papers.findings import Finding, Measured, Rows, Table
from ldm.papers.measures import rms
from ldm.papers.steps import log_axis
from ldm.recipe import Recipe

SOLVERS: dict[str, tuple[Solver, int]] = {
    "DDIM": (Ddim(), 1),
    "Heun": (Heun(), 2),
    "DPM-Solver++(2S)": (DpmSolverPP2S(), 2),
    "DPM-Solver++(2M)": (DpmSolverPP2M(), 1),
    "UniPC": (UniPC(), 1),
}
"""Each solver with the evaluations of the network that one step costs."""
EVALUATIONS = (6, 10, 20, 40)
Errors = dict[tuple[str, int], Measured]


def recipes() -> dict[str, Recipe]:
    """The digit model."""
    return {"digits": digit_recipe(VPCosine(), V(), Mse(), images=30_000)}


def run(bench: Bench) -> list[Finding]:
    """Error against a fine solution over the number of evaluations."""
    found = [errors_of(bench, seed) for seed in bench.seeds]
    measured: Errors = {key: Measured.over([errors[key] for errors in found]) for key in found[0]}
    return [second_order(bench, measured), corrector(measured)]


def errors_of(bench: Bench, seed: int) -> dict[tuple[str, int], float]:
    """Distance to the fine solution for each solver and number of evaluations."""
    task, n = bench.train(recipes()["digits"], "digits", seed), bench.count(64)
    fine = draw(task, DpmSolverPP2M(), LogSnrGrid(), bench.count(200, 50), n)
    errors = {}
    for name, (solver, cost) in SOLVERS.items():
        for evaluations in EVALUATIONS:
            drawn = draw(task, solver, LogSnrGrid(), evaluations // cost, n)
            errors[name, evaluations] = rms(drawn - fine)
    return errors


def second_order(bench: Bench, measured: Errors) -> Finding:
    """DPM-Solver++(2M) against DDIM, with every solver beside them."""
    rows: Rows = tuple((name, *(measured[name, n] for n in EVALUATIONS)) for name in SOLVERS)
    second, first = "DPM-Solver++(2M)", "DDIM"
    ranked = sorted(SOLVERS, key=lambda name: measured[name, 10].mean)
    return Finding(
        claim="A multistep solver of second order beats DDIM at 10 to 20 evaluations",
        published="ImageNet-256, guidance 8: DPM-Solver++(2M) converges in 15 to 20 steps "
        "where DDIM needs more (arXiv 2211.01095, figure 1)",
        measured=f"the distance to the fine solution is {measured[second, 10]} for {second} and "
        f"{measured[first, 10]} for DDIM at 10 evaluations, {measured[second, 20]} and "
        f"{measured[first, 20]} at 20",
        holds=all(measured[second, n].below(measured[first, n]) for n in (10, 20)),
        table=Table(("solver", *(f"{n} evaluations" for n in EVALUATIONS)), rows),
        figures=(bench.plot("error", lines(measured)), pictures(bench)),
        comment="Root mean square distance in pixels of [-1, 1] to 200 steps of "
        "DPM-Solver++(2M) from the same noise; grids even in log-SNR. Two evaluations a step for "
        "Heun and 2S, the last step of which takes one. From best to worst at 10 evaluations: "
        + ", ".join(ranked)
        + ". Rows of digits: each solver at 6 evaluations, and the fine solution.",
    )


def corrector(measured: Errors) -> Finding:
    """UniPC against DPM-Solver++(2M)."""
    ours, other = measured["UniPC", 10], measured["DPM-Solver++(2M)", 10]
    return Finding(
        claim="UniPC's corrector gains on DPM-Solver++(2M) at 10 evaluations",
        published="FID 3.87 on CIFAR-10 and 7.51 on ImageNet-256 at 10 evaluations, the best of "
        "the solvers compared (arXiv 2302.04867, abstract)",
        measured=f"distance to the fine solution {ours} for UniPC, {other} for 2M",
        holds=ours.below(other),
        if_not="A higher order gains where the leading error rules; at one number of evaluations "
        "errors can cancel either way, so see the others in the table.",
        comment="The table is that of the claim before.",
    )


def pictures(bench: Bench) -> str:
    """A row of digits for each solver at 6 evaluations; the fine solution is the last."""
    task, n = bench.train(recipes()["digits"], "digits", bench.seeds[0]), 12
    rows = [draw(task, solver, LogSnrGrid(), 6 // cost, n) for solver, cost in SOLVERS.values()]
    rows.append(draw(task, DpmSolverPP2M(), LogSnrGrid(), bench.count(200, 50), n))
    return sheet(bench, "digits", rows, n)


def lines(measured: Errors) -> Any:
    """Error over evaluations, one line a solver."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    for name in SOLVERS:
        axes.semilogy(EVALUATIONS, [measured[name, n].mean for n in EVALUATIONS], "o-", label=name)
    log_axis(axes, EVALUATIONS)
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
