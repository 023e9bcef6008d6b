"""The U-Net: ADM's (arXiv 2105.05233, section 3) with cross-attention to a context.

Legend: b batch, c channels, h w rows and columns, m context tokens, d context width, e time width.

Adaptive group norm carries time and `cond.vector`; `cond.tokens` are cross-attended (latent
diffusion, arXiv 2112.10752, section 3.3); `cond.concat` is joined to the input. Output convolutions
start at zero, so a new network answers exactly 0. ADM's published sizes are in `unet_sizes`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.networks.attention import Backend
from ldm.networks.blocks import (
    Conditions,
    Context,
    CrossAttention,
    Downsample,
    ResBlock,
    SpatialTransformer,
    Upsample,
    check_condition,
    zeroed,
)
from ldm.networks.embeddings import TimeEmbedding, fourier_features


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Sizes of a U-Net.

    in_channels, out_channels: of x and of the output (a multiple of in_channels for a learned
        variance); concat_channels: of cond.concat.
    channels: width of each level, finest first; each further level halves the grid.
    attention_levels, cross_attention_levels: indices into `channels`; the middle does as the
        deepest level does. ff_mult: inner width of the feed-forward (None: no such layer).
    context_dim: width of cond.tokens (None: no cross-attention); vector_dim: width of cond.vector.
    time_dim: width of the time embedding (None: four times the first level).
    resample: "resblock" is BigGAN's, inside a residual block; "conv" one convolution, cheaper.
    fourier_exponents: joins sin and cos of 2^n pi x to the input (VDM uses 7, 8).
    """

    in_channels: int
    out_channels: int
    channels: tuple[int, ...]
    blocks_per_level: int = 2
    attention_levels: tuple[int, ...] = ()
    cross_attention_levels: tuple[int, ...] = ()
    head_dim: int = 64
    ff_mult: int | None = None
    context_dim: int | None = None
    vector_dim: int | None = None
    concat_channels: int = 0
    time_dim: int | None = None
    resample: Literal["resblock", "conv"] = "resblock"
    fourier_exponents: tuple[int, ...] = ()
    dropout: float = 0.0
    norm_groups: int = 32
    attention: Backend = "auto"

    def __post_init__(self) -> None:
        last = len(self.channels) - 1
        levels = (*self.attention_levels, *self.cross_attention_levels)
        if not self.channels or any(not 0 <= level <= last for level in levels):
            raise ValueError(f"attention levels {levels} must lie in 0..{last}, one per width")
        if bool(self.cross_attention_levels) != (self.context_dim is not None):
            raise ValueError(
                "cross_attention_levels and context_dim go together: got "
                f"{self.cross_attention_levels} and {self.context_dim}"
            )
        for width in self.channels:
            if width % self.norm_groups:
                raise ValueError(f"width {width} is not a multiple of {self.norm_groups} groups")

    @property
    def joined_channels(self) -> int:
        """Channels that the first convolution sees."""
        waves = 2 * len(self.fourier_exponents)
        return self.in_channels * (1 + waves) + self.concat_channels

    def build(self) -> UNet:
        """The network, with fresh weights."""
        return UNet(self)

    @property
    def embedding_dim(self) -> int:
        """Width of the time embedding."""
        return 4 * self.channels[0] if self.time_dim is None else self.time_dim


class Prepared(NamedTuple):
    """A conditioning of which all that does not depend on time is computed: vector is `[b e]`."""

    vector: Tensor | None
    context: Context
    concat: Tensor | None


class Layer(nn.Module):
    """A residual block and, where the level has attention, a transformer on its output."""

    def __init__(self, config: UNetConfig, in_channels: int, out_channels: int, level: int) -> None:
        super().__init__()
        self.block = residual(config, in_channels, out_channels)
        self.transformer = transformer(config, out_channels, level)
        self.slot: int | None = None  # which of the context's keys and values are this layer's

    def forward(self, x: Tensor, time: Tensor, context: Context) -> Tensor:
        h: Tensor = self.block(x, time)
        if self.transformer is None:
            return h
        keys_values = None if self.slot is None else context.keys_values[self.slot]
        y: Tensor = self.transformer(h, keys_values, context.mask)
        return y


class Level(nn.Module):
    """The layers of one grid and the step to the next grid (None at the end of the path)."""

    def __init__(self, layers: list[Layer], resample: nn.Module | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.resample = resample


def residual(config: UNetConfig, channels: int, out_channels: int, resize: int = 0) -> ResBlock:
    """A residual block of this network's kind; resize as in ResBlock."""
    return ResBlock(
        channels,
        out_channels,
        config.embedding_dim,
        groups=config.norm_groups,
        dropout=config.dropout,
        resize=resize,
    )


def transformer(config: UNetConfig, channels: int, level: int) -> SpatialTransformer | None:
    """The attention of a level, or None where it has none."""
    to_self, to_context = level in config.attention_levels, level in config.cross_attention_levels
    if not (to_self or to_context):
        return None
    return SpatialTransformer(
        channels,
        head_dim=config.head_dim,
        groups=config.norm_groups,
        self_attention=to_self,
        context_dim=config.context_dim if to_context else None,
        ff_mult=config.ff_mult,
        dropout=config.dropout,
        backend=config.attention,
    )


def resampler(config: UNetConfig, channels: int, direction: int) -> nn.Module:
    """The step to the coarser (-1) or finer (+1) grid."""
    if config.resample == "resblock":
        return residual(config, channels, channels, resize=direction)
    return Upsample(channels) if direction > 0 else Downsample(channels)


def down_path(config: UNetConfig) -> tuple[nn.ModuleList, list[int]]:
    """The levels, finest first, and the widths of all that the up path will join."""
    levels, width, skips = nn.ModuleList(), config.channels[0], [config.channels[0]]
    for index, out_width in enumerate(config.channels):
        layers = []
        for _ in range(config.blocks_per_level):
            layers.append(Layer(config, width, out_width, index))
            width = out_width
            skips.append(width)
        last = index == len(config.channels) - 1
        levels.append(Level(layers, None if last else resampler(config, width, -1)))
        if not last:
            skips.append(width)
    return levels, skips


def up_path(config: UNetConfig, skips: list[int]) -> nn.ModuleList:
    """The levels, coarsest first; each layer joins one of the widths in `skips`, last first."""
    levels, width, waiting = nn.ModuleList(), config.channels[-1], list(skips)
    for index in reversed(range(len(config.channels))):
        layers = []
        for _ in range(config.blocks_per_level + 1):
            layers.append(Layer(config, width + waiting.pop(), config.channels[index], index))
            width = config.channels[index]
        levels.append(Level(layers, None if index == 0 else resampler(config, width, +1)))
    return levels


def number_cross_attentions(network: nn.Module) -> list[CrossAttention]:
    """All cross-attentions in order, after telling each layer which of them is its own."""
    found: list[CrossAttention] = []
    for layer in network.modules():
        if not isinstance(layer, Layer) or layer.transformer is None:
            continue
        if layer.transformer.attend_context is not None:
            layer.slot = len(found)
            found.append(layer.transformer.attend_context)
    return found


class UNet(nn.Module):
    """forward: x `[b c h w]`, time `[b]` (about 0..1000), cond -> `[b c' h w]`.

    h and w are multiples of 2^(levels - 1). A sampler that keeps one conditioning for many steps
    calls `prepare(cond)` once and then `run(x, time, prepared)`, which is what forward does.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, last = config.channels, len(config.channels) - 1
        self.time = TimeEmbedding(config.embedding_dim)
        self.vector = vector_projection(config)
        self.stem = nn.Conv2d(config.joined_channels, widths[0], 3, padding=1)
        self.down, skips = down_path(config)
        self.middle_in = Layer(config, widths[-1], widths[-1], last)
        self.middle_out = residual(config, widths[-1], widths[-1])
        self.up = up_path(config, skips)
        self.norm = nn.GroupNorm(config.norm_groups, widths[0])
        self.out = zeroed(nn.Conv2d(widths[0], config.out_channels, 3, padding=1))
        number_cross_attentions(self)

    def forward(self, x: Tensor, time: Tensor, cond: Conditions) -> Tensor:
        return self.run(x, time, self.prepare(cond))

    def prepare(self, cond: Conditions) -> Prepared:
        """Check the conditioning and project it: the part that is the same at every step."""
        return prepare(self, self.config, self.vector, cond)

    def run(self, x: Tensor, time: Tensor, prepared: Prepared) -> Tensor:
        """One evaluation with a prepared conditioning. x `[b c h w]` -> `[b c' h w]`."""
        embedding, context = embed(self.time, time, prepared), prepared.context
        h = self.stem(join(self.config, x, prepared.concat))
        h, skips = descend(self.down, h, embedding, context)
        h = self.middle_out(self.middle_in(h, embedding, context), embedding)
        for level in cast("Iterable[Level]", self.up):
            for layer in level.layers:
                h = layer(torch.cat([h, skips.pop()], dim=1), embedding, context)
            if level.resample is not None:
                h = level.resample(h, embedding)
        y: Tensor = self.out(F.silu(self.norm(h)))
        return y


def vector_projection(config: UNetConfig) -> nn.Linear | None:
    """What brings cond.vector to the width of the time embedding; None without a vector."""
    return None if config.vector_dim is None else nn.Linear(config.vector_dim, config.embedding_dim)


def prepare(
    network: nn.Module, config: UNetConfig, vector: nn.Linear | None, cond: Conditions
) -> Prepared:
    """The conditioning, checked and projected by the network's own layers."""
    check_condition("vector", cond.vector, 2, config.vector_dim)
    check_condition("tokens", cond.tokens, 3, config.context_dim)
    context = Context()
    if cond.tokens is not None:
        layers = number_cross_attentions(network)
        context = Context(tuple(layer.keys_values(cond.tokens) for layer in layers), cond.mask)
    return Prepared(None if vector is None else vector(cond.vector), context, cond.concat)


def embed(time_embedding: TimeEmbedding, time: Tensor, prepared: Prepared) -> Tensor:
    """Time `[b]` and the projected vector `[b e]` as one embedding `[b e]`."""
    embedding: Tensor = time_embedding(time)
    return embedding if prepared.vector is None else embedding + prepared.vector


def descend(
    levels: Iterable[nn.Module], h: Tensor, embedding: Tensor, context: Context
) -> tuple[Tensor, list[Tensor]]:
    """The down path from the stem's output h: its end, and everything that the up path joins."""
    skips = [h]
    for level in cast("Iterable[Level]", levels):
        for layer in level.layers:
            h = layer(h, embedding, context)
            skips.append(h)
        if level.resample is not None:
            h = level.resample(h, embedding)
            skips.append(h)
    return h, skips


def join(config: UNetConfig, x: Tensor, concat: Tensor | None) -> Tensor:
    """x `[b c h w]`, its Fourier features and cond.concat as the stem wants them."""
    check_grid(x, config)
    expected = (x.shape[0], config.concat_channels, *x.shape[2:])
    given = None if concat is None else tuple(concat.shape)
    if given != (expected if config.concat_channels else None):
        raise ValueError(
            f"this network takes {config.concat_channels} channels of cond.concat on the grid of "
            f"x; got {given} beside x {tuple(x.shape)}"
        )
    waves = [fourier_features(x, config.fourier_exponents)] if config.fourier_exponents else []
    return torch.cat([x, *waves, *([] if concat is None else [concat])], dim=1)


def check_grid(x: Tensor, config: UNetConfig) -> None:
    """Refuse an x that the network cannot take, naming what it can."""
    step = 2 ** (len(config.channels) - 1)
    if x.ndim != 4 or x.shape[1] != config.in_channels:
        raise ValueError(
            f"this network takes x [b {config.in_channels} h w], not {tuple(x.shape)}; "
            "in_channels of its configuration decides"
        )
    if x.shape[2] % step or x.shape[3] % step:
        raise ValueError(
            f"height and width must be multiples of {step} (a halving for each of "
            f"{len(config.channels)} levels but one), not {tuple(x.shape[2:])}"
        )
