"""A measured figure: a mean or another statistic of items, with its bootstrap interval.

n items; k resamples
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Figure:
    """A value, the bounds of its interval (None where it was not sampled), over how many items.

    `unit` is "%" for shares (the value stays in 0..1), "dB", "count", or "" for plain numbers.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.bounds}".rstrip()

    @property
    def text(self) -> str:
        """The value alone, with its unit."""
        return self._number(self.value)

    @property
    def bounds(self) -> str:
        """The interval, or "" where there is none."""
        if self.low is None or self.high is None:
            return ""
        return f"[{self._number(self.low, bare=True)}, {self._number(self.high, bare=True)}]"

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Figure:
        """What `to_json` gave; KeyError, TypeError or ValueError where it is not that."""
        low, high = (None if body[k] is None else float(body[k]) for k in ("low", "high"))
        return cls(float(body["value"]), low, high, int(body["n"]), str(body["unit"]))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def _number(self, x: float, bare: bool = False) -> str:
        scale, digits = {"%": (100, 1), "dB": (1, 2), "count": (1, 0)}.get(self.unit, (1, 3))
        unit = f" {self.unit}" if self.unit in ("%", "dB") and not bare else ""
        return f"{x * scale:.{digits}f}{unit}"


Statistic = Callable[[Tensor], Tensor]
"""Places of items [k n], one row a resample -> the statistic of each row [k]."""


def resampled_figure(
    statistic: Statistic, n: int, unit: str = "", *, seed: int = 0, at_once: int = 100
) -> Figure:
    """`statistic` of all n items with the percentile bootstrap's 95 % interval.

    Efron, "Bootstrap methods: another look at the jackknife" (1979): the items are drawn again
    with replacement; what belongs to one item stays together. It tells what other items would
    have given, not what another training would.
    """
    if n == 0:
        raise ValueError("a statistic of no items: give at least one")
    generator = torch.Generator().manual_seed(seed)
    found = [
        statistic(torch.randint(0, n, (at_once, n), generator=generator))
        for _ in range(RESAMPLES // at_once)
    ]
    tail = (1 - LEVEL) / 2
    ends = torch.tensor([tail, 1 - tail], dtype=torch.float64)
    low, high = torch.quantile(torch.cat(found).double(), ends).tolist()
    return Figure(float(statistic(torch.arange(n)[None])[0]), low, high, n, unit)


def mean_figure(values: Tensor, unit: str = "", *, seed: int = 0) -> Figure:
    """The mean of `values` [n] with the interval of `resampled_figure`."""
    values = values.double().cpu().flatten()
    return resampled_figure(lambda i: values[i].mean(dim=1), len(values), unit, seed=seed)


def median_figure(values: Tensor, unit: str = "", *, seed: int = 0) -> Figure:
    """The median of `values` [n], of the two middle ones the mean, with its interval."""
    values = values.double().cpu().flatten()
    return resampled_figure(lambda i: values[i].quantile(0.5, dim=1), len(values), unit, seed=seed)


def known_figure(value: float, n: int, unit: str = "") -> Figure:
    """A figure that was computed and not sampled, such as a chance level."""
    return Figure(value, None, None, n, unit)
