"""Score-SDE's colourisation: grey digits are given colours.

n pictures [n 3 8 8] in [-1, 1]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from autoencoder.pixels import to_uint8
from ldm.codec import Pixels
from ldm.data.batch import Batch
from ldm.data.enlarged import ColouredDigits
from ldm.diffusion import Grey, Noise, Replacing, UniformGrid
from ldm.papers.bench import Bench
from ldm.papers.findings import Finding, Measured, Rows, Table
from ldm.papers.measures import energy_distance, rms
from ldm.papers.sde_exact import CORRECTED
from ldm.samplers import Sampler

STEPS = 50
"""Each is corrected once: two evaluations."""
COLOURED, SWAPPED, GREY, TRUE = (
    "colourised",
    "another digit's colours on this grey",
    "left grey",
    "true colours",
)


class Seen(NamedTuple):
    """Share of the energy that is not of one colour; energy distance to coloured digits."""

    mixed: Measured
    distance: Measured


def colourisation(bench: Bench, tasks: list[Any]) -> Finding:
    """Colours for the grey of coloured digits."""
    n = bench.count(64, 8)
    whole = Pixels().encode(ColouredDigits(side=8, part="test").whole())
    real, others = whole[:n], whole[n:]
    grey = real.mean(1, keepdim=True).expand_as(real)
    drawn = [coloured(task, real, 0) for task in tasks]
    again = coloured(tasks[0], real, 1000)
    grey_gap = max(float((x.mean(1) - real.mean(1)).abs().max()) for x in drawn)
    found = {
        COLOURED: seen(drawn, others),
        SWAPPED: seen([Grey().replace(real.roll(1, 0), real)], others),
        GREY: seen([grey], others),
        TRUE: seen([real], others),
    }
    varied = rms(drawn[0] - again)
    rows: Rows = tuple((way, *values) for way, values in found.items())
    return Finding(
        claim="In an orthonormal colour basis grey is kept and the model adds matching colours",
        published="section 5, appendix I.3 (pictures, no figure in numbers)",
        measured=f"grey is kept to {grey_gap:.1g}; {found[COLOURED].mixed} of a colourised digit's "
        f"energy is not of one colour, {found[SWAPPED].mixed} with {SWAPPED}; energy distance to "
        f"coloured digits {found[COLOURED].distance}, {found[GREY].distance} {GREY}; two seeds "
        f"differ by {varied:.2f} a pixel",
        holds=grey_gap < 1e-5
        and varied > 0.05
        and found[GREY].mixed.mean < 1e-6
        and beats_controls(found),
        if_not="Only grey is held: what a small network errs at high noise goes on in the colours.",
        table=Table(
            ("picture", "energy that is not of one colour", "energy distance to coloured digits"),
            rows,
        ),
        figures=(bench.pictures("colours", rows_of(real, grey, drawn[0], again), 10, enlarge=5),),
        comment="Held-out digits in a random hue on black; each is its brightness times one "
        "colour, so the energy beyond the first singular value of [channels, pixels] says how far "
        "a picture is from having one hue. The distance is to other held-out digits. The verdict "
        "asks for less mixed colours than another digit's and for a smaller distance than no "
        "colours': swapped ones are true colours, which a distance between clouds cannot tell, and "
        "grey is one colour. In the picture: true, grey, and two colourisations.",
    )


def beats_controls(found: Mapping[str, Seen]) -> bool:
    """Whether colours match better than swapped ones, and look more like digits' than none."""
    matches = found[COLOURED].mixed.below(found[SWAPPED].mixed)
    return matches and found[COLOURED].distance.below(found[GREY].distance)


def coloured(task: Any, real: Tensor, seed: int) -> Tensor:
    """Pictures [n 3 8 8] with the grey of `real`."""
    sampler = Sampler(
        solver=Replacing(solver=CORRECTED, projection=Grey(), known=real),
        grid=UniformGrid(),
        steps=STEPS,
    )
    noise = Noise(range(seed, seed + len(real)))
    with torch.no_grad():
        x0: Tensor = task.stage.sample(Batch(key=("",) * len(real)), sampler, noise, (3, 8, 8))
    return x0


def seen(drawn: list[Tensor], others: Tensor) -> Seen:
    """Measured over the trainings that drew."""
    return Seen(
        Measured.over([mixed_colours(x) for x in drawn]),
        Measured.over([energy_distance(x, others) for x in drawn]),
    )


def mixed_colours(x: Tensor) -> float:
    """Share of the energy of pictures [n 3 h w] beyond one colour times brightness."""
    energy = torch.linalg.svdvals((x.double() + 1).flatten(2) / 2).square()
    return float((1 - energy[:, 0] / energy.sum(1)).mean())


def rows_of(*parts: Tensor) -> Tensor:
    """Ten of each, uint8."""
    return to_uint8(torch.cat([x[:10] for x in parts]))
