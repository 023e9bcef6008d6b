"""Does a query find what it belongs to? Ranks among candidates, ties counted against it.

n queries; m candidates
"""

from __future__ import annotations

import torch
from torch import Tensor


def ranks(similarity: Tensor, right: Tensor) -> Tensor:
    """How many wrong candidates are at least as near as the nearest right one, [n].

    Args:
        similarity: [n m], larger is nearer.
        right: [n m] bool, at least one True a row.
    """
    if similarity.shape != right.shape or not right.any(dim=1).all():
        raise ValueError(
            f"similarity {tuple(similarity.shape)} and right {tuple(right.shape)} must have one "
            "shape, and every query needs a right candidate"
        )
    best = similarity.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    return ((similarity >= best) & ~right).sum(dim=1)


def chance(right: Tensor, k: int) -> Tensor:
    """Probability [n] that `ranks` is below k if the candidates were in random order.

    All of k draws without replacement are wrong with probability C(w, k) / C(m, k).
    """
    m, hits = right.shape[1], right.sum(dim=1)
    missed = torch.ones(len(right), dtype=torch.float64)
    for i in range(min(k, m)):
        missed *= ((m - hits - i).clamp_min(0) / (m - i)).double()
    return 1 - missed
