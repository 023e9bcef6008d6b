"""x_T as a code of a picture: there and back; between two codes (2010.02502 sections 5.3, 5.4)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ldm.diffusion import Ddim, Noise, invert, lerp, sample, slerp
from ldm.papers.bench import Bench
from ldm.papers.digit_chain import SHAPE, bound, bytes_of, digits, distance, steps
from ldm.papers.findings import Finding, Measured, Table

COUNTS = (10, 20, 50, 100, 200)
PUBLISHED = (0.014, 0.0065, 0.0023, 0.0009, 0.0004)
"""CIFAR-10's error at these numbers of steps: 2010.02502 table 2."""
STEPS = 25


@torch.no_grad()
def returned(task: Any, x0: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """x0 [n 1 8 8] brought to x_T and back in `count` steps each way: (x_T, x0 again)."""
    process, denoise = task.stage.denoiser.process, bound(task, clip=False)
    times, unused = steps(process, count), Noise([0])
    code = invert(denoise, process, Ddim(), times, x0, unused)
    return code, sample(denoise, process, Ddim(), times, code, unused)


def round_trip(bench: Bench, tasks: list[Any]) -> Finding:
    """Error of coding and decoding over the number of steps."""
    x0 = digits("test", bench.count(64, 32))
    found = [
        Measured.over(
            [float((returned(task, x0, n)[1] - x0).square().mean()) / 4 for task in tasks]
        )
        for n in COUNTS
    ]
    code, again = returned(tasks[0], x0[:12], 50)
    return Finding(
        claim="Coding a picture into x_T and decoding it loses less, the more steps are taken",
        published="CIFAR-10, error a dimension at 10, 20, 50, 100, 200 steps: "
        + ", ".join(f"{v:g}" for v in PUBLISHED)
        + " (table 2)",
        measured=", ".join(f"{n} steps: {v}" for n, v in zip(COUNTS, found, strict=True)),
        holds=all(more.below(less) for less, more in pairwise(found)),
        table=Table(
            ("steps", "mean squared error here", "published, CIFAR-10"),
            tuple(zip(map(str, COUNTS), found, PUBLISHED, strict=True)),
        ),
        figures=(
            bench.pictures(
                "round_trip", bytes_of(torch.cat([x0[:12], code / 3, again])), 12, enlarge=4
            ),
        ),
        comment="Held-out digits, pixels brought to [0, 1]. Pictures: digits, their x_T (a third "
        "of it), and what 50 steps make of that.",
    )


@torch.no_grad()
def decoded(task: Any, code: Tensor) -> Tensor:
    """x_T [n 1 8 8] -> digits in [-1, 1]."""
    process = task.stage.denoiser.process
    x = sample(
        bound(task, clip=False), process, Ddim(), steps(process, STEPS), code, Noise([0])
    )  # fmt: skip
    return x.clamp(-1, 1)


def latents(bench: Bench, tasks: list[Any]) -> Finding:
    """Halfway between two x_T: on the sphere and on the straight line."""
    n = bench.count(400, 80)
    first, second = Noise(range(2 * n)).normal(SHAPE).chunk(2)
    half = torch.full((n,), 0.5)
    ways = {"slerp": slerp(first, second, half), "lerp": lerp(first, second, half)}
    whole = torch.cat([first, second]).flatten(1).norm(dim=1).mean()
    sizes = {
        name: Measured.over((way.flatten(1).norm(dim=1) / whole).tolist())
        for name, way in ways.items()
    }
    found = {
        name: Measured.over([distance(decoded(task, way)) for task in tasks])
        for name, way in ({"x_T itself": first} | ways).items()
    }
    return Finding(
        claim="Between two x_T the arc stays as loud as noise and decodes to pictures; the "
        "straight line does neither",
        published="CelebA, LSUN: interpolation by slerp (section 5.3, figure 6, equation 67); no "
        "figure in numbers",
        measured=f"halfway, the norm is {sizes['slerp']} of that of x_T by slerp and "
        f"{sizes['lerp']} by lerp; Fréchet distance {found['slerp']} and {found['lerp']}",
        holds=abs(sizes["slerp"].mean - 1) < 0.02
        and sizes["lerp"].mean < 0.8
        and found["slerp"].below(found["lerp"]),
        table=Table(
            ("way", "norm halfway, of that of x_T", "Fréchet distance halfway"),
            (
                ("no way: x_T itself", 1.0, found["x_T itself"]),
                *((name, sizes[name], found[name]) for name in ways),
            ),
        ),
        figures=(bench.pictures("between", bytes_of(sheet(tasks[0])), 9, enlarge=4),),
        comment=f"{n} pairs of x_T, {STEPS} steps with η = 0. Pictures: three pairs, each by slerp "
        "and below it by lerp.",
    )


def sheet(task: Any) -> Tensor:
    """Nine pictures a row, by slerp and then by lerp, for three pairs."""
    shares, rows = torch.linspace(0, 1, 9), []
    for seed in (0, 2, 4):
        a, b = (x.expand(9, -1, -1, -1) for x in Noise([seed, seed + 1]).normal(SHAPE).split(1))
        rows += [slerp(a, b, shares), lerp(a, b, shares)]
    return decoded(task, torch.cat(rows))
