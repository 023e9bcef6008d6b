"""DiT, a transformer over patches with adaLN-Zero (Peebles and Xie 2022, arXiv 2212.09748, 3.2).

Legend: b batch, c channels, h w rows and columns, p patch side, n patches, d width, m context
tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.networks.attention import Backend
from ldm.networks.blocks import (
    Conditions,
    CrossAttention,
    FeedForward,
    SelfAttention,
    check_condition,
    zeroed,
)
from ldm.networks.embeddings import TimeEmbedding, sinusoid_2d

# depth, width, heads: table 1 of the paper
DIT_SIZES: dict[str, tuple[int, int, int]] = {
    "S": (12, 384, 6),
    "B": (12, 768, 12),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
}


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """Sizes of a DiT; `dit_config` names the published ones.

    vector_dim: width of cond.vector (None: none); context_dim: width of cond.tokens, which are
    cross-attended in each block as in PixArt-alpha (arXiv 2310.00426), None as published;
    concat_channels: of cond.concat, joined to x before it is cut into patches.
    apart: the distance of neighbouring patches in the sinusoid of positions, 1 as published. Its
    slow waves are all but constant over a grid of a few patches; 16 makes them tell places apart.
    """

    in_channels: int
    out_channels: int
    patch_size: int
    depth: int
    width: int
    heads: int
    ff_mult: int = 4
    vector_dim: int | None = None
    context_dim: int | None = None
    concat_channels: int = 0
    apart: float = 1.0
    attention: Backend = "auto"

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")

    def build(self) -> DiT:
        """The network, with fresh weights."""
        return DiT(self)


def dit_config(
    size: Literal["S", "B", "L", "XL"],
    patch_size: int,
    *,
    in_channels: int,
    out_channels: int,
    vector_dim: int | None = None,
) -> DiTConfig:
    """A published size, e.g. `dit_config("XL", 2, ...)` for DiT-XL/2."""
    if size not in DIT_SIZES:
        raise ValueError(f"no DiT of size {size!r}; the sizes are {', '.join(DIT_SIZES)}")
    depth, width, heads = DIT_SIZES[size]
    return DiTConfig(
        in_channels=in_channels,
        out_channels=out_channels,
        patch_size=patch_size,
        depth=depth,
        width=width,
        heads=heads,
        vector_dim=vector_dim,
    )


class DiTBlock(nn.Module):
    """Attention and feed-forward, each scaled, shifted and gated by the time; gates start at 0.

    forward: x `[b n d]`, time `[b d]`, context `[b m d']` -> `[b n d]`.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width, head_dim = config.width, config.width // config.heads
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = SelfAttention(width, head_dim=head_dim, backend=config.attention)
        self.feed_forward = FeedForward(width, config.ff_mult)
        # The gates start at zero, so the branches must not: else neither would ever move.
        nn.init.xavier_uniform_(self.attention.to_out.weight)
        nn.init.xavier_uniform_(self.feed_forward.shrink.weight)
        self.modulation = zeroed(nn.Linear(width, 6 * width))
        self.context: CrossAttention | None = None
        if config.context_dim is not None:
            self.context = CrossAttention(
                width, config.context_dim, head_dim=head_dim, backend=config.attention
            )

    def forward(
        self, x: Tensor, time: Tensor, context: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        values = self.modulation(F.silu(time))[:, None].chunk(6, dim=-1)
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = values
        x = x + gate_a * self.attention(self.norm(x) * (1 + scale_a) + shift_a)
        if self.context is not None and context is not None:
            x = x + self.context(x, self.context.keys_values(context), mask)
        y: Tensor = x + gate_f * self.feed_forward(self.norm(x) * (1 + scale_f) + shift_f)
        return y


class DiT(nn.Module):
    """forward: x `[b c h w]`, time `[b]` (about 0..1000), cond -> `[b c' h w]`; p divides h, w."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        width, area = config.width, config.patch_size**2
        self.time = TimeEmbedding(width)
        self.vector = None if config.vector_dim is None else nn.Linear(config.vector_dim, width)
        joined = config.in_channels + config.concat_channels
        self.stem = nn.Linear(joined * area, width)
        self.blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = zeroed(nn.Linear(width, 2 * width))
        self.out = zeroed(nn.Linear(width, config.out_channels * area))

    def forward(self, x: Tensor, time: Tensor, cond: Conditions) -> Tensor:
        self._check(x, cond)
        p, rows, columns = self.config.patch_size, *x.shape[2:]
        joined = x if cond.concat is None else torch.cat([x, cond.concat], dim=1)
        h = self.stem(rearrange(joined, "b c (h p) (w q) -> b (h w) (c p q)", p=p, q=p))
        h = h + self._positions(rows // p, columns // p, h)
        embedding = self.time(time)
        if self.vector is not None:
            embedding = embedding + self.vector(cond.vector)
        for block in self.blocks:
            h = block(h, embedding, cond.tokens, cond.mask)
        shift, scale = self.modulation(F.silu(embedding))[:, None].chunk(2, dim=-1)
        h = self.out(self.norm(h) * (1 + scale) + shift)
        return rearrange(h, "b (h w) (c p q) -> b c (h p) (w q)", h=rows // p, p=p, q=p)

    def _positions(self, rows: int, columns: int, like: Tensor) -> Tensor:
        width, apart = self.config.width, self.config.apart
        return sinusoid_2d(rows, columns, width, apart=apart, device=like.device).to(like.dtype)

    def _check(self, x: Tensor, cond: Conditions) -> None:
        channels, p = self.config.in_channels, self.config.patch_size
        if x.ndim != 4 or x.shape[1] != channels or x.shape[2] % p or x.shape[3] % p:
            raise ValueError(
                f"this network takes x [b {channels} h w] with h and w multiples of {p}, "
                f"not {tuple(x.shape)}"
            )
        check_condition("vector", cond.vector, 2, self.config.vector_dim)
        check_condition("tokens", cond.tokens, 3, self.config.context_dim)
        expected = (x.shape[0], self.config.concat_channels, *x.shape[2:])
        given = None if cond.concat is None else tuple(cond.concat.shape)
        if given != (expected if self.config.concat_channels else None):
            raise ValueError(
                f"this network takes {self.config.concat_channels} channels of cond.concat on the "
                f"grid of x; got {given} beside x {tuple(x.shape)}"
            )
