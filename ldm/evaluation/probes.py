"""What a representation says, by linear probes fitted on training samples and scored on others.

n m samples; d width of the representation; k numbers to be told
"""

from __future__ import annotations

import torch
from torch import Tensor

from ldm.evaluation.figures import Figure, resampled_figure


def class_hits(z: Tensor, label: Tensor, z_test: Tensor, label_test: Tensor) -> Tensor:
    """For each test sample whether logistic regression on z [n d] finds its class: [m] bool."""
    from sklearn.linear_model import LogisticRegression

    mean, std = z.mean(0), z.std(0).clamp_min(1e-6)
    fitted = LogisticRegression(max_iter=500).fit(((z - mean) / std).numpy(), label.numpy())
    found = torch.from_numpy(fitted.predict(((z_test - mean) / std).numpy()))
    return found == label_test


def class_accuracy(z: Tensor, label: Tensor, z_test: Tensor, label_test: Tensor) -> float:
    """Share of test samples whose class logistic regression on z [n d] finds."""
    return float(class_hits(z, label, z_test, label_test).double().mean())


def squares(z: Tensor, y: Tensor, z_test: Tensor, y_test: Tensor) -> tuple[Tensor, Tensor]:
    """Squared errors [m] of y_test [m k] by a linear map of z [n d], and by the mean of y [n k]."""
    mean, std = z.mean(0), z.std(0).clamp_min(1e-6)
    design, probe = (with_one((v - mean) / std).double() for v in (z, z_test))
    ridge = 1e-3 * len(z) * torch.eye(design.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(design.T @ design + ridge, design.T @ y.double())
    residual = (probe @ weights - y_test).square().sum(1)
    return residual, (y_test - y.mean(0)).square().sum(1)


def explained(z: Tensor, y: Tensor, z_test: Tensor, y_test: Tensor) -> float:
    """Share of the variance of y_test [m k] that a linear map of z [n d] explains; at most 1."""
    residual, total = squares(z, y, z_test, y_test)
    return float(1 - residual.sum() / total.sum())


def explained_figure(residual: Tensor, total: Tensor) -> Figure:
    """The share explained, from `squares` [m], with its interval over the test samples."""
    return resampled_figure(
        lambda picks: 1 - residual[picks].sum(1) / total[picks].sum(1), len(residual), "%"
    )


def with_one(x: Tensor) -> Tensor:
    """A column of ones beside x [n d]."""
    return torch.cat([x, torch.ones(len(x), 1)], dim=1)
