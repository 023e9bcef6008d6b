"""Nearest neighbours, and whether one set of pictures is nearer to the training set than another.

n drawn pictures; m held-out pictures; l training pictures; k neighbours; d dimensions
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

RUN = 64


class Neighbours(NamedTuple):
    """The k nearest of each query, nearest first: Euclidean distance [n k], place [n k]."""

    distance: Tensor
    place: Tensor


def nearest(queries: Tensor, training: Tensor, k: int) -> Neighbours:
    """The `k` nearest of `training` [l d] to each of `queries` [n d], all where there are fewer.

    Found by a matrix product and then measured by differences, which alone tell a distance of
    nought from a small one.
    """
    k = min(k, len(training))
    size = training.square().sum(dim=1)
    found = []
    for run in queries.split(RUN):
        near = (size - 2 * run @ training.T).topk(k, dim=1, largest=False).indices
        found.append(_measured(run, training, near))
    return Neighbours(*(torch.cat(part) for part in zip(*found, strict=True)))


def _measured(queries: Tensor, training: Tensor, near: Tensor) -> Neighbours:
    """Distances from `queries` [n d] to their candidates `near` [n k], put in order."""
    rows = [(q - training[places]).norm(dim=1) for q, places in zip(queries, near, strict=True)]
    distance, order = torch.stack(rows).sort(dim=1)
    return Neighbours(distance, near.gather(1, order))


def mann_whitney_z(drawn: Tensor, heldout: Tensor) -> float:
    """Z_U of distances `drawn` [n] and `heldout` [m]; below 0 where the drawn ones are smaller.

    Meehan, Chaudhuri and Dasgupta 2020 (arXiv 2004.05675): the z-scored Mann-Whitney statistic U,
    the number of pairs in which the drawn picture is farther from its nearest training picture
    than the held-out one; far below 0 is data-copying. Ties count half, and the variance is that
    with ties: n m / 12 (N + 1 - sum(t^3 - t) / (N (N - 1))), N = n + m, over groups of t equals.
    """
    n, m = len(drawn), len(heldout)
    u = n * m - float(placements(drawn, heldout).sum()) * m
    total = n + m
    _, t = torch.cat([drawn, heldout]).double().unique(return_counts=True)
    ties = float((t.double() ** 3 - t).sum()) / (total * (total - 1))
    variance = n * m / 12 * (total + 1 - ties)
    return 0.0 if variance <= 0 else (u - n * m / 2) / math.sqrt(variance)


def placements(drawn: Tensor, heldout: Tensor) -> Tensor:
    """For each of `drawn` [n], the share of `heldout` [m] that is larger; ties count half."""
    heldout, drawn = heldout.double().sort().values, drawn.double()
    not_larger = torch.searchsorted(heldout, drawn, right=True)
    smaller = torch.searchsorted(heldout, drawn, right=False)
    return 1 - (not_larger + smaller).double() / (2 * len(heldout))


def low_tail(heldout: Tensor, share: float) -> tuple[int, float]:
    """r and the r-th smallest of `heldout` [m], r being `share` of them, at least one."""
    r = max(1, int(share * len(heldout)))
    return r, float(heldout.double().kthvalue(r).values)


def exceedance_p(count: int, n: int, r: int, m: int) -> float:
    """Probability that `count` or more of n values are below the r-th smallest of m others.

    All of one distribution, whatever it is. Gumbel and von Schelling 1950, "The distribution of
    the number of exceedances": C(x+r-1, x) C(n-x+m-r, n-x) / C(n+m, n) for x values.
    """
    whole = _log_choose(n + m, n)
    logs = [
        _log_choose(x + r - 1, x) + _log_choose(n - x + m - r, n - x) - whole
        for x in range(count, n + 1)
    ]
    return min(1.0, sum(math.exp(v) for v in logs))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
