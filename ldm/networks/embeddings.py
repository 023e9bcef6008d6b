"""Embeddings of scalars and positions.

Legend: b batch, d width, c channels, h w rows and columns, n positions.
Sources: sinusoid, Vaswani et al. 2017 (arXiv 1706.03762) section 3.5, in the form of DDPM's code;
Fourier features, Kingma et al. 2021 (VDM, arXiv 2107.00630) appendix C.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sinusoid(position: Tensor, width: int, *, max_period: float = 10_000.0) -> Tensor:
    """Cosines, then sines, of a position at `width / 2` geometrically falling frequencies.

    position: `[b]`, any real (times are about 0..1000). Returns float32 `[b d]`, d = width.
    """
    if width % 2:
        raise ValueError(f"a sinusoid has an even width, not {width}; give an even number")
    half = width // 2
    index = torch.arange(half, dtype=torch.float32, device=position.device)
    frequency = torch.exp(-math.log(max_period) * index / half)
    angle = position.float()[:, None] * frequency[None, :]
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def sinusoid_2d(
    height: int, width: int, dim: int, *, apart: float = 1.0, device: torch.device | None = None
) -> Tensor:
    """Fixed positions of a grid: half of the channels tell the row, half the column. `[h*w d]`.

    apart: the distance of neighbours.
    """
    if dim % 4:
        raise ValueError(f"a two-dimensional sinusoid needs a width divisible by 4, not {dim}")
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    parts = [sinusoid(apart * axis.flatten(), dim // 2) for axis in (rows, columns)]
    return torch.cat(parts, dim=-1)


def fourier_features(x: Tensor, exponents: tuple[int, ...]) -> Tensor:
    """sin and cos of 2^n pi x, for fine detail (VDM appendix C uses n = 7, 8).

    x: `[b c ...]`. Returns the features alone, `[b c*2*len(exponents) ...]`.
    """
    scaled = [x * (2.0**n * math.pi) for n in exponents]
    return torch.cat([wave(s) for s in scaled for wave in (torch.sin, torch.cos)], dim=1)


class TimeEmbedding(nn.Module):
    """Sinusoid of width `out / 4`, then Linear, SiLU, Linear (DDPM, arXiv 2006.11239, appendix B).

    forward: time `[b]` about 0..1000 -> `[b d]`, d = width.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        if width % 8:
            raise ValueError(f"a time embedding's width is a multiple of 8, not {width}")
        self.sinusoid_width = width // 4
        self.expand = nn.Linear(self.sinusoid_width, width)
        self.mix = nn.Linear(width, width)

    def forward(self, time: Tensor) -> Tensor:
        if time.ndim != 1:
            raise ValueError(f"time must be one number per item, [b], not {tuple(time.shape)}")
        features = sinusoid(time, self.sinusoid_width).to(self.expand.weight.dtype)
        out: Tensor = self.mix(nn.functional.silu(self.expand(features)))
        return out
