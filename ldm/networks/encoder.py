"""The first half of the U-Net, pooled by attention: a noise-aware classifier or representation.

Legend: b batch, c channels, h w rows and columns, d width of the answer.
ADM's classifier (arXiv 2105.05233, section 4 and table 12): the down path and the middle, then
attention pooling as in CLIP (arXiv 2103.00020, section 2.4). Without a time it is the encoder E(x0)
of diffusion-based representation learning (arXiv 2105.14257), with it E(x_t, t).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.networks.attention import Backend, attention
from ldm.networks.blocks import Context, heads_of
from ldm.networks.embeddings import TimeEmbedding
from ldm.networks.unet import Layer, UNetConfig, descend, down_path, join, residual


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Sizes of an encoder.

    trunk: the U-Net whose down path this is, without context, vector or concat; its out_channels
    is the width of the answer. grid: the side of x, which fixes the positions of the pool.
    timed: whether forward takes a time; without it, the blocks' modulations are constants.
    """

    trunk: UNetConfig
    grid: int
    timed: bool = True

    def __post_init__(self) -> None:
        trunk = self.trunk
        if trunk.context_dim or trunk.vector_dim or trunk.concat_channels:
            raise ValueError("an encoder's trunk takes no context, vector or concat channels")
        if self.grid % 2 ** (len(trunk.channels) - 1):
            raise ValueError(f"a grid of {self.grid} cannot be halved for each further level")

    @property
    def out_dim(self) -> int:
        """Width of the answer."""
        return self.trunk.out_channels

    def build(self) -> Encoder:
        """The encoder, with fresh weights."""
        return Encoder(self)


class AttentionPool(nn.Module):
    """The mean token attends to all pixels. forward: `[b c h w]` -> `[b d]`; h = w = side."""

    def __init__(
        self, channels: int, out_dim: int, *, side: int, head_dim: int, backend: Backend = "auto"
    ) -> None:
        super().__init__()
        self.heads, self.backend = heads_of(channels, head_dim), backend
        self.positions = nn.Parameter(torch.randn(side * side + 1, channels) / channels**0.5)
        self.to_q = nn.Linear(channels, channels)
        self.to_kv = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        pixels = rearrange(x, "b c h w -> b (h w) c")
        tokens = torch.cat([pixels.mean(dim=1, keepdim=True), pixels], dim=1) + self.positions
        q = rearrange(self.to_q(tokens[:, :1]), "b n (h d) -> b n h d", h=self.heads)
        kv = rearrange(self.to_kv(tokens), "b m (two h d) -> two b m h d", two=2, h=self.heads)
        pooled = attention(q, *kv.unbind(), backend=self.backend)
        y: Tensor = self.out(rearrange(pooled, "b 1 h d -> b (h d)"))
        return y


class Encoder(nn.Module):
    """forward: x `[b c h w]`, time `[b]` or None -> logits or representation `[b d]`."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config, trunk = config, config.trunk
        widths, last = trunk.channels, len(trunk.channels) - 1
        self.time = TimeEmbedding(trunk.embedding_dim) if config.timed else None
        self.stem = nn.Conv2d(trunk.joined_channels, widths[0], 3, padding=1)
        self.down, _ = down_path(trunk)
        self.middle_in = Layer(trunk, widths[-1], widths[-1], last)
        self.middle_out = residual(trunk, widths[-1], widths[-1])
        self.norm = nn.GroupNorm(trunk.norm_groups, widths[-1])
        self.pool = AttentionPool(
            widths[-1],
            trunk.out_channels,
            side=config.grid >> last,
            head_dim=trunk.head_dim,
            backend=trunk.attention,
        )

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        if x.shape[2:] != (self.config.grid, self.config.grid):
            raise ValueError(
                f"this encoder takes squares of {self.config.grid} pixels, not {tuple(x.shape)}"
            )
        joined = join(self.config.trunk, x, None)
        embedding, context = self._embedding(x, time), Context()
        h, _ = descend(self.down, self.stem(joined), embedding, context)
        h = self.middle_out(self.middle_in(h, embedding, context), embedding)
        y: Tensor = self.pool(F.silu(self.norm(h)))
        return y

    def _embedding(self, x: Tensor, time: Tensor | None) -> Tensor:
        if (self.time is None) != (time is None):
            wanted = "takes no" if self.time is None else "needs a"
            raise ValueError(f"this encoder {wanted} time; `timed` of its configuration decides")
        if self.time is None or time is None:
            return x.new_zeros(x.shape[0], self.config.trunk.embedding_dim)
        embedding: Tensor = self.time(time)
        return embedding
