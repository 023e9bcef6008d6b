"""The clean picture itself as conditioning, for a network that holds an encoder of it.

b batch; c channels; s side; d width of a Gaussian code
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ldm.conditioning.cond import Cond
from ldm.conditioning.sources import Conditioner, null_parameter, or_null
from ldm.data.batch import Batch


@dataclass(frozen=True, kw_only=True)
class CleanPictureConfig:
    """channels, side: of the pictures; noise: width of a Gaussian code (None: it is not drawn)."""

    channels: int
    side: int
    noise: int | None = None

    def build(self) -> CleanPicture:
        return CleanPicture(self)


class CleanPicture(Conditioner):
    """`batch.image` -> concat `[b c s s]` in [-1, 1]; with a generator, the noise of the code too.

    Without a generator the noise is zero: the code is then the mean of its Gaussian.
    """

    def __init__(self, config: CleanPictureConfig) -> None:
        super().__init__()
        self.config = config
        self.null_colour = null_parameter(config.channels, 1, 1)

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Cond:
        side, b = self.config.side, len(batch)
        null = self.null_colour.expand(-1, side, side)
        grid = None if batch.image is None else batch.image.to(null.dtype) / 127.5 - 1
        vector = None
        if self.config.noise is not None:
            vector = null.new_zeros(b, self.config.noise)
            if generator is not None:
                drawn = torch.randn(vector.shape, generator=generator, device=generator.device)
                vector = drawn.to(null.device)
        return Cond(vector=vector, concat=or_null(grid, null, None, b))
