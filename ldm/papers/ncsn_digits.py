"""NCSN on 8 x 8 digits: annealed against plain Langevin with one network, and inpainting.

n pictures [n 1 8 8]
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from autoencoder.pixels import to_uint8
from ldm.conditioning import Cond
from ldm.data.digits import Digits
from ldm.diffusion import (
    LadderStep,
    Langevin,
    Noise,
    PredictorCorrector,
    Replacing,
    Solver,
    Stay,
    UniformGrid,
)
from ldm.diffusion.repeated import RepeatedGrid
from ldm.diffusion.sample import trajectory
from ldm.papers.bench import Bench
from ldm.papers.findings import Finding, Measured, Table
from ldm.papers.halves import ASKED, Halves, beats_controls, distance, halves_table, judged
from ldm.papers.measures import energy_distance
from ldm.recipe import Recipe

REPEATS = 12  # Langevin steps a level; the paper takes 100
SOLVER = PredictorCorrector(
    predictor=Stay(), corrector=Langevin(step_size=LadderStep(epsilon=0.2 * 0.05**2))
)
"""The paper's ratio of step to sigma^2 in its code's convention: 2e-5/0.01^2."""


def digits(bench: Bench, plan: Recipe, levels: int) -> list[Finding]:
    """Train under each seed, draw, complete."""
    tasks = [bench.train(plan, "digits", seed) for seed in bench.seeds]
    return [drawn(bench, tasks, levels), completed(bench, tasks, levels)]


def drawn(bench: Bench, tasks: list[Any], levels: int) -> Finding:
    """Energy distance to held-out digits, annealed and at the lowest level alone."""
    annealed = [draw(bench, task, levels, plain=False) for task in tasks]
    plain = [draw(bench, task, levels, plain=True) for task in tasks]
    real, other = Digits(part="test").whole().image, Digits().whole().image
    assert real is not None and other is not None
    held_out = real.float() / 127.5 - 1
    far = Measured.over([energy_distance(x[-1], held_out) for x in plain])
    near = Measured.over([energy_distance(x[-1], held_out) for x in annealed])
    floor = energy_distance(other.float() / 127.5 - 1, held_out)
    rows = (
        ("annealed", near),
        ("lowest level alone", far),
        ("training digits (the best there is)", floor),
    )
    return Finding(
        claim="Annealed Langevin dynamics draws pictures; at the lowest level alone it does not",
        published="CIFAR-10, annealed: inception score 8.87, FID 25.32 (table 1)",
        measured=f"energy distance to held-out digits {near} annealed, {far} at the lowest level "
        f"alone, {floor:.3f} for the training digits",
        holds=near.below(far),
        table=Table(("samples", "energy distance"), rows),
        figures=(
            bench.pictures("digits_chain", chain(annealed[0], levels), levels, enlarge=5),
            bench.pictures("digits_plain", to_uint8(plain[0][-1][:10]), 10, enlarge=5),
        ),
        comment=f"{REPEATS} Langevin steps a level from noise of the largest sigma, then one "
        "denoising. First picture: each row a digit, the columns the ends of the levels. Second: "
        "as many steps from uniform noise at the lowest level.",
    )


def draw(bench: Bench, task: Any, levels: int, *, plain: bool) -> list[Tensor]:
    """Pictures [n 1 8 8] after each step."""
    denoiser, n = task.stage.denoiser, bench.count(40, 10)
    process, noise = denoiser.process, Noise(range(n))
    times = RepeatedGrid(base=UniformGrid(), repeats=REPEATS)(process, REPEATS * levels)
    x = noise.normal((1, 8, 8))
    if plain:
        times, x = torch.full_like(times, process.t_min), torch.erf(x / 2**0.5)  # uniform
    else:
        x = process.sigma_max * x
    moments = trajectory(denoiser.bind(Cond()), process, SOLVER, times, x, noise)
    return [m.x for m in moments]


def chain(moments: list[Tensor], levels: int) -> Tensor:
    """Four digits at the end of each level, one a row: uint8 [n 1 8 8]."""
    ends = moments[REPEATS - 1 :: REPEATS]
    rows = torch.stack([x[:4] for x in ends], dim=1)
    return to_uint8(rows.flatten(0, 1))


def completed(bench: Bench, tasks: list[Any], levels: int) -> Finding:
    """The right half of held-out digits from the left."""
    halves = [Halves.of_test_digits(bench.count(80, 20), seed) for seed in bench.seeds]
    filled = [complete(task, h, levels, 0) for task, h in zip(tasks, halves, strict=True)]
    again = complete(tasks[0], few(halves[0]), levels, 1000)
    runs = [h.measured(x) for h, x in zip(halves, filled, strict=True)]
    exact = all(h.exact(x) for h, x in zip(halves, filled, strict=True))
    other, average = "another digit's half", "the average picture's half"
    return Finding(
        claim="Known pixels put back at each step's noise make annealed Langevin an inpainter",
        published="figure 6 of the paper (pictures, no figure in numbers)",
        measured=f"known pixels {'are exact' if exact else 'are changed'}; a judge sees the true "
        f"digit in {judged(runs, 'inpainted')} of the completed ones, in {judged(runs, other)} "
        f"with {other}; energy distance to digits {distance(runs, 'inpainted')}, with {average} "
        f"{distance(runs, average)}",
        holds=exact and beats_controls(runs),
        table=halves_table(runs),
        figures=(bench.pictures("inpainting", rows_of(halves[0], filled[0], again), 10, 5),),
        comment="Held-out digits, the left half known; the judge is a support vector machine on "
        "the training digits. "
        + ASKED
        + " In the picture: the digits, what is known of them (the rest grey), and two completions "
        "from different seeds.",
    )


def few(halves: Halves) -> Halves:
    """Ten of them, for a picture."""
    return Halves(halves.whole[:10], halves.label[:10], halves.judge)


def complete(task: Any, halves: Halves, levels: int, seed: int) -> Tensor:
    """Inpainted digits [n 1 8 8]."""
    denoiser, n = task.stage.denoiser, len(halves.whole)
    solver: Solver = Replacing(solver=SOLVER, projection=halves.known, known=halves.whole)
    times = RepeatedGrid(base=UniformGrid(), repeats=REPEATS)(denoiser.process, REPEATS * levels)
    noise = Noise(range(seed, seed + n))
    x = denoiser.process.sigma_max * noise.normal((1, 8, 8))
    *_, last = trajectory(denoiser.bind(Cond()), denoiser.process, solver, times, x, noise)
    return last.x


def rows_of(halves: Halves, first: Tensor, second: Tensor) -> Tensor:
    """Digits, what is known, and two completions: uint8 [40 1 8 8]."""
    known = halves.filled(torch.zeros_like(halves.whole))
    return to_uint8(torch.cat([x[:10] for x in (halves.whole, known, first, second)]))
