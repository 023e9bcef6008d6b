"""Distances between samples, and an independent judge of digits.

n m samples; d dimensions; k classes
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldm.data.digits import Digits


def energy_distance(a: Tensor, b: Tensor) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'| of samples [n d] and [m d]; unbiased, 0 for equal laws.

    Szekely & Rizzo 2013, "Energy statistics", eq. 5.
    """
    n, m = len(a), len(b)
    a, b = a.flatten(1).double(), b.flatten(1).double()
    within = torch.cdist(a, a).sum() / (n * (n - 1)) + torch.cdist(b, b).sum() / (m * (m - 1))
    return float(2 * torch.cdist(a, b).mean() - within)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """|mean difference|^2 + tr(A + B - 2 (A B)^(1/2)) of samples or features [n d], [m d].

    Dowson & Landau 1982; Heusel et al. 2017 (arXiv 1706.08500) eq. 6 takes it of features.
    """
    a, b = a.flatten(1).double(), b.flatten(1).double()
    shift = (a.mean(0) - b.mean(0)).square().sum()
    first, second = torch.cov(a.T), torch.cov(b.T)
    root = _root(first)
    cross = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0).sqrt().sum()
    return float(shift + first.trace() + second.trace() - 2 * cross)


def _root(matrix: Tensor) -> Tensor:
    """The symmetric square root of a covariance [d d]."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def mean_pairwise(x: Tensor) -> float:
    """Mean distance between different samples [n ...]: how diverse they are."""
    flat = x.flatten(1).double()
    return float(torch.cdist(flat, flat).sum() / (len(flat) * (len(flat) - 1)))


def rms(x: Tensor) -> float:
    """Root mean square over samples and dimensions [...]."""
    return float(x.square().mean().sqrt())


def typical(error: Tensor) -> float:
    """The median over samples of the root mean square over dimensions: error [n ...].

    A sample near the border between two modes may end in the other one, and a single such sample
    outweighs all others in a mean.
    """
    return float(error.flatten(1).square().mean(1).sqrt().median())


@dataclass(frozen=True)
class DigitJudge:
    """A classifier of 8 x 8 digits that no generator has seen: a support vector machine.

    It is fitted on the test part of `Digits`, on which no model trains.
    """

    machine: Any

    @classmethod
    def fitted(cls) -> DigitJudge:
        """Fit on the test digits (a tenth of a second)."""
        from sklearn.svm import SVC

        whole = Digits(part="test").whole()
        assert whole.image is not None and whole.label is not None
        machine = SVC(C=10.0, gamma="scale")
        machine.fit(whole.image.flatten(1).float().numpy() / 255, whole.label.numpy())
        return cls(machine)

    def labels(self, x: Tensor) -> Tensor:
        """Pictures [n 1 8 8] in [-1, 1] -> classes [n] int64."""
        flat = (x.clamp(-1, 1).flatten(1).float() + 1) / 2
        return torch.from_numpy(self.machine.predict(flat.cpu().numpy())).to(torch.int64)

    def accuracy(self, x: Tensor, label: Tensor) -> float:
        """Share of pictures [n 1 8 8] that are taken for `label` [n]."""
        return float((self.labels(x) == label.cpu()).float().mean())
