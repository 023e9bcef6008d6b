"""A small network for data without a grid: toys in a few dimensions, or embeddings.

Legend: b batch, d data dimensions, c hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ldm.networks.blocks import Conditions, check_condition, check_row, zeroed
from ldm.networks.embeddings import TimeEmbedding


@dataclass(frozen=True, kw_only=True)
class MlpConfig:
    """dim, out_dim: of x and of the answer; vector_dim: width of cond.vector (None: no such)."""

    dim: int
    out_dim: int
    width: int = 128
    depth: int = 4
    vector_dim: int | None = None

    def build(self) -> Mlp:
        """The network, with fresh weights."""
        return Mlp(self)


class MlpBlock(nn.Module):
    """A residual layer whose norm is scaled and shifted by the time. x `[b c]` -> `[b c]`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.expand = nn.Linear(width, 2 * width)
        self.shrink = zeroed(nn.Linear(2 * width, width))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.modulation(F.silu(time)).chunk(2, dim=1)
        h = self.norm(x) * (1 + scale) + shift
        y: Tensor = x + self.shrink(F.silu(self.expand(h)))
        return y


class Mlp(nn.Module):
    """forward: x `[b d]`, time `[b]` (about 0..1000), cond -> `[b d']`."""

    def __init__(self, config: MlpConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.time = TimeEmbedding(width)
        self.vector = None if config.vector_dim is None else nn.Linear(config.vector_dim, width)
        self.stem = nn.Linear(config.dim, width)
        self.blocks = nn.ModuleList(MlpBlock(width) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.out = zeroed(nn.Linear(width, config.out_dim))

    def forward(self, x: Tensor, time: Tensor, cond: Conditions) -> Tensor:
        check_row(x, self.config.dim)
        check_condition("vector", cond.vector, 2, self.config.vector_dim)
        check_condition("tokens", cond.tokens, 3, None)
        check_condition("concat", cond.concat, 4, None)
        embedding = self.time(time)
        if self.vector is not None:
            embedding = embedding + self.vector(cond.vector)
        h = self.stem(x)
        for block in self.blocks:
            h = block(h, embedding)
        y: Tensor = self.out(self.norm(h))
        return y
