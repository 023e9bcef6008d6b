"""DiT (Peebles & Xie 2022, arXiv 2212.09748): a transformer over patches in the U-Net's place.

Sizes and costs against the paper's table; then the same small transformer at three patch sides,
and a U-Net, with all else the same.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ldm.diffusion import DpmSolverPP2M, LogSnrGrid, Mse, V, VPCosine
from ldm.networks.dit import DiTConfig, dit_config
from ldm.papers.bench import Bench, Study
from ldm.papers.digit_models import SHAPE, digit_recipe, distance, draw, floor, sheet
from ldm.papers.findings import Finding, Measured, Rows, Table
from ldm.papers.flops import multiply_adds, parameters
from ldm.papers.small import digit_unet
from ldm.papers.steps import log_axis
from ldm.recipe import Recipe
from ldm.stage import Buildable
from ldm.training import OptimConfig

PUBLISHED: dict[str, tuple[float, float]] = {
    "S/8": (33, 0.36),
    "S/4": (33, 1.41),
    "S/2": (33, 6.06),
    "B/8": (131, 1.42),
    "B/4": (130, 5.56),
    "B/2": (130, 23.01),
    "L/8": (459, 5.01),
    "L/4": (458, 19.70),
    "L/2": (458, 80.71),
    "XL/8": (676, 7.39),
    "XL/4": (675, 29.05),
    "XL/2": (675, 118.64),
}
"""Millions of parameters and Gflops for 32 x 32 x 4 latents: table 4 of the paper."""
CLASSES = 1_001
"""Rows of the published models' table of classes; here it is the conditioner's."""
IMAGES = 64_000
NETWORKS: dict[str, Buildable] = {
    **{
        f"patch_{p}": DiTConfig(
            in_channels=1, out_channels=1, patch_size=p, depth=2, width=64, heads=2, apart=16.0
        )
        for p in (4, 2, 1)
    },
    "unet": digit_unet(channels=(16, 32)),
}
NAMES = {
    "patch_4": "DiT, patch 4",
    "patch_2": "DiT, patch 2",
    "patch_1": "DiT, patch 1",
    "unet": "U-Net",
}


def recipes() -> dict[str, Recipe]:
    """One recipe; only the network differs."""
    return {name: plan(network) for name, network in NETWORKS.items()}


def plan(network: Buildable) -> Recipe:
    """`IMAGES` digits in batches of 32."""
    made = digit_recipe(
        VPCosine(),
        V(),
        Mse(),
        images=IMAGES,
        network=network,
        optim=OptimConfig(lr=2e-3, warmup_images=1_000),
    )
    return dataclasses.replace(
        made,
        data=dataclasses.replace(made.data, batch_size=32),  # type: ignore[type-var]
        loop=dataclasses.replace(made.loop, ema_half_life=1_000),
    )


def run(bench: Bench) -> list[Finding]:
    """Sizes; patches; DiT against U-Net."""
    models = {
        name: [bench.train(recipe, name, seed) for seed in bench.seeds]
        for name, recipe in recipes().items()
    }
    n = bench.count(300, 20)
    drawn = {
        name: [
            draw(task, DpmSolverPP2M(), LogSnrGrid(), 15, n, seed=seed)
            for task, seed in zip(tasks, bench.seeds, strict=True)
        ]
        for name, tasks in models.items()
    }
    far = {name: Measured.over([distance(x) for x in xs]) for name, xs in drawn.items()}
    figure = sheet(bench, "digits", [drawn[name][0] for name in models], 12)
    return [sizes(), patches(bench, far, figure), in_place(far)]


def sizes() -> Finding:
    """Parameters and multiply-adds of the twelve published networks."""
    rows = tuple(counted(name) for name in PUBLISHED)
    worst = max(max(abs(row[2] / row[1] - 1), abs(row[4] / row[3] - 1)) for row in rows)
    return Finding(
        claim="The published sizes have the published parameters and cost",
        published="33 M to 676 M parameters, 0.36 to 118.64 Gflops (arXiv 2212.09748, table 4)",
        measured=f"the largest relative difference over twelve networks is {worst:.1%}",
        holds=worst < 0.03,
        table=Table(
            (
                "DiT",
                "published, M parameters",
                "here",
                "published, Gflops",
                "here, 1e9 multiply-adds",
            ),
            rows,
        ),
        comment="Published columns are not measured here. The paper's Gflops are multiply-adds. "
        "Our parameters include 1,001 rows of classes, which the conditioner holds here; networks "
        "are made without memory, so nothing is run.",
    )


def counted(name: str) -> tuple[str, float, float, float, float]:
    """A published network, its published figures and ours."""
    size, _, patch = name.partition("/")
    config = dit_config(size, int(patch), in_channels=4, out_channels=8)  # type: ignore[arg-type]
    millions = (parameters(config) + CLASSES * config.width) / 1e6
    cost = multiply_adds(config, (4, 32, 32)) / 1e9
    return (name, PUBLISHED[name][0], millions, PUBLISHED[name][1], cost)


def patches(bench: Bench, far: dict[str, Measured], figure: str) -> Finding:
    """Distance to real digits over the patch side."""
    rows: Rows = tuple(
        (NAMES[n], parameters(c), multiply_adds(c, SHAPE), far[n]) for n, c in NETWORKS.items()
    )
    four, two, one = (far[f"patch_{p}"] for p in (4, 2, 1))
    return Finding(
        claim="At the same size and images, smaller patches are better",
        published="FID of DiT-XL at patch 8, 4 and 2 after 400,000 steps: 106.41, 43.01, 19.47 "
        "(arXiv 2212.09748, table 4)",
        measured=f"energy distance to unseen digits {four}, {two} and {one} at patch 4, 2 and 1",
        holds=two.below(four) and one.below(two),
        if_not="The means fall with the patch, but by less than two standard errors: four patches "
        "of 4 x 4 pixels show an 8 x 8 digit nearly as well as 64 of one pixel, and the paper "
        "compares after 400,000 steps, not 2,000.",
        table=Table(
            ("network", "parameters", "multiply-adds a digit", "energy distance"),
            rows,
        ),
        figures=(figure, bench.plot("cost", scatter(far))),
        comment=f"{IMAGES:,} digits for each network; training digits reach {floor():.3f}. "
        "Patches of 4, 2 and 1 cut a digit of 8 x 8 into 4, 16 and 64 tokens, as 8, 4 and 2 cut "
        "the paper's latents into 16, 64 and 256. The sinusoid of positions is stretched 16 times: "
        "its slow waves are all but constant over so few patches. Rows of digits: as in the table.",
    )


def in_place(far: dict[str, Measured]) -> Finding:
    """The DiT against the U-Net, at the nearest cost."""
    goal = multiply_adds(NETWORKS["unet"], SHAPE)
    costs = {n: multiply_adds(c, SHAPE) for n, c in NETWORKS.items() if n != "unet"}
    near = min(costs, key=lambda name: abs(costs[name] / goal - 1))
    return Finding(
        claim="At a comparable cost, with all else the same, a DiT draws better than a U-Net",
        published="ImageNet-256, no guidance: DiT-XL/2 FID 9.62 at 119 Gflops against 10.56 for "
        "LDM-4 at 104 and 10.94 for ADM at 1,120 (arXiv 2212.09748, section 5.1, table 2)",
        measured=f"energy distance {far[near]} for the DiT of nearest cost ({NAMES[near]}, "
        f"{costs[near]:,} multiply-adds) and {far['unet']} for the U-Net ({goal:,})",
        holds=far[near].below(far["unet"]),
        if_not=f"The published networks saw millions of pictures, these {IMAGES:,} draws from "
        "1,437; a convolution's bias is worth most where data are few.",
    )


def scatter(far: dict[str, Measured]) -> Any:
    """Distance over cost, a point for each network."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5))
    axes = figure.subplots()
    costs = {name: multiply_adds(config, SHAPE) / 1e6 for name, config in NETWORKS.items()}
    for name, cost in costs.items():
        axes.errorbar(cost, far[name].mean, far[name].error, fmt="o", label=NAMES[name])
    log_axis(axes, list(costs.values()), "{:.2g}")
    axes.set_xlabel("million multiply-adds a digit")
    axes.set_ylabel("energy distance to unseen digits")
    axes.legend()
    return figure


STUDY = Study(
    title="DiT",
    paper="Peebles & Xie 2022, arXiv 2212.09748",
    about="The network of a diffusion model need not be a U-Net: a transformer over patches, whose "
    "layers are scaled, shifted and gated by the time (adaLN-Zero), does as well or better, and "
    "better the more it computes. Networks of the published sizes are counted; small ones are "
    "trained on 8 x 8 digits.",
    run=run,
)
