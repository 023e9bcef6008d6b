"""What guidance buys and what it costs: fidelity, captions and diversity over ways and scales.

n pictures; s pixels
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ldm.errors import RequestError, suggest
from ldm.evaluation.figures import Figure
from ldm.evaluation.grids import sheet
from ldm.evaluation.guides import WAYS, Told, Way
from ldm.evaluation.plots import Point, paths
from ldm.evaluation.section import Bench, Section
from ldm.evaluation.sweep import MEASURED, Asked, Meter, about, ask, draw, own_sampler, pictures
from ldm.samplers import Sampler

if TYPE_CHECKING:
    from PIL import Image

PLAIN = "no guidance"
UNGUIDED = Way(sampler=lambda plain, scale, told: plain, scales=(), describes={})
DISTANCE = "distance, one caption"
SHOWN = 6
NOTES = (
    "Every row draws the same captions from the same seeds and the same embeddings of the prior; "
    "only the guidance of the decoder differs. Distance: 1 - cosine of content features between "
    "the pictures of one caption, which differ in their seeds alone: the diversity that guidance "
    "pays with.",
    MEASURED,
    "Classifier-free: Ho and Salimans 2022 (arXiv 2207.12598), scale 1 is the plain model; within "
    "an interval: Kynkäänniemi et al. 2024 (arXiv 2404.07724); with rescale: Lin et al. 2023 "
    "(arXiv 2305.08891). CLIP: the gradient of the cosine to the caption by a tower that knows no "
    "noise and looks at the expected picture; it is the CLIP of the last column, so that this "
    "column cannot praise it (Nichol et al. 2021, arXiv 2112.10741, section 2.3, say that such a "
    "tower guides badly). Style classifier: Dhariwal and Nichol 2021 (arXiv 2105.05233), on "
    "noised latents, fitted within this section; it knows nothing of concepts. Scale 0 of these "
    "two is the plain model.",
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is drawn at each point: `copies` pictures of each of `captions`, in `steps`."""

    captions: int = 32
    copies: int = 2
    steps: int = 12

    def __post_init__(self) -> None:
        if self.captions < 2 or self.copies < 2 or self.steps < 1:
            raise RequestError(
                f"{self.captions} captions, {self.copies} pictures of each in {self.steps} steps: "
                "give 2 captions, 2 pictures and 1 step or more"
            )


def evaluate(bench: Bench, plan: Plan | None = None, ways: Sequence[str] = ()) -> Section:
    """Figures at every scale of the named ways (default: all), and the fronts they draw."""
    plan = plan or Plan()
    built = {name: WAYS[name](bench) for name in named(ways)}
    asked, meter = ask(bench, plan.captions, plan.copies), Meter(bench)
    plain = replace(own_sampler(bench, plan.steps), guidance=1.0, interval=None, rescale=0.0)
    told = _told(bench, asked)
    drawn = {PLAIN: _drawn(bench, asked, plain, UNGUIDED, 0.0, told)}
    for name, way in built.items():
        for scale in way.scales:
            drawn[row_name(name, scale)] = _drawn(bench, asked, plain, way, scale, told)
    rows = {
        name: {DISTANCE: meter.distance(asked, images), **meter(asked, images)}
        for name, images in drawn.items()
    }
    drawings = plots(built, rows, meter.kid)
    grid, captions = _sheet(bench, asked, built, drawn)
    return Section(
        title="Guidance",
        notes=(*NOTES, *(way.note for way in built.values() if way.note), _about_grid(built)),
        protocol={
            **about(bench, asked, meter),
            "plain sampler": plain.describe(),
            "ways": {name: dict(way.describes) for name, way in built.items()},
        },
        rows=rows,
        grids={**drawings, "guidance-pictures": grid},
        shown={**{name: () for name in drawings}, "guidance-pictures": captions},
    )


def named(ways: Sequence[str]) -> list[str]:
    """The names in the order of `WAYS`; all for none.

    Raises:
        RequestError: a name that is no way to guide.
    """
    for name in ways:
        if name not in WAYS:
            raise RequestError(
                f"no way to guide {name!r}.{suggest(name, WAYS)} There are: {', '.join(WAYS)}"
            )
    return [name for name in WAYS if not ways or name in ways]


def row_name(way: str, scale: float) -> str:
    """What a row of the table is called."""
    return f"{way}, {scale:g}"


def plots(
    ways: Mapping[str, Way], rows: Mapping[str, Mapping[str, Figure]], kid: str
) -> dict[str, Image.Image]:
    """The fronts over diversity, each way's from the plain model on; `kid`: that column's name."""
    wanted = {
        "guidance-fidelity": (kid, f"{kid} to real pictures (lower is better)"),
        "guidance-concept": ("concept top-5", "asked concept among the 5 nearest"),
        "guidance-style": ("style", "pictures in the asked style"),
    }

    def point(row: str, column: str, label: str) -> Point:
        return Point(rows[row][DISTANCE], rows[row][column], label)

    return {
        plot: paths(
            {
                name: [
                    point(PLAIN, column, PLAIN),
                    *(point(row_name(name, s), column, f"{s:g}") for s in way.scales),
                ]
                for name, way in ways.items()
            },
            "distance between pictures of one caption (diversity)",
            label,
        )
        for plot, (column, label) in wanted.items()
    }


def _drawn(
    bench: Bench, asked: Asked, plain: Sampler, way: Way, scale: float, told: Told
) -> Tensor:
    """Pictures uint8 [n 3 s s] under one way at one scale."""
    latents = draw(
        bench,
        asked,
        lambda rows: way.sampler(plain, scale, _some(told, rows)),
        {"sampler": plain.describe(), "way": dict(way.describes), "scale": scale},
    )
    return pictures(bench, latents)


def _told(bench: Bench, asked: Asked) -> Told:
    with torch.no_grad():
        text = bench.batched(
            range(len(asked.places)),
            lambda run: bench.pipe.clip.text([asked.captions[j] for j in run]).pooled,
            "captions",
        )
    return Told(text, asked.styles)


def _some(told: Told, rows: Sequence[int]) -> Told:
    return Told(told.text[list(rows)], tuple(told.styles[j] for j in rows))


def _sheet(
    bench: Bench, asked: Asked, ways: Mapping[str, Way], drawn: Mapping[str, Tensor]
) -> tuple[Image.Image, tuple[str, ...]]:
    """The first captions under the plain model and each way at its middle and largest scale."""
    first = list(range(0, len(asked.places), asked.copies))[:SHOWN]
    shown = [PLAIN, *(row_name(name, s) for name, way in ways.items() for s in _shown(way))]
    captions = tuple(asked.captions[j] for j in first)
    return sheet([drawn[name][first] for name in shown], captions, columns=SHOWN), captions


def _shown(way: Way) -> tuple[float, float]:
    return way.scales[(len(way.scales) - 1) // 2], way.scales[-1]


def _about_grid(ways: Mapping[str, Way]) -> str:
    told = [f"{name} at {_shown(way)[0]:g} and {_shown(way)[1]:g}" for name, way in ways.items()]
    return f"Grid, from above: {PLAIN}; " + "; ".join(told) + "."
