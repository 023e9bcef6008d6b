"""The outlines of a picture as conditioning: translation from edges to pictures.

b batch; c channels; s side; r side of a square of pixels that becomes channels
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.conditioning.cond import Cond
from ldm.conditioning.sources import Conditioner, check_rate, draw_drop, null_parameter, or_null
from ldm.data.batch import Batch
from ldm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class EdgesConfig:
    """channels, side: of the pictures; shrink: r, which brings the outlines to the grid of a model
    of latents without loss; drop: rate of dropout.
    """

    channels: int
    side: int
    shrink: int = 1
    drop: float = 0.0

    def __post_init__(self) -> None:
        check_rate("drop", self.drop)
        if self.side % self.shrink:
            raise ConfigError(f"side {self.side} is not a multiple of shrink {self.shrink}")

    def build(self) -> Edges:
        return Edges(self)


class Edges(Conditioner):
    """`batch.image` -> concat `[b r^2 s/r s/r]`: outlines in [-1, 1], squares of r x r as channels.

    The picture itself is a part of the batch in training and in sampling; only its outlines pass.
    """

    def __init__(self, config: EdgesConfig) -> None:
        super().__init__()
        self.config = config
        self.null_outline = null_parameter(1, 1, 1)

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Cond:
        side, shrink = self.config.side, self.config.shrink
        null = F.pixel_unshuffle(self.null_outline.expand(1, side, side), shrink)
        grid = None
        if batch.image is not None:
            drawn = outlines(batch.image.to(null.dtype) / 255)
            grid = F.pixel_unshuffle(2 * drawn - 1, shrink)
        drop = draw_drop(grid, self.config.drop, generator)
        return Cond(concat=or_null(grid, null, drop, len(batch)))


def outlines(x: Tensor) -> Tensor:
    """How much pictures [b c s s] in [0, 1] change at each pixel: [b 1 s s] in [0, 1].

    The larger of the central differences along rows and along columns, over all colours: bright on
    dark and dark on bright look alike.
    """
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    along_w = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]).abs()
    along_h = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]).abs()
    return torch.maximum(along_w, along_h).amax(dim=1, keepdim=True)
