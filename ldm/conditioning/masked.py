"""A picture with holes as conditioning: for inpainting.

Nichol et al. 2021 (arXiv 2112.10741) section 2.2.2: regions of training pictures are erased, and
what is left is joined to the network's input beside a channel that says where it is.

b batch; s side in pixels
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.conditioning.cond import Cond
from ldm.conditioning.sources import Conditioner
from ldm.data.batch import Batch
from ldm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class MaskedConfig:
    """side: of the pictures; least: the smallest side of an erased rectangle, as a share of it."""

    side: int
    least: float = 0.25

    def __post_init__(self) -> None:
        if self.side < 1 or not 0 <= self.least <= 1:
            raise ConfigError(
                f"side {self.side} must be 1 or more and least {self.least} between 0 and 1"
            )

    def build(self) -> Masked:
        return Masked(self)


class Masked(Conditioner):
    """`batch.image` -> concat `[b 4 s s]`: its known pixels in [-1, 1], 0 elsewhere, and the mask.

    In training a rectangle of each RGB picture is erased. Otherwise a fourth channel says what is
    known (255) and what is not (0); a picture of three is known as a whole, none is not at all.
    """

    nothing: Tensor

    def __init__(self, config: MaskedConfig) -> None:
        super().__init__()
        self.config = config
        side = config.side
        self.register_buffer("nothing", torch.zeros(4, side, side), persistent=False)

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Cond:
        if batch.image is None:
            return Cond(concat=self.nothing.expand(len(batch), *self.nothing.shape))
        known = self._known(batch.image, generator)
        picture = batch.image[:, :3].float() / 127.5 - 1
        return Cond(concat=torch.cat([picture * known, known], dim=1))

    def _known(self, image: Tensor, generator: torch.Generator | None) -> Tensor:
        """1 where the picture is known, else 0: `[b 1 s s]`."""
        if generator is not None:
            return 1 - rectangles(len(image), self.config, generator).to(image.device)
        if image.shape[1] == 4:
            return (image[:, 3:] > 127).float()
        return torch.ones_like(image[:, :1], dtype=torch.float32)


def rectangles(b: int, config: MaskedConfig, generator: torch.Generator) -> Tensor:
    """1 inside a random rectangle, else 0: `[b 1 s s]`; sides from `least` to all of it."""
    draws = torch.rand(2, 2, b, 1, generator=generator, device=generator.device)
    length = config.side * (config.least + (1 - config.least) * draws[0])  # [2 b 1]
    start = (config.side - length) * draws[1]
    middles = torch.arange(config.side, device=generator.device) + 0.5
    rows, columns = ((middles >= start) & (middles <= start + length)).float()
    return (rows[:, :, None] * columns[:, None, :])[:, None]
