"""Sohl-Dickstein's chain with learned beta: every step's but the first.

Sohl-Dickstein et al. 2015 (arXiv 1503.03585) section 2.4.1. The gradient of the bound reaches beta
through x_t = alpha x0 + sigma eps with the noise held ("frozen noise").

Shapes: N steps of the chain, b batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ldm.diffusion.chain import FractionChain, between_steps, logsnr_table
from ldm.diffusion.learned import LearnedConfig
from ldm.diffusion.process import Process


@dataclass(frozen=True, kw_only=True)
class LearnedFractionConfig(LearnedConfig):
    """A chain that starts as `FractionChain` and learns its betas; the first stays fixed."""

    num_steps: int = 40
    first_beta: float = 1e-3

    def build(self) -> LearnedFraction:
        return LearnedFraction(self)


class LearnedFraction(nn.Module, Process):
    """beta = sigmoid(logit(beta of `FractionChain`) + shift), shift learned, as in their code."""

    start: Tensor  # [N] float64

    def __init__(self, config: LearnedFractionConfig) -> None:
        super().__init__()
        self.config = config
        fixed = FractionChain(num_steps=config.num_steps, first_beta=config.first_beta)
        self.register_buffer("start", torch.logit(fixed.betas()))
        self.shift = nn.Parameter(torch.zeros(config.num_steps - 1, dtype=torch.float64))

    @property
    def t_min(self) -> float:
        return 1.0 / self.config.num_steps

    @property
    def t_max(self) -> float:
        return 1.0

    def betas(self) -> Tensor:
        """beta of each step, [N] float64."""
        logit = self.start.double()
        return torch.sigmoid(torch.cat([logit[:1], logit[1:] + self.shift.double()]))

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return between_steps(logsnr_table(self.betas()), t)
