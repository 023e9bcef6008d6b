"""Cosine against linear noise schedules (2102.09672 section 3.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ldm.diffusion import Ancestral, Noise
from ldm.diffusion.process import Process
from ldm.papers.bench import Bench
from ldm.papers.digit_chain import SHAPE, bytes_of, digits, distance, draw, steps
from ldm.papers.findings import Finding, Measured, Table

SKIPPED = (0.0, 0.2, 0.4)
"""Shares of the reverse chain that are left out at its noisy end."""
ROW = 12


def schedules(
    bench: Bench, cosine: list[Any], linear: list[Any], bits: dict[str, Measured]
) -> list[Finding]:
    """How much of a schedule is wasted, and what it costs in bits."""
    n = bench.count(300, 80)
    found = {
        (name, part): Measured.over([distance(shortened(task, part, n)) for task in tasks])
        for name, tasks in (("linear", linear), ("cosine", cosine))
        for part in SKIPPED
    }
    lost = {name: found[name, 0.2].mean - found[name, 0.0].mean for name in ("linear", "cosine")}
    rows = tuple((name, *(found[name, p] for p in SKIPPED)) for name in ("linear", "cosine"))
    processes = {
        name: tasks[0].stage.denoiser.process
        for name, tasks in (("linear", linear), ("cosine", cosine))
    }
    return [
        Finding(
            claim="The linear schedule wastes its noisy end: a fifth of its reverse chain can be "
            "left out at little loss, the cosine's cannot",
            published="ImageNet 64 x 64: up to 20% of the linear reverse chain is skipped with "
            "hardly any change of FID (section 3.2, figure 4)",
            measured=f"left out, a fifth moves the Fréchet distance from {found['linear', 0.0]} to "
            f"{found['linear', 0.2]} (linear) and from {found['cosine', 0.0]} to "
            f"{found['cosine', 0.2]} (cosine)",
            holds=lost["linear"] < lost["cosine"]
            and found["cosine", 0.0].below(found["cosine", 0.2]),
            table=Table(("schedule", *(f"{p:.0%} left out" for p in SKIPPED)), rows),
            figures=(
                bench.plot("schedules", drawn(processes)),
                bench.pictures("noising", bytes_of(noised(processes)), ROW, enlarge=4),
            ),
            comment="L_simple models, small variance, started from pure noise at the later time. "
            "Pictures: two digits, each under the linear schedule and below it under the cosine.",
        ),
        Finding(
            claim="The cosine schedule gives fewer bits than the linear one",
            published="CIFAR-10 and ImageNet 64 x 64: better at the same loss (section 3.2, "
            "tables 1 and 2)",
            measured=f"L_hybrid: {bits['hybrid']} bits a pixel with the cosine, "
            f"{bits['hybrid_linear']} with the linear schedule",
            holds=bits["hybrid"].below(bits["hybrid_linear"]),
            if_not="Between its ends a schedule changes the bound only by how coarsely its "
            "steps cut it (VDM, arXiv 2107.00630, equation 18); 200 steps with β held "
            "at 0.9 cut the cosine's noisy end coarsely.",
        ),
    ]


def shortened(task: Any, part: float, n: int) -> Tensor:
    """n digits by the reverse chain without its first `part`."""
    times = steps(task.stage.denoiser.process)
    return draw(task, Ancestral(), times[round(part * len(times)) :], n)


def noised(processes: dict[str, Process]) -> Tensor:
    """Two digits, for each schedule a row of growing noise: [4*ROW 1 8 8]."""
    x0, eps = digits("train", 2), Noise([0, 1]).normal(SHAPE)
    rows = []
    for process in processes.values():
        times = steps(process, ROW).flip(0)
        rows += [torch.stack([process.perturb(x0, t.expand(2), eps) for t in times], 1)]
    return torch.stack(rows, 1).flatten(0, 2)


def drawn(processes: dict[str, Process]) -> Any:
    """alpha-bar over the chain: figure 5 of the paper."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2))
    axes = figure.subplots()
    for name, process in processes.items():
        times = steps(process).flip(0)
        axes.plot(times, process.alpha_sigma(times)[0].square(), label=name)
    axes.set(xlabel="t/T", ylabel="ᾱ")
    axes.legend()
    return figure
