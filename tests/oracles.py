"""Closed-form data for the diffusion tests: mixtures of isotropic Gaussians, noised exactly.

Shapes: b batch, k components, d dimensions; t: [b].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ldm.diffusion import (
    VE,
    Denoised,
    Denoiser,
    Edm,
    LinearFlow,
    Noise,
    Prediction,
    Process,
    ScaledTime,
    Solver,
    SubVP,
    VPCosine,
    VPLinear,
    start,
    trajectory,
)

# Ranges on which every closed form is smooth: for measured orders and identities.
SMOOTH: dict[str, Process] = {
    "vp": VPLinear(t_min=0.1, t_max=0.8),
    "cosine": VPCosine(t_min=0.1, t_max=0.9),
    "subvp": SubVP(t_min=0.2, t_max=0.8),
    "ve": VE(sigma_min=0.1, sigma_max=5.0),
    "edm": Edm(t_min=0.2, t_max=4.0),
    "flow": LinearFlow(t_min=0.1, t_max=0.9),
}
FULL: dict[str, Process] = {
    "vp": VPLinear(),
    "cosine": VPCosine(),
    "subvp": SubVP(t_min=0.02),
    "ve": VE(sigma_min=0.01, sigma_max=30.0),
    "edm": Edm(),
    "flow": LinearFlow(),
}


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """sum_k weight_k N(mean_k, std_k^2 I): means is k rows of d numbers."""

    weights: tuple[float, ...]
    means: tuple[tuple[float, ...], ...]
    stds: tuple[float, ...]

    def _level(self, process: Process, t: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        alpha, sigma = (v.to(x.dtype) for v in process.alpha_sigma(t.double()))
        stds = x.new_tensor(self.stds)
        variance = (alpha[:, None] * stds).square() + sigma[:, None].square()  # [b k]
        gap = x[:, None] - alpha[:, None, None] * x.new_tensor(self.means)  # [b k d]
        return alpha, sigma, variance, gap

    def log_joint(self, process: Process, x: Tensor, t: Tensor) -> Tensor:
        """log weight_k + log N_k(x_t): [b d], [b] -> [b k]."""
        _, _, variance, gap = self._level(process, t, x)
        size = gap.square().sum(-1) / variance + x.shape[1] * torch.log(2 * math.pi * variance)
        return x.new_tensor(self.weights).log() - size / 2

    def log_prob(self, process: Process, x: Tensor, t: Tensor) -> Tensor:
        return self.log_joint(process, x, t).logsumexp(1)

    def denoise(self, process: Process, x: Tensor, t: Tensor) -> Denoised:
        """The exact posterior mean of x0 and eps: [b d] each."""
        alpha, sigma, variance, gap = self._level(process, t, x)
        share = self.log_joint(process, x, t).softmax(1)[..., None]  # [b k 1]
        score = -(share * gap / variance[..., None]).sum(1)
        stds = x.new_tensor(self.stds)
        gain = (alpha[:, None] * stds.square() / variance)[..., None]
        x0 = (share * (x.new_tensor(self.means) + gain * gap)).sum(1)
        return Denoised(x0, -sigma[:, None] * score)

    def bind(self, process: Process) -> Any:
        return lambda x, t: self.denoise(process, x, t)

    def draw(self, b: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        which = torch.multinomial(torch.tensor(self.weights), b, True, generator=generator)
        z = torch.randn(b, len(self.means[0]), generator=generator, dtype=dtype)
        return torch.tensor(self.means, dtype=dtype)[which] + (
            torch.tensor(self.stds, dtype=dtype)[which, None] * z
        )


GAUSS = Mixture(weights=(1.0,), means=((0.7, -0.4),), stds=(0.5,))
PAIR = Mixture(weights=(0.3, 0.7), means=((1.0, 0.5), (-0.8, -0.6)), stds=(0.3, 0.4))


class OracleNet(nn.Module):
    """A network that has learned the data exactly, for a prediction; it sees the scaled time."""

    def __init__(
        self, data: Mixture, process: Process, prediction: Prediction, scale: float = 1000.0
    ) -> None:
        super().__init__()
        self.data, self.prediction, self.scale = data, prediction, scale
        self._process = (process,)  # hidden from nn.Module: the denoiser owns the process

    def forward(self, x: Tensor, time: Tensor, cond: Any) -> Tensor:
        t = time.double() / self.scale
        x0, eps, _ = self.data.denoise(self._process[0], x, t)
        return self.prediction.target(self._process[0], t, x0, eps)


def oracle(data: Mixture, process: Process, prediction: Prediction) -> Denoiser:
    """A denoiser whose network is exact."""
    return Denoiser(
        OracleNet(data, process, prediction), process, prediction, time_embed=ScaledTime()
    )


def exact_flow(data: Mixture, process: Process, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The probability-flow ODE of one Gaussian: x keeps its place in standard deviations."""
    mean, std = x.new_tensor(data.means[0]), data.stds[0]
    (a_t, g_t), (a_s, g_s) = process.alpha_sigma(t.double()), process.alpha_sigma(s.double())
    ratio = ((a_s * std) ** 2 + g_s**2).sqrt() / ((a_t * std) ** 2 + g_t**2).sqrt()
    return a_s[:, None] * mean + ratio[:, None] * (x - a_t[:, None] * mean)


def walk(
    denoise: Any, process: Process, solver: Solver, times: Tensor, x: Tensor, noise: Noise
) -> Tensor:
    """x at the end of the grid, before the last evaluation: for comparing with the ODE."""
    moments = list(trajectory(denoise, process, solver, times, x, noise))
    return moments[-2].x


def begin(process: Process, times: Tensor, seeds: range, *, d: int = 2) -> tuple[Tensor, Noise]:
    """x [b d] float64 at times[0] and the noise that goes on from it."""
    noise = Noise(seeds)
    return start(process, times, noise, (d,), torch.float64), noise
