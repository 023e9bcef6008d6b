"""Intervals of what is no mean: medians, shares of variance, ratios.

n items; k resamples
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ldm.evaluation.figures import LEVEL, RESAMPLES, Figure

Statistic = Callable[[Tensor], Tensor]
"""Places of items [k n], one row a resample -> the statistic of each row [k]."""


def resampled_figure(
    statistic: Statistic, n: int, unit: str = "", *, seed: int = 0, at_once: int = 100
) -> Figure:
    """`statistic` of all n items with the percentile bootstrap's 95 % interval (Efron 1979).

    The items are drawn again with replacement; what belongs to one item stays together.
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


def median_figure(values: Tensor, unit: str = "", *, seed: int = 0) -> Figure:
    """The median of `values` [n], of the two middle ones the mean, with its interval."""
    values = values.double().cpu().flatten()
    return resampled_figure(lambda i: values[i].quantile(0.5, dim=1), len(values), unit, seed=seed)
