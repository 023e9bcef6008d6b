"""Fourier features in front of any network: VDM's way to see the last bits of a pixel.

Kingma et al. 2021 (arXiv 2107.00630) section 4.2 and appendix C. Legend: b batch, c channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ldm.networks.blocks import Conditions
from ldm.networks.embeddings import fourier_features


class Buildable(Protocol):
    """The configuration of a network."""

    def build(self) -> nn.Module: ...


@dataclass(frozen=True, kw_only=True)
class WavesConfig:
    """base: takes c (1 + 2 n) channels for data of c channels and n exponents.

    exponents: sin and cos of 2^n pi x; n = 7 and 8 are the half and the whole of a bin of 256
    levels in [-1, 1].
    """

    base: Buildable
    exponents: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.exponents:
            raise ValueError("no exponents were given; without waves take the base alone")

    def build(self) -> Waves:
        """The network, with fresh weights."""
        return Waves(self)


class Waves(nn.Module):
    """forward: x `[b c ...]`, time `[b]`, cond -> what `base` makes of x and its waves."""

    def __init__(self, config: WavesConfig) -> None:
        super().__init__()
        self.config = config
        self.base = config.base.build()

    def forward(self, x: Tensor, time: Tensor, cond: Conditions) -> Tensor:
        waves = fourier_features(x, self.config.exponents)
        y: Tensor = self.base(torch.cat([x, waves], dim=1), time, cond)
        return y
