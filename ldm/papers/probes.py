"""What a representation says, by linear probes fitted on training samples and scored on others.

n samples; d width of the representation; k numbers to be told
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def class_accuracy(z: Tensor, label: Tensor, z_test: Tensor, label_test: Tensor) -> float:
    """Share of test samples whose class logistic regression on z [n d] finds."""
    from sklearn.linear_model import LogisticRegression

    mean, std = z.mean(0), z.std(0).clamp_min(1e-6)
    found = LogisticRegression(max_iter=500).fit(((z - mean) / std).numpy(), label.numpy())
    return float(found.score(((z_test - mean) / std).numpy(), label_test.numpy()))


def explained(z: Tensor, y: Tensor, z_test: Tensor, y_test: Tensor) -> float:
    """Share of the variance of y_test [n k] that a linear map of z [n d] explains; at most 1."""
    mean, std = z.mean(0), z.std(0).clamp_min(1e-6)
    design, probe = (with_one((v - mean) / std).double() for v in (z, z_test))
    ridge = 1e-3 * len(z) * torch.eye(design.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(design.T @ design + ridge, design.T @ y.double())
    residual = (probe @ weights - y_test).square().sum()
    return float(1 - residual / (y_test - y.mean(0)).square().sum())


def with_one(x: Tensor) -> Tensor:
    """A column of ones beside x [n d]."""
    return torch.cat([x, torch.ones(len(x), 1)], dim=1)


def coarse_and_fine(x: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures [n c h w] as means of 2 x 2 blocks, and what is left: [n c h w / 4], [n c h w]."""
    coarse = F.avg_pool2d(x, 2)
    fine = x - coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return coarse.flatten(1), fine.flatten(1)
