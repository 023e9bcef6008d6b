"""How an autoencoder is trained: what any loop of alternating players needs to know.

A batch is anything with `image`, uint8 [b 3 H W]. Shapes: b batch, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from autoencoder.config import AutoencoderConfig
from autoencoder.discriminator import (
    DiscriminatorConfig,
    PatchDiscriminator,
    adaptive_weight,
    hinge_discriminator,
    hinge_generator,
)
from autoencoder.latents import measure_latents
from autoencoder.linear import fit_linear
from autoencoder.losses import ReconstructionLoss, ReconstructionLossConfig
from autoencoder.perceptual import EfficientNetLite0Features, Perceptual
from autoencoder.pixels import from_uint8, to_uint8
from autoencoder.posterior import DiagonalGaussian
from autoencoder.vae import AutoencoderKL

Terms = dict[str, Tensor]
MODEL = "autoencoder."


class Pictures(Protocol):
    """A batch with pictures, uint8 [b 3 H W] or None."""

    @property
    def image(self) -> Tensor | None: ...


class Stream(Protocol):
    """Data that can be gone through once."""

    def epoch(self) -> Iterator[Pictures]: ...


class Player(NamedTuple):
    """Parameters and the loss that moves them, from `start` images on."""

    name: str
    parameters: Sequence[nn.Parameter]
    loss: Callable[[Pictures, torch.Generator], Terms]
    start: int = 0


@dataclass(frozen=True, kw_only=True)
class AutoencoderTraining:
    """An autoencoder by reconstruction, with an adversary if one is configured.

    Attributes:
        autoencoder: sizes.
        loss: weights of the terms of reconstruction.
        discriminator: sizes, weight and start of the adversary; None for none.
        measure: pictures over which mean and spread of the latents are measured at the end.
        fit: pictures to which a linear path is fitted at the start.
        pooled_spread: store one spread for all latent channels: they keep their proportions.
        decoder_only: leave the encoder as it is, so that latents already encoded stay valid.
        latent_noise: standard deviation of noise on the latent that the decoder learns to forgive,
            as it will have to forgive the errors of a diffusion model.
    """

    autoencoder: AutoencoderConfig
    loss: ReconstructionLossConfig
    discriminator: DiscriminatorConfig | None = None
    measure: int = 8192
    fit: int = 2048
    pooled_spread: bool = False
    decoder_only: bool = False
    latent_noise: float = 0.0

    def build(self, stream: Stream) -> AutoencoderTask:
        """A fresh task, drawn from torch's global generator; a linear path is fitted to data."""
        task = AutoencoderTask(self)
        if self.autoencoder.linear_path:
            fit_linear(task.model, first_pictures(stream.epoch(), self.fit))
        return task


class Trained(nn.Module):
    """All that a checkpoint of the training holds.

    The number of images seen is a part of it: the adversary is listened to from a certain number
    on, in a resumed run as in a straight one.
    """

    images_seen: Tensor

    def __init__(self, config: AutoencoderTraining, perceptual: Perceptual | None) -> None:
        super().__init__()
        self.autoencoder = AutoencoderKL(config.autoencoder)
        self.reconstruction = ReconstructionLoss(config.loss, perceptual)
        channels = config.autoencoder.out_channels
        wanted = config.discriminator
        self.discriminator = PatchDiscriminator(wanted, channels) if wanted else None
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))


class AutoencoderTask:
    """Encode, draw, decode, compare; and, with an adversary, be judged.

    Args:
        config: sizes and weights.
        perceptual: the feature distance; by default EfficientNet-lite0 where the weight of the
            perceptual term is not 0.
    """

    def __init__(self, config: AutoencoderTraining, perceptual: Perceptual | None = None) -> None:
        if perceptual is None and config.loss.perceptual:
            perceptual = EfficientNetLite0Features()
        self.config = config
        self.trained = Trained(config, perceptual)

    @property
    def module(self) -> nn.Module:
        """What is saved, averaged and moved between devices."""
        return self.trained

    @property
    def model(self) -> AutoencoderKL:
        """The autoencoder itself."""
        return self.trained.autoencoder

    def players(self) -> Sequence[Player]:
        """The autoencoder and, if configured, the discriminator."""
        logvar = self.trained.reconstruction.logvar
        mine = [*self._learning(), *([] if logvar is None else [logvar])]
        players = [Player("autoencoder", mine, self.loss)]
        adversary, wanted = self.trained.discriminator, self.config.discriminator
        if adversary is not None and wanted is not None:
            theirs = list(adversary.parameters())
            players.append(Player("discriminator", theirs, self.discriminator_loss, wanted.start))
        return players

    def _learning(self) -> Iterator[nn.Parameter]:
        """The parameters that are moved: all, or those behind the latent."""
        for name, parameter in self.model.named_parameters():
            behind = name.startswith(("decoder.", "post_quant_conv.", "linear.up."))
            if behind or not self.config.decoder_only:
                yield parameter

    def loss(self, batch: Pictures, generator: torch.Generator) -> Terms:
        """Terms [b] of `ReconstructionLoss`, psnr in dB, and the adversary's once it plays."""
        x, y, posterior = self._reconstruct(batch, generator)
        terms = self.trained.reconstruction(x, y, posterior, generator)
        terms["psnr"] = 10 * torch.log10(4 / terms["mse"].clamp_min(1e-10))
        wanted = self.config.discriminator
        playing = wanted is not None and int(self.trained.images_seen) >= wanted.start
        if playing and torch.is_grad_enabled():
            terms |= self._be_judged(y, terms["loss"])
        if self.trained.training:
            self.trained.images_seen += len(x)
        return terms

    def discriminator_loss(self, batch: Pictures, generator: torch.Generator) -> Terms:
        """Hinge loss [b] of the adversary on pictures and their reconstructions."""
        assert self.trained.discriminator is not None
        with torch.no_grad():
            x, y, _ = self._reconstruct(batch, generator)
        real, fake = self.trained.discriminator(x), self.trained.discriminator(y)
        shown = {"real": real.detach().mean(), "fake": fake.detach().mean()}
        return {"loss": hinge_discriminator(real, fake), **shown}

    def samples(self, batch: Pictures, generator: torch.Generator) -> Tensor:
        """Up to eight originals, then as many reconstructions: uint8 [2b 3 H W]."""
        x = pixels_of(batch)[:8]
        both = torch.cat([x, self.model(x).float()])
        return to_uint8(both)

    def export(
        self,
        folder: Path,
        tensors: dict[str, Tensor],
        batches: Callable[[], Iterator[Pictures]],
    ) -> None:
        """Measure the latents of the averaged weights `tensors`, then write the model's folder."""
        own = {k.removeprefix(MODEL): v for k, v in tensors.items() if k.startswith(MODEL)}
        self.model.load_state_dict(own)
        self.model.eval()
        mean, std = measure_latents(self.model, first_pictures(batches(), self.config.measure))
        if self.config.pooled_spread:
            std = std.square().mean().sqrt().expand_as(std)
        self.model.set_statistics(mean, std)
        self.model.save_pretrained(folder)

    def _reconstruct(
        self, batch: Pictures, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, DiagonalGaussian]:
        """The picture, its reconstruction from a drawn latent, and the posterior."""
        x = pixels_of(batch)
        posterior = self.model.encode(x)
        z = posterior.sample(generator)
        if self.config.latent_noise:
            noise = torch.randn(z.shape, generator=generator, device=generator.device)
            z = z + self.config.latent_noise * noise.to(z.device)
        return x, self.model.decode(z), posterior

    def _be_judged(self, y: Tensor, loss: Tensor) -> Terms:
        """Loss with the adversarial term, the term itself and its adaptive weight."""
        assert self.trained.discriminator is not None and self.config.discriminator is not None
        judged = hinge_generator(self.trained.discriminator(y))
        last = cast(Tensor, self.model.decoder.conv_out.weight)
        weight = adaptive_weight(loss.mean(), judged.mean(), last)
        total = loss + self.config.discriminator.weight * weight * judged
        return {"loss": total, "adversarial": judged.detach(), "adversarial_weight": weight}


def first_pictures(batches: Iterator[Pictures], count: int) -> Iterator[Tensor]:
    """Batches [b 3 H W] in [-1, 1] until `count` pictures were given."""
    seen = 0
    for batch in batches:
        x = pixels_of(batch)
        yield x
        seen += len(x)
        if seen >= count:
            return


def pixels_of(batch: Pictures) -> Tensor:
    """uint8 [b 3 H W] -> float [b 3 H W] in [-1, 1]."""
    if batch.image is None:
        raise ValueError("the batch has no pictures: ask for 'image' where the data is configured")
    return from_uint8(batch.image)
