"""Principal component analysis: the axes along which vectors vary, strongest first.

m vectors; d their width; k the directions that are kept
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ldm.errors import ConfigError, DataError


class Principal(NamedTuple):
    """variances [d], falling, and directions [d d]: orthonormal columns in the same order."""

    variances: Tensor
    directions: Tensor


def principal(vectors: Tensor) -> Principal:
    """Of vectors [m d], in double precision."""
    values, columns = torch.linalg.eigh(torch.cov(vectors.double().T))  # in rising order
    return Principal(values.flip(0), columns.flip(1))


def directions_holding(variances: Tensor, share: float) -> int:
    """How many of the strongest directions hold `share` (0 to 1) of the sum of `variances` [d]."""
    cumulative = variances.double().clamp_min(0).cumsum(0)
    return int((cumulative < share * cumulative[-1]).sum()) + 1


class PrincipalSpace(nn.Module, ABC):
    """Vectors [b d] along their k strongest principal directions, partly whitened, and back.

    `measure_vectors` takes mean, directions and their variances once; they travel in the weights.
    The deviation s of a direction becomes s^(1 - whitening), times what makes the mean variance 1:
    0 only rotates, 1 makes all directions equal.

    Args:
        width: d.
        kept: k; None keeps all.
        whitening: 0 (none) to 1 (full).
    """

    mean: Tensor
    directions: Tensor
    scale: Tensor

    def __init__(self, width: int, kept: int | None, whitening: float) -> None:
        super().__init__()
        kept = width if kept is None else kept
        if not 1 <= kept <= width:
            raise ConfigError(f"kept = {kept}: keep 1 to {width} of {width} directions")
        if not 0 <= whitening <= 1:
            raise ConfigError(f"whitening = {whitening}: give 0 (none) to 1 (full)")
        self.whitening = whitening
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("directions", torch.eye(width)[:, :kept].clone())
        self.register_buffer("scale", torch.full((kept,), width**-0.5))

    def measure_vectors(self, vectors: Iterable[Tensor]) -> None:
        """Take mean, directions [d k] (columns, strongest first) and scale [k] from [b d] each."""
        every = torch.cat([v.double().cpu() for v in vectors])
        if len(every) < 2:
            raise DataError(f"got {len(every)} vectors; at least 2 are needed for a spread")
        variance, directions = principal(every)
        # Directions that these samples do not span have no variance of their own: a floor.
        variance = variance.clamp_min(max(1e-6 * float(variance[0]), 1e-12))
        kept = len(self.scale)
        scale = variance[:kept].sqrt() ** self.whitening
        self.mean.copy_(every.mean(0))
        self.directions.copy_(directions[:, :kept])
        self.scale.copy_(scale * (variance[:kept] / scale.square()).mean().sqrt())

    def project(self, vectors: Tensor) -> Tensor:
        """[b d] -> [b k], zero mean and unit mean variance over what was measured."""
        return (vectors.float() - self.mean) @ self.directions / self.scale

    def restore(self, x0: Tensor) -> Tensor:
        """[b k] -> [b d]: the inverse of `project` on the directions that are kept."""
        return (x0 * self.scale) @ self.directions.T + self.mean
