"""Codecs: what a stage diffuses, made from a batch and turned back.

    encode(batch, generator) -> x0, about zero mean and unit standard deviation
    decode(x0)               -> data

The scale of the data never leaves its codec. b batch; c channels; h w grid; e embedding width
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from autoencoder import Latents as LatentSpace
from autoencoder.pixels import from_uint8
from ldm.data.batch import Batch
from ldm.errors import DataError


class Codec(Protocol):
    """Data to what is diffused, and back."""

    def encode(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor: ...

    def decode(self, x0: Tensor) -> Tensor: ...


class Pixels:
    """Pictures as they are: uint8 [b c h w] to [-1, 1] and back (clamped to that range)."""

    def encode(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The batch's pictures, float [b c h w] in [-1, 1]."""
        return from_uint8(_part(batch, "image"))

    def decode(self, x0: Tensor) -> Tensor:
        """[b c h w] in [-1, 1]."""
        return x0.clamp(-1, 1)


class Points:
    """Points of a toy distribution [b d] as they are; they come standardised or need no scale."""

    def encode(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The batch's points, float [b d]."""
        return _part(batch, "point").float()

    def decode(self, x0: Tensor) -> Tensor:
        """[b d], unchanged."""
        return x0


class Latents:
    """The normalised latents of an autoencoder: stored moments where the batch has them.

    The autoencoder is frozen and not a part of the stage: its weights are kept elsewhere and its
    fingerprint beside the stage's.
    """

    def __init__(self, space: LatentSpace) -> None:
        self.space = space

    def encode(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """Latents [b c h w], drawn from the posterior with a generator, its mean without."""
        if batch.latent is not None:
            return self.space.from_moments(batch.latent.float(), generator)
        with torch.no_grad():
            return self.space.encode(Pixels().encode(batch), generator)

    def decode(self, x0: Tensor) -> Tensor:
        """Pictures [b 3 h w] in [-1, 1]."""
        return self.space.decode(x0).clamp(-1, 1)


class Embeddings(nn.Module):
    """CLIP image embeddings [b e], each entry shifted and scaled to zero mean and unit variance.

    The two vectors are measured once (`measure`) and travel in the stage's weights. A decoded
    embedding has unit norm, as every CLIP embedding has.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.full((width,), width**-0.5))

    def measure(self, embeddings: Iterable[Tensor]) -> None:
        """Take mean and standard deviation from embeddings [b e]."""
        every = torch.cat([e.double().cpu() for e in embeddings])
        if len(every) < 2:
            raise DataError(f"got {len(every)} embeddings; at least 2 are needed for a spread")
        self.mean.copy_(every.mean(0))
        self.std.copy_(every.std(0).clamp_min(1e-6))

    def encode(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The batch's image embeddings, normalised entry by entry."""
        return (_part(batch, "image_embedding").float() - self.mean) / self.std

    def decode(self, x0: Tensor) -> Tensor:
        """Unit-norm embeddings [b e]."""
        return torch.nn.functional.normalize(x0 * self.std + self.mean, dim=-1)


def _part(batch: Batch, name: str) -> Tensor:
    value: Tensor | None = getattr(batch, name)
    if value is None:
        raise DataError(
            f"the batch has no {name}; ask for it in the shard configuration, or encode the shards "
            f"first with scripts/encode_shards.py"
        )
    return value
