"""Latents as a diffusion model wants them: zero mean and unit standard deviation in every channel.

Latent diffusion (arXiv 2112.10752), appendix D.1, divides by one number, measured on one batch; a
mean and a spread for each channel cost nothing more. Shapes: b batch, c latent channels, h w grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from autoencoder.config import AutoencoderConfig
from autoencoder.posterior import DiagonalGaussian


class LatentModel(Protocol):
    """What is asked of an autoencoder here: `AutoencoderKL` and `AutoencoderVQ` have it."""

    @property
    def config(self) -> AutoencoderConfig: ...

    def encode(self, x: Tensor) -> DiagonalGaussian: ...

    def decode(self, z: Tensor) -> Tensor: ...

    def fingerprint(self) -> str: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


Model = TypeVar("Model", bound=LatentModel)


class Latents(Generic[Model]):
    """Pictures to normalised latents and back; the scale of the autoencoder never leaves this.

    The statistics are those of the model's configuration: `latents_mean` and `latents_std` where
    they were measured, else `shift_factor` and `scaling_factor` of published weights.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """[b 3 H W] in [-1, 1] -> [b c h w]; drawn with a generator, the mean without."""
        return self._normalise(_draw(self.model.encode(images), generator))

    def from_moments(self, moments: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Stored moments [b 2c h w] -> [b c h w]; drawn with a generator, the mean without."""
        channels = 2 * self.model.config.latent_channels
        if moments.ndim != 4 or moments.shape[1] != channels:
            raise ValueError(
                f"moments must be [b {channels} h w] for this autoencoder, got "
                f"{tuple(moments.shape)}: encode the pictures with this autoencoder"
            )
        return self._normalise(_draw(DiagonalGaussian(moments), generator))

    def decode(self, z: Tensor) -> Tensor:
        """[b c h w] normalised -> [b 3 H W], about [-1, 1]."""
        mean, std = self.statistics(z)
        return self.model.decode(z * std + mean)

    def _normalise(self, z: Tensor) -> Tensor:
        mean, std = self.statistics(z)
        return (z - mean) / std

    def statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, [c 1 1] or [1 1 1] each."""
        config = self.model.config
        mean = config.latents_mean or (config.shift_factor or 0.0,)
        std = config.latents_std or (1 / config.scaling_factor,)
        return like.new_tensor(mean)[:, None, None], like.new_tensor(std)[:, None, None]


@torch.no_grad()
def measure_latents(model: LatentModel, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each latent channel, [c] and [c], float64.

    Those of a latent drawn from the posterior: the variance is that of the means plus the mean of
    the variances, so nothing needs to be drawn. One pass, sums in float64.

    Args:
        model: the autoencoder; its own statistics play no part.
        batches: pictures [b 3 H W] in [-1, 1].
    """
    device = next(model.parameters()).device
    channels = model.config.latent_channels
    count = 0
    first, second = (torch.zeros(channels, dtype=torch.float64) for _ in range(2))
    for images in batches:
        posterior = model.encode(images.to(device))
        mean = posterior.mean.double()
        count += mean.shape[0] * mean.shape[2] * mean.shape[3]
        first += mean.sum(dim=(0, 2, 3)).cpu()
        second += (mean.square() + posterior.logvar.double().exp()).sum(dim=(0, 2, 3)).cpu()
    if count == 0:
        raise ValueError("no pictures to measure the latents on: give at least one batch")
    mean = first / count
    return mean, (second / count - mean.square()).sqrt()


def _draw(posterior: DiagonalGaussian, generator: torch.Generator | None) -> Tensor:
    return posterior.mode() if generator is None else posterior.sample(generator)
