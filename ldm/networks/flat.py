"""An MLP for small pictures, which it sees as one row of numbers: the cheapest network of a study.

Legend: b batch, c channels, h w rows and columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

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


@dataclass(frozen=True, kw_only=True)
class FlatEncoderConfig:
    """shape: of x, (c, h, w) or (d,); out_dim: of the answer; width, depth: of the MLP.

    timed: whether forward takes a time, as in `EncoderConfig`.
    """

    shape: tuple[int, ...]
    out_dim: int
    width: int = 128
    depth: int = 2
    timed: bool = False

    def build(self) -> FlatEncoder:
        """The encoder, with fresh weights."""
        return FlatEncoder(self)


class FlatEncoder(nn.Module):
    """forward: x `[b ...]`, time `[b]` or None -> representation `[b d]`.

    A new one does not answer 0: what is told of a code of zeros would begin without a use for it.
    """

    def __init__(self, config: FlatEncoderConfig) -> None:
        super().__init__()
        self.config = config
        dim, width = math.prod(config.shape), config.width
        self.mlp = Mlp(MlpConfig(dim=dim, out_dim=config.out_dim, width=width, depth=config.depth))
        self.mlp.out.reset_parameters()

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        if (time is None) == self.config.timed:
            wanted = "needs a" if self.config.timed else "takes no"
            raise ValueError(f"this encoder {wanted} time; `timed` of its configuration decides")
        y: Tensor = self.mlp(x.flatten(1), x.new_zeros(len(x)) if time is None else time, Nothing())
        return y


class Nothing(NamedTuple):
    """A conditioning without parts."""

    vector: Tensor | None = None
    tokens: Tensor | None = None
    mask: Tensor | None = None
    concat: Tensor | None = None
