"""An MLP for small pictures, which it sees as one row of numbers: the cheapest network of a study.

Legend: b batch, c channels, h w rows and columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from ldm.networks.blocks import Conditions, check_condition
from ldm.networks.mlp import Mlp, MlpConfig


@dataclass(frozen=True, kw_only=True)
class FlatConfig:
    """shape: (c, h, w) of x and of the answer; width, depth: of the MLP."""

    shape: tuple[int, int, int]
    width: int = 256
    depth: int = 3

    def build(self) -> Flat:
        """The network, with fresh weights."""
        return Flat(self)


class Flat(nn.Module):
    """forward: x `[b c h w]`, time `[b]` (about 0..1000), cond (nothing) -> `[b c h w]`."""

    def __init__(self, config: FlatConfig) -> None:
        super().__init__()
        self.config = config
        size = math.prod(config.shape)
        self.mlp = Mlp(MlpConfig(dim=size, out_dim=size, width=config.width, depth=config.depth))

    def forward(self, x: Tensor, time: Tensor, cond: Conditions) -> Tensor:
        if x.ndim != 4 or tuple(x.shape[1:]) != self.config.shape:
            wanted = " ".join(str(n) for n in self.config.shape)
            raise ValueError(f"this network takes x [b {wanted}], not {tuple(x.shape)}")
        check_condition("vector", cond.vector, 2, None)
        y: Tensor = self.mlp(x.flatten(1), time, cond)
        return y.view_as(x)
