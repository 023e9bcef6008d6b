"""The codec of likelihoods: pictures of few levels, made continuous by uniform noise.

Theis et al. 2016 (arXiv 1511.01844) section 3.1: the density of dequantised data, integrated over a
bin, bounds the probability of its level. b batch; c channels; h w grid
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from autoencoder.pixels import from_uint8
from ldm.codec import Latents
from ldm.data.batch import Batch
from ldm.errors import DataError


@dataclass(frozen=True, kw_only=True)
class DequantisedCodec:
    """Diffuse pictures whose pixels have this many even levels (256; scikit-learn's digits 17)."""

    levels: int = 256

    def build(self, latents: Latents | None) -> Dequantised:
        return Dequantised(self.levels)


class Dequantised:
    """Level k of n becomes a point of [2k/n - 1, 2(k + 1)/n - 1]."""

    def __init__(self, levels: int) -> None:
        self.levels = levels

    @property
    def bin_width(self) -> float:
        """For `bits_per_dim`."""
        return 2 / self.levels

    def encode(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """Pictures [b c h w] in [-1, 1]: anywhere in their bins with a generator, else amid them.

        A pixel that is none of the levels goes to the nearest.
        """
        if batch.image is None:
            raise DataError("the batch has no image to dequantise")
        level = ((from_uint8(batch.image) + 1) / 2 * (self.levels - 1)).round()
        shape, place = level.shape, torch.full_like(level, 0.5)
        if generator is not None:
            place = torch.rand(shape, generator=generator, device=generator.device).to(level.device)
        return (level + place) * self.bin_width - 1

    def decode(self, x0: Tensor) -> Tensor:
        """The level of each bin, in [-1, 1]: [b c h w] -> [b c h w]."""
        level = ((x0 + 1) / self.bin_width).floor().clamp(0, self.levels - 1)
        return level / (self.levels - 1) * 2 - 1

    def measure(self, batches: Iterable[Batch]) -> None:
        """Nothing: the bins are known."""

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """(3, h, w) of an RGB image."""
        return (3, height, width)
