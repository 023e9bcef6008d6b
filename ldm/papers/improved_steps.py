"""Few steps with learned and with fixed variances (2102.09672 section 4).

The chain is respaced: a shorter grid of the same process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ldm.diffusion import Ancestral, Ddim, Solver
from ldm.diffusion.variance import Variance
from ldm.papers.bench import Bench
from ldm.papers.digit_chain import distance, draw, heldout_bits, steps
from ldm.papers.findings import Finding, Measured, Table
from ldm.papers.steps import Grid, drawn, rows_of

COUNTS = (5, 10, 25, 50)
JUDGED = (10, 25)


def measured_grid(
    names: list[str], tasks: list[Any], measure: Callable[[str, Any, Tensor], float]
) -> Grid:
    """`measure(name, task, times)` over the seeds for each name and number of steps."""
    process = tasks[0].stage.denoiser.process
    return {
        (name, n): Measured.over([measure(name, task, steps(process, n)) for task in tasks])
        for name in names
        for n in COUNTS
    }


def strided_bits(bench: Bench, tasks: list[Any], variances: dict[str, Variance]) -> Finding:
    """One model with a learned variance; its bits with it and with the fixed ones."""
    digits_coded, names = bench.count(128, 32), list(variances)

    def bits(name: str, task: Any, times: Tensor) -> float:
        return heldout_bits(task, times, variances[name], digits_coded)

    found = measured_grid(names, tasks, bits)
    learned, *fixed = names
    return Finding(
        claim="With 10 to 25 steps the learned variance gives fewer bits than both fixed ones",
        published="the learned variance improves the bound most where steps are few (section 3.1); "
        "no figure in numbers",
        measured="; ".join(
            f"at {n} steps {found[learned, n]} bits a pixel learned, "
            + ", ".join(f"{found[name, n]} with {name}" for name in fixed)
            for n in JUDGED
        ),
        holds=all(found[learned, n].below(found[name, n]) for name in fixed for n in JUDGED),
        table=Table(("variance", *(f"{n} steps" for n in COUNTS)), rows_of(found, names, COUNTS)),
        figures=(bench.plot("bits", drawn(found, names, COUNTS, "bits a pixel")),),
        comment="The L_hybrid model in all rows: only the variance of the reverse steps differs.",
    )


def strided_samples(
    bench: Bench, hybrid: list[Any], simple: list[Any], variances: dict[str, Variance]
) -> Finding:
    """The learned variance's samples against the fixed ones' of a model trained by L_simple."""
    learned, *fixed = variances
    solvers: dict[str, Solver] = {n: Ancestral(variance=variances[n]) for n in variances}
    solvers["DDIM"] = Ddim()
    samples = bench.count(400, 80)

    def judged(name: str, task: Any, times: Tensor) -> float:
        return distance(draw(task, solvers[name], times, samples))

    found = measured_grid([learned], hybrid, judged)
    found |= measured_grid([*fixed, "DDIM"], simple, judged)
    names = list(solvers)
    return Finding(
        claim="With 10 to 25 steps the learned variance gives better samples than both fixed ones",
        published="ImageNet 64 x 64 and CIFAR-10: L_hybrid keeps its FID down to about 100 of 4000 "
        "steps, L_simple with fixed variances does not (figure 8)",
        measured="; ".join(
            f"at {n} steps Fréchet distance {found[learned, n]} learned, "
            + ", ".join(f"{found[name, n]} with {name}" for name in fixed)
            for n in JUDGED
        ),
        holds=all(found[learned, n].below(found[name, n]) for name in fixed for n in JUDGED),
        if_not="On average it does at both, but the better of the fixed ones lies within two "
        "standard errors.",
        table=Table(("variance", *(f"{n} steps" for n in COUNTS)), rows_of(found, names, COUNTS)),
        figures=(bench.plot("samples", drawn(found, names, COUNTS, "Fréchet distance")),),
        comment="Learned: the L_hybrid model. Fixed, and DDIM for comparison: the L_simple model.",
    )
