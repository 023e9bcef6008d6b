"""The blocks of the convolutional autoencoder; the names of the parameters are diffusers'.

Latent diffusion (arXiv 2112.10752), appendix E; layers as in `AutoencoderKL` of diffusers, so that
published weights load without a key map. Shapes: b batch, c channels, h w grid.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "swish": F.silu,
    "mish": F.mish,
    "gelu": F.gelu,
    "relu": F.relu,
}


class ResnetBlock(nn.Module):
    """norm, act, conv, twice, added to the input: [b c_in h w] -> [b c_out h w]."""

    def __init__(self, c_in: int, c_out: int, groups: int, act: str) -> None:
        super().__init__()
        self.act = ACTIVATIONS[act]
        self.norm1 = nn.GroupNorm(groups, c_in, eps=NORM_EPS)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, c_out, eps=NORM_EPS)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else None

    def forward(self, x: Tensor) -> Tensor:
        """[b c_in h w] -> [b c_out h w]."""
        h = self.conv1(self.act(self.norm1(x)))
        h = self.conv2(self.act(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nn.Module):
    """One head of self-attention over the grid, added to the input: [b c h w] -> [b c h w]."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=NORM_EPS)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        """[b c h w] -> [b c h w]."""
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)  # [b (h w) c]
        q, k, v = (f(tokens).unsqueeze(1) for f in (self.to_q, self.to_k, self.to_v))
        y = F.scaled_dot_product_attention(q, k, v).squeeze(1)  # [b (h w) c]
        return x + self.to_out[0](y).transpose(1, 2).reshape(x.shape)


class Downsample(nn.Module):
    """Halves the grid by a strided convolution, padded on the right and below."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[b c h w] -> [b c h/2 w/2]."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles the grid by repetition, then convolves: [b c h w] -> [b c 2h 2w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[b c h w] -> [b c 2h 2w]."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class MidBlock(nn.Module):
    """Residual block, attention (optional), residual block: [b c h w] -> [b c h w]."""

    def __init__(self, channels: int, groups: int, act: str, *, attention: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            [ResnetBlock(channels, channels, groups, act) for _ in range(2)]
        )
        self.attentions = nn.ModuleList([Attention(channels, groups)] if attention else [])

    def forward(self, x: Tensor) -> Tensor:
        """[b c h w] -> [b c h w]."""
        x = self.resnets[0](x)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x)


class DownBlock(nn.Module):
    """Residual blocks of one level, then a halving of the grid (not at the last level)."""

    def __init__(
        self, c_in: int, c_out: int, layers: int, groups: int, act: str, *, halve: bool
    ) -> None:
        super().__init__()
        widths = [c_in] + [c_out] * layers
        self.resnets = nn.ModuleList([ResnetBlock(a, b, groups, act) for a, b in pairwise(widths)])
        self.downsamplers = nn.ModuleList([Downsample(c_out)] if halve else [])

    def forward(self, x: Tensor) -> Tensor:
        """[b c_in h w] -> [b c_out h/2 w/2]."""
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x)
        return x


class UpBlock(nn.Module):
    """Residual blocks of one level, then a doubling of the grid (not at the last level)."""

    def __init__(
        self, c_in: int, c_out: int, layers: int, groups: int, act: str, *, double: bool
    ) -> None:
        super().__init__()
        widths = [c_in] + [c_out] * layers
        self.resnets = nn.ModuleList([ResnetBlock(a, b, groups, act) for a, b in pairwise(widths)])
        self.upsamplers = nn.ModuleList([Upsample(c_out)] if double else [])

    def forward(self, x: Tensor) -> Tensor:
        """[b c_in h w] -> [b c_out 2h 2w]."""
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x)
        return x


class Encoder(nn.Module):
    """Pixels (or their patches) to the channels of the latent: [b c H W] -> [b k H/f W/f].

    f is 2 to the number of widths less one. The last activation is SiLU whatever `act` is, as in
    the published networks; so in the decoder.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        widths: tuple[int, ...],
        layers: int,
        groups: int,
        act: str,
        *,
        attention: bool,
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(c_in, widths[0], 3, padding=1)
        pairs = list(pairwise((widths[0], *widths)))
        self.down_blocks = nn.ModuleList(
            [
                DownBlock(a, b, layers, groups, act, halve=i + 1 < len(pairs))
                for i, (a, b) in enumerate(pairs)
            ]
        )
        self.mid_block = MidBlock(widths[-1], groups, act, attention=attention)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=NORM_EPS)
        self.conv_out = nn.Conv2d(widths[-1], c_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[b c H W] -> [b k H/f W/f]."""
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """The channels of the latent to pixels (or their patches): [b k h w] -> [b c fh fw]."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        widths: tuple[int, ...],
        layers: int,
        groups: int,
        act: str,
        *,
        attention: bool,
    ) -> None:
        super().__init__()
        self.act = ACTIVATIONS[act]
        falling = widths[::-1]
        self.conv_in = nn.Conv2d(c_in, falling[0], 3, padding=1)
        self.mid_block = MidBlock(falling[0], groups, act, attention=attention)
        pairs = list(pairwise((falling[0], *falling)))
        self.up_blocks = nn.ModuleList(
            [
                UpBlock(a, b, layers + 1, groups, act, double=i + 1 < len(pairs))
                for i, (a, b) in enumerate(pairs)
            ]
        )
        self.conv_norm_out = nn.GroupNorm(groups, falling[-1], eps=NORM_EPS)
        self.conv_out = nn.Conv2d(falling[-1], c_out, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """[b k h w] -> [b c fh fw]."""
        z = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            z = block(z)
        return self.conv_out(F.silu(self.conv_norm_out(z)))
