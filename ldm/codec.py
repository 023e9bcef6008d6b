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
from ldm.errors import ConfigError, DataError
from ldm.principal import principal


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
    """CLIP image embeddings [b e] along their principal directions, partly whitened.

    The variance of CLIP's embeddings lies in few directions: of the shipped CLIP's 192, twelve hold
    94 %, and the others still tell a turban from a hat. Scaled entry by entry, the weak directions
    drown in the noise at all times but the last, and a prior learns nothing of them.

    `measure` takes mean, directions and their variances once; they travel in the stage's weights.
    The deviation s of a direction becomes s^(1 - whitening), times what makes the mean variance 1:
    0 only rotates, 1 makes all directions equal. A decoded embedding has unit norm, as every CLIP
    embedding has.
    """

    mean: Tensor
    directions: Tensor
    scale: Tensor

    def __init__(self, width: int, whitening: float = 0.5) -> None:
        super().__init__()
        if not 0 <= whitening <= 1:
            raise ConfigError(f"whitening = {whitening}: give 0 (none) to 1 (full)")
        self.whitening = whitening
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("directions", torch.eye(width))
        self.register_buffer("scale", torch.full((width,), width**-0.5))

    def measure(self, embeddings: Iterable[Tensor]) -> None:
        """Take mean, directions [e e] (columns, strongest first) and scale from [b e] each."""
        every = torch.cat([e.double().cpu() for e in embeddings])
        if len(every) < 2:
            raise DataError(f"got {len(every)} embeddings; at least 2 are needed for a spread")
        variance, directions = principal(every)
        # Directions that these samples do not span have no variance of their own: a floor.
        variance = variance.clamp_min(max(1e-6 * float(variance[0]), 1e-12))
        scale = variance.sqrt() ** self.whitening
        self.mean.copy_(every.mean(0))
        self.directions.copy_(directions)
        self.scale.copy_(scale * (variance / scale.square()).mean().sqrt())

    def encode(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The batch's image embeddings, direction by direction."""
        centred = _part(batch, "image_embedding").float() - self.mean
        return centred @ self.directions / self.scale

    def decode(self, x0: Tensor) -> Tensor:
        """Unit-norm embeddings [b e]."""
        embedding = (x0 * self.scale) @ self.directions.T + self.mean
        return torch.nn.functional.normalize(embedding, dim=-1)


def _part(batch: Batch, name: str) -> Tensor:
    value: Tensor | None = getattr(batch, name)
    if value is None:
        raise DataError(
            f"the batch has no {name}; ask for it in the shard configuration, or encode the shards "
            f"first with scripts/encode_shards.py"
        )
    return value
