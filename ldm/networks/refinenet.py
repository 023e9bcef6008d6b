"""NCSN's conditional RefineNet, small: instance norm++ told of the noise, ELU, dilation.

Song & Ermon 2019 (arXiv 1907.05600) appendix A, after RefineNet (Lin et al. 2016, 1611.06612):
stages that see ever further, then blocks that join them from the deepest up. Their table of one row
of norm parameters for each noise level is here a layer on the time embedding, so any time may be
asked for.

Legend: b batch, c channels, h w rows and columns, e width of the time embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.networks.blocks import Conditions, check_condition, zeroed
from ldm.networks.embeddings import TimeEmbedding


@dataclass(frozen=True, kw_only=True)
class RefineNetConfig:
    """in_channels: of x and of the answer; channels: of the first stage, twice that after it;
    dilations: of the stages after the first, which see half of the grid."""

    in_channels: int
    channels: int = 32
    dilations: tuple[int, ...] = (1, 2, 4)
    time_dim: int = 64

    def __post_init__(self) -> None:
        if not self.dilations:
            raise ValueError("a RefineNet has two stages or more; give one dilation or more")

    def build(self) -> RefineNet:
        """The network, with fresh weights."""
        return RefineNet(self)


class InstanceNormPlus(nn.Module):
    """gamma (h - m)/s + beta + alpha (m - mean m)/std m, all three told by the time.

    m, s: mean and deviation of each channel over the grid, which plain instance norm forgets; the
    last term brings back how they differ. 1907.05600 appendix A.1. `[b c h w]`, `[b e]` -> same.
    """

    def __init__(self, channels: int, time_dim: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(time_dim, 3 * channels)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        mean = h.mean((2, 3), keepdim=True)  # [b c 1 1]
        spread = (mean - mean.mean(1, keepdim=True)) * (mean.var(1, keepdim=True) + 1e-5).rsqrt()
        gamma, alpha, beta = self.modulation(F.elu(time))[:, :, None, None].chunk(3, dim=1)
        return (1 + gamma) * F.instance_norm(h) + (1 + alpha) * spread + beta


class Residual(nn.Module):
    """Norm, ELU, convolution, twice, beside a skip. `[b c h w]` -> `[b c' h' w']`.

    `halve` averages 2 x 2 squares at the end of both branches.
    """

    def __init__(
        self, channels: int, out_channels: int, time_dim: int, *, dilation: int, halve: bool = False
    ) -> None:
        super().__init__()
        self.halve = halve
        self.norm_in = InstanceNormPlus(channels, time_dim)
        self.conv_in = convolution(channels, out_channels, dilation)
        self.norm_out = InstanceNormPlus(out_channels, time_dim)
        self.conv_out = convolution(out_channels, out_channels, dilation)
        same = channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv_in(F.elu(self.norm_in(x, time)))
        h = self.skip(x) + self.conv_out(F.elu(self.norm_out(h, time)))
        return F.avg_pool2d(h, 2) if self.halve else h


class Pool(nn.Module):
    """Chained residual pooling: a wide average, convolved, added. `[b c h w]` -> same."""

    def __init__(self, channels: int, time_dim: int) -> None:
        super().__init__()
        self.norm = InstanceNormPlus(channels, time_dim)
        self.conv = convolution(channels, channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = F.elu(x)
        wide = F.avg_pool2d(self.norm(h, time), 5, stride=1, padding=2, count_include_pad=False)
        y: Tensor = h + self.conv(wide)
        return y


class Refine(nn.Module):
    """Joins a stage with what came from below on a grid as large or half. Both `[b c h w]`.

    1611.06612 section 3.2: residual units on each, fusion, chained pooling, a last residual unit.
    """

    def __init__(self, widths: Sequence[int], out_channels: int, time_dim: int) -> None:
        super().__init__()
        self.units = nn.ModuleList(Residual(w, w, time_dim, dilation=1) for w in widths)
        self.fuse = nn.ModuleList(convolution(w, out_channels) for w in widths)
        self.pool = Pool(out_channels, time_dim)
        self.last = Residual(out_channels, out_channels, time_dim, dilation=1)

    def forward(self, inputs: Sequence[Tensor], time: Tensor) -> Tensor:
        size = inputs[0].shape[2:]
        parts = [
            F.interpolate(fuse(unit(x, time)), size=size, mode="nearest")
            for x, unit, fuse in zip(inputs, self.units, self.fuse, strict=True)
        ]
        y: Tensor = self.last(self.pool(torch.stack(parts).sum(0), time), time)
        return y


class RefineNet(nn.Module):
    """forward: x `[b c h w]`, time `[b]` (about 0..1000), cond (nothing) -> `[b c h w]`."""

    def __init__(self, config: RefineNetConfig) -> None:
        super().__init__()
        self.config = config
        narrow, wide, e = config.channels, 2 * config.channels, config.time_dim
        self.time = TimeEmbedding(e)
        self.stem = convolution(config.in_channels, narrow)
        stages = [Residual(narrow, narrow, e, dilation=1)]
        for i, dilation in enumerate(config.dilations):
            width = narrow if i == 0 else wide
            stages.append(Residual(width, wide, e, dilation=dilation, halve=i == 0))
        self.stages = nn.ModuleList(stages)
        joins = [Refine([wide, wide], wide, e) for _ in config.dilations[1:]]
        ends = Refine([wide], wide, e), Refine([narrow, wide], narrow, e)
        self.refines = nn.ModuleList([ends[0], *joins, ends[1]])
        self.norm = InstanceNormPlus(narrow, e)
        self.out = zeroed(convolution(narrow, config.in_channels))

    def forward(self, x: Tensor, time: Tensor, cond: Conditions) -> Tensor:
        self._check(x, cond)
        embedding = self.time(time)
        h, seen = self.stem(x), []
        for stage in self.stages:
            h = stage(h, embedding)
            seen.append(h)
        h = self.refines[0]([seen.pop()], embedding)
        for refine in list(self.refines)[1:]:
            h = refine([seen.pop(), h], embedding)
        y: Tensor = self.out(F.elu(self.norm(h, embedding)))
        return y

    def _check(self, x: Tensor, cond: Conditions) -> None:
        """Refuse what this network does not take."""
        if x.ndim != 4 or x.shape[1] != self.config.in_channels:
            wanted = f"[b {self.config.in_channels} h w]"
            raise ValueError(f"this network takes x {wanted}, not {tuple(x.shape)}")
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(f"height and width must be even, not {tuple(x.shape[2:])}")
        check_condition("vector", cond.vector, 2, None)
        check_condition("tokens", cond.tokens, 3, None)
        check_condition("concat", cond.concat, 4, None)


def convolution(channels: int, out_channels: int, dilation: int = 1) -> nn.Conv2d:
    """3 x 3, keeping the grid."""
    return nn.Conv2d(channels, out_channels, 3, padding=dilation, dilation=dilation)
