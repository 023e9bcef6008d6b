"""The pieces that the networks share: residual blocks, resampling, transformer layers.

Legend: b batch, c channels, h w rows and columns, n tokens, m context tokens, d context width,
e width of the time embedding.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeVar

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.networks.attention import Backend, attention

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class Conditions(Protocol):
    """What a network reads of the conditioning; each field may be None.

    vector `[b d]`, tokens `[b m d]`, mask bool `[b m]` (True = attend), concat `[b c h w]`.
    """

    @property
    def vector(self) -> Tensor | None: ...
    @property
    def tokens(self) -> Tensor | None: ...
    @property
    def mask(self) -> Tensor | None: ...
    @property
    def concat(self) -> Tensor | None: ...


class Context(NamedTuple):
    """Keys and values of the context for each cross-attention, made once per conditioning.

    keys_values: one `[2 b m h d]` per cross-attention, in order; mask: bool `[b m]` or None.
    """

    keys_values: tuple[Tensor, ...] = ()
    mask: Tensor | None = None


def zeroed(module: AnyModule) -> AnyModule:
    """The module with all its parameters set to zero, so that its residual branch starts as 0."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def check_row(x: Tensor, dim: int) -> None:
    """Refuse an x that is not `[b dim]`, for networks of data without a grid."""
    if x.ndim != 2 or x.shape[1] != dim:
        raise ValueError(f"this network takes x [b {dim}], not {tuple(x.shape)}")


def check_condition(name: str, given: Tensor | None, ndim: int, width: int | None) -> None:
    """Refuse a conditioning that is missing, unasked for or of another width."""
    fits = given is None if width is None else given is not None
    if given is not None and width is not None:
        fits = given.ndim == ndim and given.shape[-1] == width
    if not fits:
        wanted = "none" if width is None else f"width {width}"
        got = "none" if given is None else f"shape {tuple(given.shape)}"
        raise ValueError(
            f"this network takes cond.{name} of {wanted}, and got {got}; its configuration "
            "and the conditioner must agree"
        )


def heads_of(channels: int, head_dim: int) -> int:
    """How many heads of `head_dim` channels a width has; an error when they do not fit."""
    if channels % head_dim:
        raise ValueError(
            f"attention at width {channels} needs heads that divide it; head_dim is {head_dim}. "
            "Choose widths that are multiples of head_dim, or a smaller head_dim"
        )
    return channels // head_dim


class SelfAttention(nn.Module):
    """Multi-head attention of tokens to each other. forward: `[b n c]` -> `[b n c]`."""

    def __init__(
        self, channels: int, *, head_dim: int, causal: bool = False, backend: Backend = "auto"
    ) -> None:
        super().__init__()
        self.heads = heads_of(channels, head_dim)
        self.causal, self.backend = causal, backend
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.to_out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        qkv = rearrange(self.to_qkv(x), "b n (three h d) -> three b n h d", three=3, h=self.heads)
        out = attention(*qkv.unbind(), mask=mask, causal=self.causal, backend=self.backend)
        y: Tensor = self.to_out(rearrange(out, "b n h d -> b n (h d)"))
        return y


class CrossAttention(nn.Module):
    """Multi-head attention of tokens `[b n c]` to a context `[b m d]`.

    Keys and values depend on the context alone, so they are a method of their own: a sampler
    projects them once and walks many steps with them. `inner` is the width of all heads together,
    `channels` unless it is given.
    """

    def __init__(
        self,
        channels: int,
        context_dim: int,
        *,
        head_dim: int,
        inner: int | None = None,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        inner = channels if inner is None else inner
        self.heads, self.backend = heads_of(inner, head_dim), backend
        self.to_q = nn.Linear(channels, inner)
        self.to_kv = nn.Linear(context_dim, 2 * inner)
        self.to_out = zeroed(nn.Linear(inner, channels))

    def keys_values(self, context: Tensor) -> Tensor:
        """context `[b m d]` -> `[2 b m h d]`."""
        return rearrange(self.to_kv(context), "b m (two h d) -> two b m h d", two=2, h=self.heads)

    def forward(self, x: Tensor, keys_values: Tensor, mask: Tensor | None) -> Tensor:
        q = rearrange(self.to_q(x), "b n (h d) -> b n h d", h=self.heads)
        out = attention(q, *keys_values.unbind(), mask=mask, backend=self.backend)
        y: Tensor = self.to_out(rearrange(out, "b n h d -> b n (h d)"))
        return y


class FeedForward(nn.Module):
    """Linear, GELU, Linear with `mult` times the width inside. forward: `[b n c]` -> `[b n c]`."""

    def __init__(self, channels: int, mult: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, mult * channels)
        self.dropout = nn.Dropout(dropout)
        self.shrink = zeroed(nn.Linear(mult * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.shrink(self.dropout(F.gelu(self.expand(x), approximate="tanh")))
        return y


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a 3x3 convolution. `[b c h w]` -> `[b c 2h 2w]`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        y: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return y


class Downsample(nn.Module):
    """A 3x3 convolution of stride 2. `[b c h w]` -> `[b c h/2 w/2]`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


class ResBlock(nn.Module):
    """BigGAN's residual block with adaptive group norm (ADM, arXiv 2105.05233, section 3).

    AdaGN(h, y) = y_s GroupNorm(h) + y_b, with y_s = 1 + s so that zero weights change nothing.
    `resize` +1 doubles and -1 halves the grid inside the block, on both branches.
    forward: x `[b c h w]`, time `[b e]` -> `[b c' h' w']`.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        time_dim: int,
        *,
        groups: int,
        dropout: float = 0.0,
        resize: int = 0,
    ) -> None:
        super().__init__()
        self.resize = resize
        self.norm_in = nn.GroupNorm(groups, channels)
        self.conv_in = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.modulation = nn.Linear(time_dim, 2 * out_channels)
        self.norm_out = nn.GroupNorm(groups, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        same = channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self._resized(F.silu(self.norm_in(x)))
        h = self.conv_in(h)
        scale, shift = self.modulation(F.silu(time))[:, :, None, None].chunk(2, dim=1)
        h = self.norm_out(h) * (1 + scale) + shift
        h = self.conv_out(self.dropout(F.silu(h)))
        y: Tensor = self.skip(self._resized(x)) + h
        return y

    def _resized(self, x: Tensor) -> Tensor:
        if self.resize > 0:
            return F.interpolate(x, scale_factor=2.0, mode="nearest")
        return F.avg_pool2d(x, 2) if self.resize < 0 else x


class SpatialTransformer(nn.Module):
    """Self-attention, cross-attention and feed-forward over the pixels of a grid; each optional.

    With self-attention alone it is ADM's attention block; with all three, the transformer block of
    latent diffusion (arXiv 2112.10752, appendix E.2.1) without its two outer projections.
    forward: `[b c h w]` -> `[b c h w]`.
    """

    def __init__(
        self,
        channels: int,
        *,
        head_dim: int,
        groups: int,
        self_attention: bool,
        context_dim: int | None,
        ff_mult: int | None,
        dropout: float = 0.0,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        self.attend_self: SelfAttention | None = None
        self.attend_context: CrossAttention | None = None
        self.feed_forward: FeedForward | None = None
        if self_attention:
            self.norm_self = nn.GroupNorm(groups, channels)
            self.attend_self = SelfAttention(channels, head_dim=head_dim, backend=backend)
        if context_dim is not None:
            self.norm_context = nn.LayerNorm(channels)
            self.attend_context = CrossAttention(
                channels, context_dim, head_dim=head_dim, backend=backend
            )
        if ff_mult is not None:
            self.norm_ff = nn.LayerNorm(channels)
            self.feed_forward = FeedForward(channels, ff_mult, dropout=dropout)

    def forward(self, x: Tensor, keys_values: Tensor | None, mask: Tensor | None) -> Tensor:
        height = x.shape[2]
        tokens = rearrange(x, "b c h w -> b (h w) c")
        if self.attend_self is not None:
            normed = rearrange(self.norm_self(x), "b c h w -> b (h w) c")
            tokens = tokens + self.attend_self(normed)
        if self.attend_context is not None:
            assert keys_values is not None, "the caller checks that the context is there"
            normed = self.norm_context(tokens)
            tokens = tokens + self.attend_context(normed, keys_values, mask)
        if self.feed_forward is not None:
            tokens = tokens + self.feed_forward(self.norm_ff(tokens))
        return rearrange(tokens, "b (h w) c -> b c h w", h=height)
