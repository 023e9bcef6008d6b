"""Rectified flow (Liu et al. 2022, arXiv 2209.03003; Esser et al. 2024, arXiv 2403.03206):
straight ways from noise to data, and reflow, which straightens them further.

The first model draws pairs of noise and digit; the second learns from these pairs alone.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import Tensor

from ldm.conditioning import UnconditionalConfig
from ldm.data.pairs import Pairs, write_pairs
from ldm.data.stream import Source
from ldm.data.toys import Mixture
from ldm.diffusion import Ddim, Flow, LinearFlow, LogitNormal, Mse, Noise, TrailingGrid, V, VPLinear
from ldm.diffusion.coupled import Coupled
from ldm.papers.bench import Bench, Study
from ldm.papers.digit_models import SHAPE, digit_recipe, distance, draw, floor, sheet
from ldm.papers.findings import Finding, Measured, Rows, Table
from ldm.papers.small import toy_mlp
from ldm.papers.straightness import bend, detour, walked
from ldm.recipe import Recipe
from ldm.stage import PointCodec, StageConfig
from ldm.tasks import StageTraining
from ldm.training import LoopConfig, OptimConfig

STEPS = (1, 2, 4, 8, 16, 64)
IMAGES = 200_000
CORNERS = ((1.5, 1.5), (1.5, -1.5), (-1.5, 1.5), (-1.5, -1.5))
NAMES = {
    "vp": "VP, DDIM",
    "flow": "rectified flow",
    "logit_normal": "rectified flow, logit-normal times",
    "reflow": "rectified flow, reflowed once",
}
Models = dict[str, list[Any]]


def recipes() -> dict[str, Recipe]:
    """Three models of digits, one of four clusters in the plane, and what learns from pairs.

    VP's network says v, so that the two differ in their paths alone.
    """
    flow = digit_recipe(LinearFlow(), Flow(), Mse(), images=IMAGES)
    logit = digit_recipe(LinearFlow(), Flow(), Mse(times=LogitNormal()), images=IMAGES)
    toy = toy_recipe(Mixture(means=CORNERS, weights=(0.25,) * 4, std=0.2, batch_size=256))
    return {
        "vp": digit_recipe(VPLinear(), V(), Mse(), images=IMAGES),
        "flow": flow,
        "logit_normal": logit,
        "reflow": reflowed(flow, "digits"),
        "toy": toy,
        "toy_reflow": reflowed(toy, "toy"),
    }


def toy_recipe(data: Source) -> Recipe:
    """A flow of points in the plane."""
    stage = StageConfig(
        codec=PointCodec(),
        conditioner=UnconditionalConfig(),
        network=toy_mlp(),
        process=LinearFlow(),
        prediction=Flow(),
        objective=Mse(),
    )
    return Recipe(
        task=StageTraining(stage=stage, shape=(2,)),
        data=data,
        optim=OptimConfig(lr=2e-3, warmup_images=2_000),
        loop=LoopConfig(images=400_000, ema_half_life=4_000),
    )


def reflowed(first: Recipe, name: str) -> Recipe:
    """The recipe that learns from pairs drawn from the first; `run` writes the file it reads."""
    assert isinstance(first.task, StageTraining)
    stage = dataclasses.replace(first.task.stage, codec=PointCodec(), objective=Coupled())
    return dataclasses.replace(
        first,
        task=dataclasses.replace(first.task, stage=stage),
        data=Pairs(path=f"runs/papers/rectified_flow/pairs/{name}.safetensors"),
    )


def run(bench: Bench) -> list[Finding]:
    """Train, draw pairs, train on them; then paths, few steps and times."""
    plans = recipes()
    models: Models = {
        name: [bench.train(plans[name], name, seed) for seed in bench.seeds]
        for name in ("vp", "flow", "logit_normal")
    }
    models["reflow"] = [
        second(bench, task, plans["reflow"], "reflow", SHAPE, seed)
        for task, seed in zip(models["flow"], bench.seeds, strict=True)
    ]
    far = distances(bench, models)
    return [paths(bench, models), few_steps(bench, models, far), reflow(bench, far), times(far)]


def second(
    bench: Bench, first: Any, plan: Recipe, name: str, shape: tuple[int, ...], seed: int
) -> Any:
    """The model trained on pairs drawn from the first one."""
    z = noise(seed, bench.count(20_000, 300), shape)
    path, _ = walked(first, z, bench.count(20, 10))
    file: Path = bench.runs / "pairs" / f"{name}-s{seed}-x{bench.scale:g}.safetensors"
    write_pairs(file, path[-1], z)
    data = dataclasses.replace(plan.data, path=str(file))  # type: ignore[type-var]
    return bench.train(dataclasses.replace(plan, data=data), name, seed)


def noise(seed: int, n: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal [n ...], shared with no other seed."""
    first = 1_000_000 * seed + 500_000
    return Noise(range(first, first + n)).normal(shape)


# 1. Paths ----------------------------------------------------------------------------------------


def paths(bench: Bench, models: Models) -> Finding:
    """Bend and detour of each model's paths."""
    measured: dict[tuple[str, str], Measured] = {}
    for name, tasks in models.items():
        seen = [
            walked(task, noise(seed + 100, bench.count(128, 20), SHAPE), bench.count(64, 20))
            for task, seed in zip(tasks, bench.seeds, strict=True)
        ]
        measured[name, "bend"] = Measured.over([bend(path, moments) for path, moments in seen])
        measured[name, "detour"] = Measured.over([detour(path) for path, _ in seen])
    rows: Rows = tuple(
        (NAMES[name], measured[name, "bend"], measured[name, "detour"]) for name in models
    )
    straight, vp = measured["flow", "detour"], measured["vp", "detour"]
    return Finding(
        claim="Rectified flow's paths are straighter than VP's, and a round of reflow makes them "
        "straighter still",
        published="no figure of its own: pictures of paths in the plane and of straightness on "
        "CIFAR-10; the bend of the straightest of K rounds falls as 1/K (arXiv 2209.03003, "
        "section 3)",
        measured=f"length of the paths over the straight way: {vp} for VP, {straight} for "
        f"rectified flow, {measured['reflow', 'detour']} after reflow",
        holds=straight.below(vp)
        and measured["reflow", "detour"].below(straight)
        and measured["reflow", "bend"].below(measured["flow", "bend"]),
        if_not="After a short training the flows of this toy are bent alike.",
        table=Table(("model", "bend, in its own time", "length over chord"), rows),
        figures=(bench.plot("toy", toy_paths(bench)),),
        comment="Bend is the mean square distance of the velocity from the chord's, over the "
        "chord's (S of section 2.2, relative); it depends on the clock, the length does not. The "
        "picture: a flow from a Gaussian to four clusters, before reflow and after.",
    )


def toy_paths(bench: Bench) -> Any:
    """The paths of forty points before and after reflow."""
    from matplotlib.figure import Figure

    plans, seed = recipes(), bench.seeds[0]
    first = bench.train(plans["toy"], "toy", seed)
    after = second(bench, first, plans["toy_reflow"], "toy_reflow", (2,), seed)
    z, figure = noise(seed + 100, 40, (2,)), Figure(figsize=(8, 4))
    titles = ("rectified flow", "reflowed once")
    for axes, task, title in zip(figure.subplots(1, 2), (first, after), titles, strict=True):
        path, moments = walked(task, z, 50)
        axes.plot(path[..., 0], path[..., 1], color="0.7", linewidth=0.8)
        axes.plot(*path[0].T, "o", markersize=3, label="noise")
        axes.plot(*path[-1].T, "o", markersize=3, label="data")
        axes.set_title(f"{title}: bend {bend(path, moments):.3f}")
        axes.set_aspect("equal")
    axes.legend()
    return figure


# 2. Few steps ------------------------------------------------------------------------------------


def distances(bench: Bench, models: Models) -> dict[tuple[str, int], Measured]:
    """Energy distance to unseen digits by model and number of Euler (DDIM) steps."""
    return {
        (name, n): Measured.over(
            [
                distance(draw(task, Ddim(), TrailingGrid(), n, bench.count(300, 20), seed=seed))
                for task, seed in zip(tasks, bench.seeds, strict=True)
            ]
        )
        for name, tasks in models.items()
        for n in STEPS
    }


def few_steps(bench: Bench, models: Models, far: dict[tuple[str, int], Measured]) -> Finding:
    """Rectified flow by Euler against VP by DDIM."""
    rows: Rows = tuple((NAMES[name], *(far[name, n] for n in STEPS)) for name in models)
    digits = [draw(models[m][0], Ddim(), TrailingGrid(), n, 12) for m in models for n in (1, 2, 8)]
    return Finding(
        claim="In few Euler steps rectified flow draws better than VP with DDIM",
        published="CIFAR-10, FID 2.58 at 127 adaptive evaluations against 3.93 at 140 for the VP "
        "ODE; both fail in one Euler step, 378 against 451 (arXiv 2209.03003, table 1)",
        measured="energy distance to unseen digits at 2, 4 and 8 steps: "
        + ", ".join(str(far["flow", n]) for n in (2, 4, 8))
        + " for rectified flow; "
        + ", ".join(str(far["vp", n]) for n in (2, 4, 8))
        + " for VP",
        holds=all(far["flow", n].below(far["vp", n]) for n in (2, 4, 8)),
        table=Table(("model", *(f"{n} steps" for n in STEPS)), rows),
        figures=(sheet(bench, "digits", digits, 12),),
        comment=f"Training digits themselves reach {floor():.3f}. Euler's method in t for a "
        "straight flow and DDIM are one update; steps are even in t and begin at pure noise. The "
        "rows of digits: each model of the table at 1, 2 and 8 steps.",
    )


def reflow(bench: Bench, far: dict[tuple[str, int], Measured]) -> Finding:
    """One step before and after reflow."""
    before, after = far["flow", 1], far["reflow", 1]
    return Finding(
        claim="A round of reflow makes a single Euler step usable",
        published="CIFAR-10, one Euler step: FID 378 before, 12.21 after one round, 8.15 after two "
        "(arXiv 2209.03003, table 1)",
        measured=f"energy distance in one step {before} before, {after} after; 64 steps of the "
        f"first model {far['flow', 64]}",
        holds=after.below(before),
        if_not="The pairs are those of a small model: reflow straightens its paths and "
        "keeps its errors.",
        comment=f"{bench.count(20_000, 300):,} pairs by {bench.count(20, 10)} Euler steps; the "
        "second network starts afresh, where the paper goes on from the first.",
    )


def times(far: dict[tuple[str, int], Measured]) -> Finding:
    """Logit-normal against uniform times in training."""
    even, middle = far["flow", 64], far["logit_normal", 64]
    return Finding(
        claim="Times drawn logit-normally train better than uniform ones",
        published="rf/lognorm(0.00, 1.00) has the best mean rank of 61 formulations "
        "(arXiv 2403.03206, section 5.1, table 1)",
        measured=f"energy distance at 64 steps {middle} with logit-normal, {even} with uniform "
        f"times; at 8 steps {far['logit_normal', 8]} and {far['flow', 8]}",
        holds=middle.below(even),
        if_not="The gain was found on pictures whose middle times are the hard ones; "
        "digits of 8 x 8 pixels have little that only those decide.",
    )


STUDY = Study(
    title="Rectified flow",
    paper="Liu et al. 2022, arXiv 2209.03003; Esser et al. 2024, arXiv 2403.03206",
    about="Noise and data are joined by straight lines, and a network learns the mean direction at "
    "each point. The flow that results bends where lines crossed; trained once more on the pairs "
    "that it makes itself, it hardly does. Models of 8 x 8 digits.",
    run=run,
)
