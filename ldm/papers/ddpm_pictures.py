"""DDPM's chain as pictures, and interpolation within it (2006.11239 sections 4.3 and 4.4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ldm.diffusion import Ancestral, Noise, lerp, sample, start, trajectory
from ldm.papers.bench import Bench
from ldm.papers.digit_chain import SHAPE, bound, bytes_of, digits, distance, steps
from ldm.papers.findings import Finding, Measured, Table

MOMENTS = 10


def chains(bench: Bench, task: Any) -> tuple[str, ...]:
    """The forward chain of four digits; the reverse chain of eight samples, x_t above x0."""
    forward = bench.pictures("forward", bytes_of(noised(task, 4)), MOMENTS, enlarge=4)
    reverse = bench.pictures("reverse", bytes_of(walked(task, 4)), MOMENTS, enlarge=4)
    return forward, reverse


def noised(task: Any, n: int) -> Tensor:
    """Rows of a digit under more and more noise: [n*MOMENTS 1 8 8]."""
    process, x0 = task.stage.denoiser.process, digits("train", n)
    eps = Noise(range(n)).normal(SHAPE)
    times = steps(process, MOMENTS).flip(0)
    rows = [process.perturb(x0, t.expand(n), eps) for t in times]
    return torch.stack(rows, 1).flatten(0, 1)


@torch.no_grad()
def walked(task: Any, n: int) -> Tensor:
    """For each sample a row of x_t and, below it, a row of what x0 was thought to be."""
    process, noise = task.stage.denoiser.process, Noise(range(n))
    times = steps(process)
    x = start(process, times, noise, SHAPE)
    every = list(trajectory(bound(task), process, Ancestral(), times, x, noise))
    keep = torch.linspace(0, len(every) - 1, MOMENTS).round().int().tolist()
    rows = [torch.stack([every[i].x, every[i].x0], 1) for i in keep]  # [n 2 1 8 8] each
    return torch.stack(rows, 2).flatten(0, 2)


@torch.no_grad()
def between(
    task: Any, first: Tensor, second: Tensor, share: Tensor | float, index: int, noise: Noise
) -> Tensor:
    """Both digits [n 1 8 8] noised alike to times[index], mixed in `share`, and walked back."""
    process = task.stage.denoiser.process
    times = steps(process)[index:]
    t, eps = times[0].expand(len(first)), noise.normal(SHAPE)
    mixed = lerp(process.perturb(first, t, eps), process.perturb(second, t, eps), share)
    return sample(bound(task), process, Ancestral(), times, mixed, noise).clamp(-1, 1)


def interpolation(bench: Bench, tasks: list[Any]) -> Finding:
    """Halfway pictures by the chain and by mixing pixels."""
    n = bench.count(300, 80)
    first, second = digits("train", 2 * n).chunk(2)
    length = tasks[0].stage.denoiser.process.num_steps
    places = {"a quarter": 3 * length // 4, "half": length // 2, "three quarters": length // 4}

    def halfway(index: int, task: Any) -> Tensor:
        return between(task, first, second, 0.5, index, Noise(range(n)))

    found = {
        name: Measured.over([distance(halfway(i, task)) for task in tasks])
        for name, i in places.items()
    }
    pixels = distance((first + second) / 2)
    rows = tuple((f"{name} of the chain", value) for name, value in found.items())
    return Finding(
        claim="Mixtures of two noised pictures decode to pictures, mixtures of pixels do not",
        published="CelebA-HQ, mixed at t = 500 of 1000: faces that vary smoothly (figure 8); no "
        "figure in numbers",
        measured=f"halfway at half of the chain: Fréchet distance {found['half']}, by pixels "
        f"{pixels:.3g}",
        holds=found["half"].below(Measured(pixels, None, 1)),
        table=Table(("noised to", "Fréchet distance"), (("pixels mixed", pixels), *rows)),
        figures=(bench.pictures("interpolation", bytes_of(sheet(tasks[0], places)), 9, enlarge=4),),
        comment=f"{n} pairs of training digits. Picture: from one digit to the next in eight "
        "steps; a pair's rows are mixed in pixels, then at a quarter, half and three quarters "
        "of the chain.",
    )


def sheet(task: Any, places: dict[str, int]) -> Tensor:
    """Rows for three pairs: mixed in pixels, then in the chain at each of the places."""
    shares = torch.linspace(0, 1, 9)
    rows = []
    for i in (0, 2, 8):  # one and the same noise in all of a pair's pictures
        first, second = (x.expand(9, -1, -1, -1) for x in digits("train")[i : i + 2].split(1))
        rows.append(lerp(first, second, shares))
        rows += [
            between(task, first, second, shares, index, Noise([i] * 9)) for index in places.values()
        ]
    return torch.cat(rows)
