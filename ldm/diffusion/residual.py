"""A network that says how the noise differs from its input.

Shapes: b batch, ... data; coefficients are [b] float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.diffusion.prediction import Eps, Prediction
from ldm.diffusion.process import Process


@dataclass(frozen=True, kw_only=True)
class EpsResidual(Prediction):
    """eps - x: (-alpha, 1 - sigma). A network that says nothing takes its input for the noise.

    The skip in the network of Kingma et al. 2021 (arXiv 2107.00630), appendix B and their code.
    """

    def coefficients(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = process.alpha_sigma(t)
        return -alpha, torch.ones_like(sigma) - sigma

    def check(self, process: Process) -> None:
        Eps().check(process)
