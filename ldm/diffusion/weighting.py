"""Weights over t of a mean squared error.

A weight is stated for |eps - eps_hat|^2 and carried to the space of the loss: an error of y is
det/alpha times the error of eps. So the same weighting means the same loss in every space.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.diffusion.prediction import Prediction
from ldm.diffusion.process import Process


class Weighting(ABC):
    """(process, prediction, t [b]) -> the weight [b] of the MSE in that prediction's space."""

    @abstractmethod
    def __call__(self, process: Process, prediction: Prediction, t: Tensor) -> Tensor:
        """t [b] -> [b] float64."""


@dataclass(frozen=True, kw_only=True)
class Unit(Weighting):
    """One, in whatever space the loss is taken: DDPM's L_simple, EDM, rectified flow."""

    def __call__(self, process: Process, prediction: Prediction, t: Tensor) -> Tensor:
        return torch.ones_like(t, dtype=torch.float64)


class EpsWeighting(Weighting):
    """A weight stated for the MSE of eps."""

    @abstractmethod
    def on_eps(self, process: Process, t: Tensor) -> Tensor:
        """The weight of |eps - eps_hat|^2: t [b] -> [b] float64."""

    def __call__(self, process: Process, prediction: Prediction, t: Tensor) -> Tensor:
        alpha, _ = process.alpha_sigma(t.double())
        return self.on_eps(process, t) * (alpha / prediction.determinant(process, t)).square()


@dataclass(frozen=True, kw_only=True)
class EpsUnit(EpsWeighting):
    """One on the MSE of eps, whatever the space: L_simple for a network of any prediction."""

    def on_eps(self, process: Process, t: Tensor) -> Tensor:
        return torch.ones_like(t, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class ElboWeight(EpsWeighting):
    """-lambda'/2, the weight of the variational bound. 2107.00630 eq. 17."""

    def on_eps(self, process: Process, t: Tensor) -> Tensor:
        return -process.logsnr_slope(t) / 2


@dataclass(frozen=True, kw_only=True)
class Likelihood(EpsWeighting):
    """g^2/sigma^2, Score-SDE's likelihood weighting. Song et al. 2021 (arXiv 2101.09258) eq. 7."""

    def on_eps(self, process: Process, t: Tensor) -> Tensor:
        return process.diffusion_sq(t) / process.alpha_sigma(t.double())[1].square()


@dataclass(frozen=True, kw_only=True)
class MinSnr(EpsWeighting):
    """min(SNR, gamma)/SNR. Hang et al. 2023 (arXiv 2303.09556) section 3.4."""

    gamma: float = 5.0

    def on_eps(self, process: Process, t: Tensor) -> Tensor:
        return (self.gamma * (-process.logsnr(t)).exp()).clamp(max=1.0)


@dataclass(frozen=True, kw_only=True)
class P2(EpsWeighting):
    """(k + SNR)^-gamma. Choi et al. 2022 (arXiv 2204.00227) eq. 8."""

    k: float = 1.0
    gamma: float = 1.0

    def on_eps(self, process: Process, t: Tensor) -> Tensor:
        return (self.k + process.logsnr(t).exp()) ** -self.gamma
