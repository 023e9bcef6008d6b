"""Published discrete chains, as processes t in [1/N, 1]: step i, from 0, is t = (i+1)/N.

A network trained on steps 0..N-1 takes `ScaledTime(scale=N, shift=-1)`. Between the steps the
log-SNR is linear in t, so that solvers may stop anywhere.

Shapes: N steps of the chain, b batch.
"""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.diffusion.process import Process, logsnr_to_level


class Chain(Process):
    """A variance-preserving process known at N times."""

    @abstractmethod
    def betas(self) -> Tensor:
        """beta of each step, [N] float64 on the CPU."""

    @property
    def t_min(self) -> float:
        return 1.0 / len(_table(self))

    @property
    def t_max(self) -> float:
        return 1.0

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return between_steps(_table(self).to(t.device), t)


@functools.lru_cache(maxsize=64)
def _table(chain: Chain) -> Tensor:
    betas = chain.betas()
    if len(betas) < 2 or not ((betas > 0) & (betas < 1)).all():
        raise ValueError(
            f"{chain} has {len(betas)} betas in [{betas.min():.3g}, {betas.max():.3g}]; two or "
            "more are needed, each between 0 and 1. For a chain that ends in pure noise wrap it "
            "in ZeroTerminalSnr."
        )
    return logsnr_table(betas)


def logsnr_table(betas: Tensor) -> Tensor:
    """log-SNR after each step, [N] -> [N]. log alpha-bar is the running sum of log(1 - beta)."""
    log_signal = torch.log1p(-betas).cumsum(0)
    return log_signal - torch.log(-torch.expm1(log_signal))


def between_steps(table: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha, sigma at t [b] in [1/N, 1], log-SNR linear between the steps' table [N]."""
    place = t * len(table) - 1
    below = place.detach().floor().clamp(0, len(table) - 2).long()
    return logsnr_to_level(torch.lerp(table[below], table[below + 1], place - below))


@dataclass(frozen=True, kw_only=True)
class LinearChain(Chain):
    """beta linear in the step. Ho et al. 2020 (arXiv 2006.11239) section 4."""

    num_steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    def betas(self) -> Tensor:
        return torch.linspace(self.beta_start, self.beta_end, self.num_steps, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class ScaledLinearChain(Chain):
    """sqrt(beta) linear in the step: latent diffusion's own, which its code calls "linear".

    Rombach et al. 2022 (arXiv 2112.10752), configurations of the text-to-image models.
    """

    num_steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012

    def betas(self) -> Tensor:
        ends = math.sqrt(self.beta_start), math.sqrt(self.beta_end)
        return torch.linspace(*ends, self.num_steps, dtype=torch.float64).square()


@dataclass(frozen=True, kw_only=True)
class CosineChain(Chain):
    """alpha-bar = cos^2, beta held at 0.999. Nichol & Dhariwal 2021 (arXiv 2102.09672) eq. 17."""

    num_steps: int = 1000
    s: float = 0.008
    max_beta: float = 0.999

    def betas(self) -> Tensor:
        t = torch.arange(self.num_steps + 1, dtype=torch.float64) / self.num_steps
        signal = torch.cos((t + self.s) / (1 + self.s) * math.pi / 2).square()
        return (1 - signal[1:] / signal[:-1]).clamp(max=self.max_beta)


@dataclass(frozen=True, kw_only=True)
class FractionChain(Chain):
    """Each step erases one part in T of the signal: beta = 1/linspace(T, 2, T), the first fixed.

    Sohl-Dickstein et al. 2015 (arXiv 1503.03585) section 2.4.1, as in their code.
    """

    num_steps: int = 40
    first_beta: float = 1e-3

    def betas(self) -> Tensor:
        ends = float(self.num_steps), 2.0
        betas = 1 / torch.linspace(*ends, self.num_steps, dtype=torch.float64)
        return torch.cat([betas.new_tensor([self.first_beta]), betas[1:]])


@dataclass(frozen=True, kw_only=True)
class Tabulated(Chain):
    """alpha-bar of each step as published with a checkpoint."""

    alphas_bar: tuple[float, ...]

    def betas(self) -> Tensor:
        signal = torch.tensor((1.0, *self.alphas_bar), dtype=torch.float64)
        return 1 - signal[1:] / signal[:-1]


@dataclass(frozen=True, kw_only=True)
class ZeroTerminalSnr(Process):
    """A variance-preserving process, stretched so that alpha is 0 at t_max.

    Lin et al. 2023 (arXiv 2305.08891) algorithm 1: alpha is shifted and scaled, its value at t_min
    kept. Eps and Score are undefined on it; V, Flow and X0 are not.
    """

    base: Process

    def __post_init__(self) -> None:
        alpha, sigma = self.base.alpha_sigma(self._ends())
        if not torch.allclose(alpha.square() + sigma.square(), torch.ones_like(alpha)):
            raise ValueError(
                f"{self.base} does not keep the variance; ZeroTerminalSnr needs alpha^2 + sigma^2 "
                "= 1. Use VPLinear, VPCosine or a chain."
            )

    def _ends(self) -> Tensor:
        return torch.tensor([self.t_min, self.t_max], dtype=torch.float64)

    @property
    def t_min(self) -> float:
        return self.base.t_min

    @property
    def t_max(self) -> float:
        return self.base.t_max

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        first, last = self.base.alpha_sigma(self._ends().to(t.device))[0]
        alpha = (self.base.alpha_sigma(t)[0] - last) * first / (first - last)
        return alpha, (1 - alpha.square()).sqrt()
