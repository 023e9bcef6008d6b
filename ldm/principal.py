"""Principal directions: the axes along which vectors vary, strongest first.

m vectors; e width
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Principal(NamedTuple):
    """variances [e], falling, and directions [e e]: orthonormal columns in the same order."""

    variances: Tensor
    directions: Tensor


def principal(vectors: Tensor) -> Principal:
    """Of vectors [m e], in double precision."""
    values, columns = torch.linalg.eigh(torch.cov(vectors.double().T))  # in rising order
    return Principal(values.flip(0), columns.flip(1))
