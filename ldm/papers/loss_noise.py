"""How noisy a loss is under uniform and under importance-sampled times (2102.09672 section 3.3)."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from ldm.conditioning.cond import Cond
from ldm.diffusion import Discrete
from ldm.diffusion.objective import Objective
from ldm.diffusion.times import Times
from ldm.papers.bench import Bench
from ldm.papers.digit_chain import digits
from ldm.papers.findings import Finding, Measured, Rows, Table
from ldm.recipe import Recipe

BATCH = 64


def loss_noise(bench: Bench, plan: Recipe, tasks: list[Any]) -> Finding:
    """The same models' loss and gradient, t drawn in both ways."""
    drawn = [
        noises(task, kind, bench.count(400, 20))
        for task in tasks
        for kind in (Discrete(num_steps=settings(plan).num_steps), None)
    ]
    uniform, chosen = drawn[::2], drawn[1::2]
    loss = [Measured.over([n[0] for n in side]) for side in (uniform, chosen)]
    slope = [Measured.over([n[1] for n in side]) for side in (uniform, chosen)]
    rows: Rows = (
        ("standard deviation of the loss of one sample, bits", *loss),
        (f"norm of the gradient's noise, batches of {BATCH}", *slope),
    )
    return Finding(
        claim="Drawing t in proportion to the loss's root mean square makes L_vlb less noisy",
        published="L_vlb is hard to train for the noise of its gradient; importance sampling makes "
        "its learning curve smooth and better (section 3.3, figure 6); no figure in numbers",
        measured=f"standard deviation of a sample's loss {loss[1]} bits, {loss[0]} with uniform "
        f"t; norm of the gradient's noise {slope[1]}, {slope[0]} with uniform t",
        holds=loss[1].below(loss[0]) and slope[1].below(slope[0]),
        if_not="A step that is drawn seldom weighs much when it is drawn: what the choice of times "
        "takes from the loss's noise it may give back in the gradient's.",
        table=Table(("noise", "uniform t", "importance-sampled t"), rows),
        figures=(bench.plot("times", histogram(tasks)),),
        comment="Measured on the models trained with importance sampling, with the history of "
        "losses that their training left; weights 1/(N p) keep the mean of the loss the same, and "
        "with it the gradient's mean, so that the noise of both may be compared as it is.",
    )


def settings(plan: Recipe) -> Any:
    """The recipe's importance sampler."""
    task: Any = plan.task
    return task.stage.objective.times


def noises(task: Any, times: Times | None, batches: int) -> tuple[float, float]:
    """Deviation of the loss over single samples, and of the gradient over batches.

    `times` None: those with which the model was trained.
    """
    objective: Objective = task.stage.objective
    if times is not None:
        objective = dataclasses.replace(objective, times=times)
    parameters = list(task.stage.denoiser.network.parameters())
    every, generator = digits("train"), torch.Generator().manual_seed(0)
    losses, slopes = [], []
    for _ in range(batches):
        rows = torch.randint(len(every), (BATCH,), generator=generator)
        loss = objective(task.stage.denoiser, every[rows], Cond(), generator)["loss"]
        found = torch.autograd.grad(loss.mean(), parameters)
        losses.append(loss.detach())
        slopes.append(torch.cat([g.flatten() for g in found]))
    return float(torch.cat(losses).std()), spread(torch.stack(slopes))


def spread(slopes: Tensor) -> float:
    """sqrt(tr Cov) of gradients [n p]: the root mean square distance from their mean."""
    return float(slopes.var(0).sum().sqrt())


def histogram(tasks: list[Any]) -> Any:
    """How often each step is drawn, and the loss there."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2))
    left, right = figure.subplots(1, 2)
    for task in tasks:
        memory = task.stage.objective.times
        left.semilogy(memory.losses.square().mean(1).sqrt())
        right.semilogy(len(memory.losses) * memory.probabilities())
    right.axhline(1, color="grey", linestyle=":")
    left.set(xlabel="step (data at 0)", ylabel="root mean square of L_t, bits")
    right.set(xlabel="step (data at 0)", ylabel="times as often as uniformly")
    figure.tight_layout()
    return figure
