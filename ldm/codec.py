"""Codecs: what a stage diffuses, made from a batch and turned back.

    encode(batch, generator) -> x0, about zero mean and unit standard deviation
    decode(x0)               -> data

The scale of the data never leaves its codec. b batch; c channels; h w grid; e embedding width
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from autoencoder import Latents as LatentSpace
from autoencoder.pixels import from_uint8
from autoencoder.posterior import DiagonalGaussian
from ldm.data.batch import Batch
from ldm.errors import DataError, RequestError
from ldm.pca import PrincipalSpace


class Draw(NamedTuple):
    """x0 [b ...] drawn from a posterior, the density of the draws, log_q [b] in nats, and the root
    mean square of the posterior's standard deviations, all in units of x0."""

    x0: Tensor
    log_q: Tensor
    spread: float


class Codec(Protocol):
    """Data to what is diffused, and back."""

    def encode(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor: ...

    def decode(self, x0: Tensor) -> Tensor: ...

    def measure(self, batches: Iterable[Batch]) -> None:
        """Take from batches what the codec wants to know before training; most want nothing, and
        read nothing."""

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """Of one item of x0 for images of this size in pixels."""
        ...


class Pixels:
    """Pictures as they are: uint8 [b c h w] to [-1, 1] and back (clamped to that range)."""

    def encode(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The batch's pictures, float [b c h w] in [-1, 1]."""
        return from_uint8(_part(batch, "image"))

    def decode(self, x0: Tensor) -> Tensor:
        """[b c h w] in [-1, 1]."""
        return x0.clamp(-1, 1)

    def measure(self, batches: Iterable[Batch]) -> None:
        """Nothing: pixels have a scale of their own."""

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """(3, h, w) of an RGB image."""
        return (3, height, width)


class Points:
    """Points of a toy distribution [b d] as they are; they come standardised or need no scale."""

    def encode(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The batch's points, float [b d]."""
        return _part(batch, "point").float()

    def decode(self, x0: Tensor) -> Tensor:
        """[b d], unchanged."""
        return x0

    def measure(self, batches: Iterable[Batch]) -> None:
        """Nothing."""

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """Points have no size in pixels."""
        raise RequestError("points are no images: give the shape of x0 itself")


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

    def draw(self, moments: Tensor, generator: torch.Generator) -> Draw:
        """Latents drawn from stored moments [b 2c h w], with their density."""
        mean, std = self.posterior(moments)
        x0 = self.space.from_moments(moments, generator)
        log_q = Normal(mean.double(), std.double()).log_prob(x0.double()).flatten(1).sum(1)
        return Draw(x0, log_q, std.square().mean().sqrt().item())

    def posterior(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the normalised latents, [b c h w] each."""
        scale = self.space.statistics(moments)[1]
        return self.space.from_moments(moments), DiagonalGaussian(moments).std / scale

    def decode(self, x0: Tensor) -> Tensor:
        """Pictures [b 3 h w] in [-1, 1]."""
        return self.space.decode(x0).clamp(-1, 1)

    def measure(self, batches: Iterable[Batch]) -> None:
        """Nothing: the statistics are the autoencoder's."""

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """(c, h, w) of the latents of an image of this size."""
        config = self.space.model.config
        return (config.latent_channels, height // config.factor, width // config.factor)


class PrincipalLatents(PrincipalSpace):
    """The latents of an autoencoder along the principal directions of the whole grid: [b k].

    The KL term leaves most of the c h w numbers of a latent unused, and a network that diffuses
    all of them learns mostly noise. What is encoded is the mean of the posterior: its variance
    fills just the directions that are left out. The autoencoder is frozen and not a part of the
    stage, as in `Latents`.

    Args:
        latents: the autoencoder's normalised latents.
        grid: (c, h, w) of one latent, the only one that this codec knows.
        kept: k.
        whitening: see `PrincipalSpace`.
    """

    def __init__(
        self, latents: Latents, grid: tuple[int, int, int], kept: int, whitening: float = 0.5
    ) -> None:
        super().__init__(math.prod(grid), kept, whitening)
        self.latents, self.grid = latents, grid

    def measure(self, batches: Iterable[Batch]) -> None:
        """Take the directions from the latents of these batches."""
        self.measure_vectors(self._flat(batch) for batch in batches)

    def encode(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """[b k]; nothing is drawn."""
        return self.project(self._flat(batch))

    def draw(self, moments: Tensor, generator: torch.Generator) -> Draw:
        """Drawn from stored moments [b 2c h w]; the projection of a Gaussian is one too."""
        mean, std = self.latents.posterior(moments)
        x0 = self.project(self.latents.space.from_moments(moments, generator).flatten(1))
        project = (self.directions / self.scale).double()  # [d k]
        log_q, trace = [], 0.0
        for centre, variance, drawn in zip(
            self.project(mean.flatten(1)), std.square().flatten(1).double(), x0, strict=True
        ):
            covariance = (project * variance[:, None]).T @ project
            posterior = MultivariateNormal(centre.double(), covariance)
            log_q.append(posterior.log_prob(drawn.double()))
            trace += covariance.diagonal().mean().item()
        return Draw(x0, torch.stack(log_q), (trace / len(x0)) ** 0.5)

    def decode(self, x0: Tensor) -> Tensor:
        """Images [b 3 h w] in [-1, 1]."""
        return self.latents.decode(self.restore(x0.float()).unflatten(1, self.grid))

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """(k,), for images of the one size that this codec knows."""
        known = self.latents.shape(height, width)
        if known != self.grid:
            f = self.latents.space.model.config.factor
            raise RequestError(
                f"this model draws {self.grid[1] * f} x {self.grid[2] * f} pixels only, not "
                f"{height} x {width}"
            )
        return (len(self.scale),)

    def _flat(self, batch: Batch) -> Tensor:
        latent = self.latents.encode(batch)
        if tuple(latent.shape[1:]) != self.grid:
            raise DataError(
                f"this codec was made for latents {list(self.grid)}, the batch brings "
                f"{list(latent.shape[1:])}: encode the images with the autoencoder of the recipe"
            )
        return latent.flatten(1)


class Embeddings(PrincipalSpace):
    """CLIP image embeddings [b e] along their principal directions, partly whitened.

    The variance of CLIP's embeddings lies in few directions: of a CLIP of 192 trained here, twelve
    hold 94 %, and the others still separate a turban from a hat. Scaled entry by entry, the weak
    directions drown in the noise at all times but the last, and a prior learns nothing of them.
    A decoded embedding has unit norm, as every CLIP embedding has.
    """

    def __init__(self, width: int, whitening: float = 0.5) -> None:
        super().__init__(width, None, whitening)

    def measure(self, batches: Iterable[Batch]) -> None:
        """Take the directions from the image embeddings of these batches."""
        self.measure_vectors(_part(batch, "image_embedding") for batch in batches)

    def encode(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The batch's image embeddings, direction by direction."""
        return self.project(_part(batch, "image_embedding"))

    def decode(self, x0: Tensor) -> Tensor:
        """Unit-norm embeddings [b e]."""
        return torch.nn.functional.normalize(self.restore(x0), dim=-1)

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """(e,), whatever the size of an image."""
        return (len(self.scale),)


def _part(batch: Batch, name: str) -> Tensor:
    value: Tensor | None = getattr(batch, name)
    if value is None:
        raise DataError(
            f"the batch has no {name}; ask for it in the shard configuration, or encode the shards "
            f"first with scripts/encode_shards.py"
        )
    return value
