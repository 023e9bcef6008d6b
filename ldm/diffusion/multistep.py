"""Solvers of high order in log-SNR: singlestep DPM-Solver++(2S) and multistep UniPC.

Both are `transfer` with a better x0: a polynomial in h = half the step in log-SNR.

Shapes: b batch, ... data; k unknowns; t (from) and s (to): [b].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ldm.diffusion.denoiser import Denoise
from ldm.diffusion.noise import Noise
from ldm.diffusion.prediction import given_x0
from ldm.diffusion.process import Process, per_item
from ldm.diffusion.solvers import Solver, stochastic_transfer
from ldm.diffusion.step import transfer_mean


@dataclass(frozen=True, kw_only=True)
class DpmSolverPP2S(Solver):
    """DPM-Solver++(2S): x0 at a point between, two evaluations a step.

    Lu et al. 2022 (arXiv 2211.01095) algorithm 1. eta = 1 adds the noise of the reverse SDE at both
    stages (k-diffusion's dpmpp_sde). `middle` is the place of the point in log-SNR.
    """

    eta: float = 0.0
    middle: float = 0.5

    def step(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, s: Tensor,
        carry: Any, noise: Noise,
    ) -> tuple[Tensor, Any]:
        first = denoise(x, t)
        start, end = process.logsnr(t), process.logsnr(s)
        m = process.t_of_logsnr(start + self.middle * (end - start))
        between = denoise(stochastic_transfer(process, first, t, m, self.eta, noise), m)
        x0 = first.x0 + (between.x0 - first.x0) / (2 * self.middle)
        better = given_x0(process, t, x, x0)
        return stochastic_transfer(process, better, t, s, self.eta, noise), None


class Past(NamedTuple):
    """What UniPC remembers: where it stood, and x0 with its log-SNR at earlier times."""

    x: Tensor  # [b ...], corrected
    t: Tensor  # [b]
    x0s: tuple[Tensor, ...]  # newest first, each [b ...]
    halves: tuple[Tensor, ...]  # lambda/2 of each, [b]
    order: int  # of the prediction that led here


@dataclass(frozen=True, kw_only=True)
class UniPC(Solver):
    """Predictor and corrector of one evaluation a step. Zhao et al. 2023 (arXiv 2302.04867).

    Algorithms 5 and 6, data prediction, B2(h) = exp(h) - 1, with which every update is `transfer`
    with x0 + sum rho_k (x0_k - x0)/r_k. The order grows from 1 over the first steps.
    """

    order: int = 2

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise ValueError(f"order={self.order} was given; UniPC has orders 1, 2 and 3.")

    def step(
        self, denoise: Denoise, process: Process, x: Tensor, t: Tensor, s: Tensor,
        carry: Any, noise: Noise,
    ) -> tuple[Tensor, Any]:
        x0, half = denoise(x, t).x0, process.logsnr(t) / 2
        x0s, halves = (x0,), (half,)
        if carry is not None:
            x = _move(process, carry, t, carry.order - 1, newest=(x0, half))
            x0s, halves = x0s + carry.x0s[: self.order - 1], halves + carry.halves[: self.order - 1]
        past = Past(x, t, x0s, halves, len(x0s))
        return _move(process, past, s, past.order - 1), past


def _move(
    process: Process, past: Past, s: Tensor, num_old: int,
    newest: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """From past.x to s by `num_old` old x0s and, when correcting, the one found at s: [b ...]."""
    h = process.logsnr(s) / 2 - past.halves[0]
    others = list(zip(past.x0s[1 : num_old + 1], past.halves[1 : num_old + 1], strict=True))
    others += [newest] if newest else []
    x0 = past.x0s[0]
    if others:
        ratios = torch.stack([(half - past.halves[0]) / h for _, half in others], dim=1)  # [b k]
        weights = _weights(ratios, -h) / ratios
        for weight, (other, _) in zip(weights.unbind(1), others, strict=True):
            x0 = x0 + per_item(weight, x0) * (other - past.x0s[0])
    return transfer_mean(process, given_x0(process, past.t, past.x, x0), past.t, s)


def _weights(ratios: Tensor, hh: Tensor) -> Tensor:
    """rho of 2302.04867 eq. 9: sum_k rho_k r_k^(n-1) = n! phi_(n+1)(hh)/B(hh). [b k] -> [b k].

    One unknown alone is 1/2, as after their eq. 10.
    """
    k = ratios.shape[1]
    if k == 1:
        return torch.full_like(ratios, 0.5)
    sides, phi, factorial = [], torch.expm1(hh) / hh - 1, 1
    for n in range(1, k + 1):
        sides.append(phi * factorial / torch.expm1(hh))
        factorial *= n + 1
        phi = phi / hh - 1 / factorial
    powers = torch.stack([ratios**n for n in range(k)], dim=1)  # [b k k]
    return torch.linalg.solve(powers, torch.stack(sides, dim=1))
