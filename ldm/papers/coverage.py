"""How true to the data samples are, and how much of the data they reach.

n m samples; d dimensions; k neighbours
"""

from __future__ import annotations

import torch
from torch import Tensor

from ldm.papers.measures import mean_pairwise


def precision_recall(real: Tensor, drawn: Tensor, k: int = 3) -> tuple[float, float]:
    """Share of `drawn [n d]` within the manifold of `real [m d]`, and of `real` within `drawn`'s.

    Kynkaanniemi et al. 2019 (arXiv 1904.06991) eq. 1-2: a manifold is the union of balls around
    its samples that reach to the k-th neighbour.
    """
    real, drawn = real.flatten(1).double(), drawn.flatten(1).double()
    return within(drawn, real, k), within(real, drawn, k)


def within(points: Tensor, samples: Tensor, k: int) -> float:
    """Share of points [n d] that lie in a ball of one of the samples [m d]."""
    radius = torch.cdist(samples, samples).kthvalue(k + 1, dim=1).values  # the first is itself
    return float((torch.cdist(points, samples) <= radius).any(1).double().mean())


def spread_within(x: Tensor, label: Tensor) -> float:
    """Mean distance between samples x [n ...] of the same label [n], over the labels."""
    classes = label.unique().tolist()
    return sum(mean_pairwise(x[label == c]) for c in classes) / len(classes)


def psnr(found: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of pictures [n c h w] in [-1, 1], in decibels [n]."""
    error = (found.clamp(-1, 1) - truth).square().flatten(1).mean(1)
    return 10 * torch.log10(4 / error)
