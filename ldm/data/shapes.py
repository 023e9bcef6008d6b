"""Coloured shapes with captions: every picture of a small world, drawn by rule.

A picture shows one shape of one colour at one place. The caption names these three attributes. Two
details are never named: a shift of up to a pixel and the grey of the background. Each colour has a
grey that is usual with it and may be shown more often. The world is finite, so that nearest
pictures and posteriors can be computed over all of it.

n pictures; s side in pixels
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ldm.data.arrays import ArrayStream
from ldm.data.batch import Batch
from ldm.errors import DataError

SIDE = 16
RADIUS = 3  # of the square that a shape fits into
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 215, 50),
    "purple": (170, 60, 200),
}
SHAPES = ("circle", "square", "triangle", "cross")
PLACES: dict[str, tuple[int, int]] = {
    "at the top left": (4, 4),
    "at the top right": (4, 11),
    "at the bottom left": (11, 4),
    "at the bottom right": (11, 11),
    "in the centre": (7, 7),
}
"""Row and column of the shape's middle."""
SHIFTS = tuple(itertools.product((-1, 0, 1), repeat=2))
GREYS = (30, 125, 215)
SIZES = (len(COLOURS), len(SHAPES), len(PLACES))
HELD_OUT = 5  # one combination in five


@dataclass(frozen=True)
class World:
    """Every picture: image `[n 3 s s]` uint8, and what is on it.

    attributes: colour, shape, place `[n 3]`; details: shift, grey `[n 2]`; indices into the names.
    """

    image: Tensor
    attributes: Tensor
    details: Tensor

    @property
    def usual(self) -> Tensor:
        """Which pictures `[n]` have the grey that is usual with their colour, bool."""
        return self.details[:, 1] == self.attributes[:, 0] % len(GREYS)

    @property
    def label(self) -> Tensor:
        """The number of each picture's combination of attributes `[n]`, 0 to 99."""
        return label_of(self.attributes)


@functools.cache
def world() -> World:
    """All 2,700 pictures: 100 combinations, 9 shifts, 3 greys."""
    ranges = [range(size) for size in (*SIZES, len(SHIFTS), len(GREYS))]
    rows = torch.tensor(list(itertools.product(*ranges)))
    return World(drawn(rows), rows[:, :3], rows[:, 3:])


def drawn(rows: Tensor) -> Tensor:
    """Colour, shape, place, shift, grey `[n 5]` -> pictures uint8 `[n 3 s s]`."""
    places, shifts = torch.tensor(list(PLACES.values())), torch.tensor(SHIFTS)
    middle = (places[rows[:, 2]] + shifts[rows[:, 3]])[:, :, None, None]
    lines = torch.arange(SIDE)
    dy, dx = lines[None, :, None] - middle[:, 0], lines[None, None, :] - middle[:, 1]
    # [n 4 s s], then each picture's own shape
    inside = outlines(dy, dx)[torch.arange(len(rows)), rows[:, 1]]
    colour = torch.tensor(list(COLOURS.values()), dtype=torch.uint8)[rows[:, 0]]
    grey = torch.tensor(GREYS, dtype=torch.uint8)[rows[:, 4]]
    return torch.where(inside[:, None], colour[:, :, None, None], grey[:, None, None, None])


def outlines(dy: Tensor, dx: Tensor) -> Tensor:
    """Which pixels `[n s s]` lie inside a circle, square, triangle, cross: bool `[n 4 s s]`."""
    y, x = dy.abs(), dx.abs()
    circle = dy.square() + dx.square() <= RADIUS**2 + 1
    square = (y < RADIUS) & (x < RADIUS)
    triangle = (y <= RADIUS) & (2 * x <= dy + RADIUS)
    cross = (y <= RADIUS) & (x <= RADIUS) & ((y <= 1) | (x <= 1))
    return torch.stack(torch.broadcast_tensors(circle, square, triangle, cross), dim=1)


def label_of(attributes: Tensor) -> Tensor:
    """Colour, shape, place `[n 3]` -> the number of the combination `[n]`."""
    colour, shape, place = attributes.unbind(1)
    return (colour * SIZES[1] + shape) * SIZES[2] + place


def attributes_of(label: Tensor) -> Tensor:
    """The inverse of `label_of`: `[n]` -> `[n 3]`."""
    rest, place = label // SIZES[2], label % SIZES[2]
    return torch.stack([rest // SIZES[1], rest % SIZES[1], place], dim=1)


def is_held_out(attributes: Tensor) -> Tensor:
    """Which combinations `[n 3]` are never trained on, bool `[n]`: each pair of attributes is."""
    return attributes.sum(1) % HELD_OUT == 0


def captions(attributes: Tensor) -> tuple[str, ...]:
    """ "a red circle at the top left" for each `[n 3]`."""
    colours, places = tuple(COLOURS), tuple(PLACES)
    return tuple(f"a {colours[c]} {SHAPES[s]} {places[p]}" for c, s, p in attributes.tolist())


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """The coloured shapes.

    part: the trained combinations, or those held out (one in five). mistaken: the share of
    pictures that carry the caption of another picture, as pictures of the web do. terse: the share
    of captions that leave out the place. usual: how many times as often as either other grey the
    usual one of a colour is shown. seed: of these draws and of the order.
    """

    part: Literal["train", "held_out", "all"] = "train"
    mistaken: float = 0.0
    terse: float = 0.0
    usual: int = 1
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.usual < 1:
            raise DataError(f"usual is {self.usual}; each picture is shown once or more often")
        for name, share in (("mistaken", self.mistaken), ("terse", self.terse)):
            if not 0 <= share <= 1:
                raise DataError(f"{name} is {share}; a share lies between 0 and 1")

    def rows(self) -> Tensor:
        """The rows of `world()` that are shown `[n]`, some of them several times."""
        found = world()
        held = is_held_out(found.attributes)
        chosen = {"train": ~held, "held_out": held, "all": torch.ones_like(held)}[self.part]
        times = torch.where(found.usual, self.usual, 1) * chosen
        return torch.arange(len(held)).repeat_interleave(times)

    def whole(self) -> Batch:
        """image `[n 3 16 16]` uint8, caption, and the combination that is shown as label `[n]`."""
        found, rows = world(), self.rows()
        return Batch(
            key=tuple(f"{i:06d}" for i in range(len(rows))),
            image=found.image[rows],
            label=found.label[rows],
            caption=self._said(found.attributes[rows]),
        )

    def _said(self, attributes: Tensor) -> tuple[str, ...]:
        generator, n = torch.Generator().manual_seed(self.seed), len(attributes)
        draws = torch.rand(2, n, generator=generator)
        other = torch.randint(n, (n,), generator=generator)
        told = torch.where((draws[0] < self.mistaken)[:, None], attributes[other], attributes)
        return shortened(captions(told), (draws[1] < self.terse).tolist())

    def open(self) -> ArrayStream:
        return ArrayStream(self.whole(), batch_size=self.batch_size, seed=self.seed)


def shortened(texts: Sequence[str], short: Sequence[bool]) -> tuple[str, ...]:
    """ "a red circle" in place of the whole caption, where `short` says so."""
    pairs = zip(texts, short, strict=True)
    return tuple(" ".join(text.split()[:3]) if cut else text for text, cut in pairs)
