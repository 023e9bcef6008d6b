"""A grid that stays at each level for a while, as Langevin dynamics does.

Shapes: n times, r repeats.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ldm.diffusion.grids import Grid
from ldm.diffusion.process import Process


@dataclass(frozen=True, kw_only=True)
class RepeatedGrid(Grid):
    """Every time of `base` `repeats` times in a row.

    With `PredictorCorrector(Stay, Langevin)` of one step it is annealed Langevin dynamics (Song &
    Ermon 2019, arXiv 1907.05600, algorithm 1) whose every step is a step of the sampler: it can be
    watched, and `Replacing` puts the known pixels back after each (their algorithm 2).
    """

    base: Grid
    repeats: int = 100

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"repeats={self.repeats} was given; it is 1 or more.")

    def __call__(self, process: Process, n: int) -> Tensor:
        """-> t [n] float64, falling every `repeats` times; n is a multiple of `repeats`."""
        if n % self.repeats:
            raise ValueError(
                f"n={n} times of {self.repeats} repeats were asked for; ask for a multiple."
            )
        return self.base(process, n // self.repeats).repeat_interleave(self.repeats)
