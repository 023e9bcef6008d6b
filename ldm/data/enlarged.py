"""Digits made larger, grey or in colours that say nothing of the digit.

Enlarged by interpolation, neighbouring pixels say almost the same, as in photographs: that is what
an autoencoder can take away. n samples; s side in pixels
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.data.arrays import ArrayStream, rows_of
from ldm.data.batch import Batch
from ldm.data.digits import Digits
from ldm.errors import DataError


@dataclass(frozen=True, kw_only=True)
class LargeDigits:
    """scikit-learn's digits, enlarged to `side` pixels, 8 or more. part: as in `Digits`."""

    side: int = 16
    part: Literal["train", "test", "all"] = "train"
    batch_size: int = 64
    seed: int = 0

    def whole(self) -> Batch:
        """image `[n 1 s s]` uint8 and label `[n]`."""
        grey = Digits(part=self.part).whole()
        assert grey.image is not None
        return grey.replace(image=to_bytes(enlarged(grey.image, self.side)))

    def open(self) -> ArrayStream:
        return ArrayStream(self.whole(), batch_size=self.batch_size, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class ColouredDigits:
    """scikit-learn's digits of `side` pixels, 8 or more, each in a random colour on black.

    copies: colours in which each digit comes. part: as in `Digits`. seed: of colours and order.
    """

    side: int = 8
    copies: int = 1
    part: Literal["train", "test", "all"] = "train"
    batch_size: int = 64
    seed: int = 0

    def whole(self) -> Batch:
        """image `[n 3 s s]` uint8, label `[n]`, and the colour as point `[n 3]` in [0, 1]."""
        grey = Digits(part=self.part).whole()
        rows = torch.arange(len(grey)).repeat(self.copies)
        chosen = rows_of(grey, rows)
        assert chosen.image is not None
        generator = torch.Generator().manual_seed(self.seed)
        colour = hues(torch.rand(len(rows), generator=generator))
        image = to_bytes(enlarged(chosen.image, self.side) * colour[:, :, None, None])
        keys = tuple(f"{i:06d}" for i in range(len(rows)))
        return Batch(key=keys, image=image, label=chosen.label, point=colour)

    def open(self) -> ArrayStream:
        return ArrayStream(self.whole(), batch_size=self.batch_size, seed=self.seed)


def hues(angle: Tensor) -> Tensor:
    """Colours of full saturation and value: [n], a turn from 0 to 1 -> red, green, blue [n 3]."""
    offset = torch.tensor([0.0, 2 / 3, 1 / 3])
    distance = ((angle[:, None] + offset) % 1.0 * 6 - 3).abs()
    return (distance - 1).clamp(0, 1)


def enlarged(image: Tensor, side: int) -> Tensor:
    """Grey pictures uint8 [n 1 8 8] -> float [n 1 s s] in [0, 1]."""
    if side < image.shape[-1]:
        raise DataError(f"side {side}: these digits have {image.shape[-1]} pixels or more")
    scaled = image.float() / 255
    return F.interpolate(scaled, (side, side), mode="bilinear", align_corners=False)


def to_bytes(x: Tensor) -> Tensor:
    """[0, 1] -> uint8."""
    return (255 * x).round().to(torch.uint8)
