"""An MLP for small pictures, which it sees as one row of numbers: the cheapest network of a study.

Legend: b batch, c channels, h w rows and columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from ldm.networks.blocks import Conditions
from ldm.networks.mlp import Mlp, MlpConfig


@dataclass(frozen=True, kw_only=True)
class FlatConfig:
    """shape: (c, h, w) of x; out_channels: of the answer (None: c, more for a learned variance);
    width, depth: of the MLP; vector_dim: width of cond.vector (None: no such).
    """

    shape: tuple[int, int, int]
    out_channels: int | None = None
    width: int = 256
    depth: int = 3
    vector_dim: int | None = None

    def build(self) -> Flat:
        """The network, with fresh weights."""
        return Flat(self)


class Flat(nn.Module):
    """forward: x `[b c h w]`, time `[b]` (about 0..1000), cond (vector or none) -> `[b c' h w]`."""

    def __init__(self, config: FlatConfig) -> None:
        super().__init__()
        self.config = config
        channels, *side = config.shape
        self.answer = (config.out_channels or channels, *side)
        self.mlp = Mlp(
            MlpConfig(
                dim=math.prod(config.shape),
                out_dim=math.prod(self.answer),
                width=config.width,
                depth=config.depth,
                vector_dim=config.vector_dim,
            )
        )

    def forward(self, x: Tensor, time: Tensor, cond: Conditions) -> Tensor:
        if x.ndim != 4 or tuple(x.shape[1:]) != self.config.shape:
            wanted = " ".join(str(n) for n in self.config.shape)
            raise ValueError(f"this network takes x [b {wanted}], not {tuple(x.shape)}")
        y: Tensor = self.mlp(x.flatten(1), time, cond)
        return y.unflatten(1, self.answer)
