"""The first stage of latent diffusion: an autoencoder that is there before the diffusion begins.

`StageTraining.autoencoder` names the folder of a model that shards were encoded with; here the
autoencoder, of either kind, is a part of the recipe, and data in memory are encoded by it.

b batch; c latent channels; h w latent grid
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autoencoder import AutoencoderConfig, AutoencoderVQ, Latents, VQConfig
from autoencoder.pixels import from_uint8
from autoencoder.vae import AutoencoderKL
from ldm import codec
from ldm.data.arrays import ArrayStream
from ldm.data.batch import Batch
from ldm.data.stream import InMemory


@dataclass(frozen=True, kw_only=True)
class FirstStage:
    """An autoencoder, frozen.

    Attributes:
        autoencoder: its kind and sizes.
        folder: its trained weights; None: as drawn, which shows that a recipe runs and no more.
        spread: standard deviation to which every latent channel is brought, about zero mean; None
            leaves the latents as the autoencoder makes them.
    """

    autoencoder: AutoencoderConfig | VQConfig
    folder: str | None = None
    spread: float | None = 1.0

    def load(self) -> AutoencoderKL | AutoencoderVQ:
        """The autoencoder; one that is not trained is drawn alike each time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.autoencoder.build()
        if self.folder is not None:
            model = model.from_pretrained(self.folder)
        mean, std = self.statistics(model.config)
        model.set_statistics(mean, std)
        return model.eval().requires_grad_(False)

    def statistics(self, config: AutoencoderConfig) -> tuple[Tensor, Tensor]:
        """What is subtracted from latents and what they are divided by, [c] each."""
        c = config.latent_channels
        if self.spread is None:
            return torch.zeros(c), torch.ones(c)
        mean, std = config.latents_mean or (0.0,) * c, config.latents_std or (1.0,) * c
        return torch.tensor(mean), torch.tensor(std) / self.spread

    def space(self) -> Latents[Any]:
        """Its latents, normalised as `spread` says."""
        return Latents(self.load())


@dataclass(frozen=True, kw_only=True)
class FirstStageCodec:
    """Diffuse the latents of a first stage that belongs to the recipe."""

    first: FirstStage

    def build(self, latents: codec.Latents | None) -> codec.Codec:
        return codec.Latents(self.first.space())


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Pictures of a data set in memory beside their latents, encoded once when it is opened.

    pictures: what is encoded; its own batch size and order are not used.
    """

    pictures: InMemory
    first: FirstStage
    batch_size: int = 64
    seed: int = 0

    def open(self) -> EncodedStream:
        whole = self.pictures.whole()
        model = self.first.load()
        assert whole.image is not None
        with torch.no_grad():
            parts = whole.image.split(256)
            moments = torch.cat([model.encode(from_uint8(part)).moments for part in parts])
        return EncodedStream(
            whole.replace(latent=moments),
            {"autoencoder": model.fingerprint()},
            batch_size=self.batch_size,
            seed=self.seed,
        )


class EncodedStream(ArrayStream):
    """An `ArrayStream` that knows what encoded it."""

    def __init__(
        self, whole: Batch, made_by: Mapping[str, str], *, batch_size: int, seed: int
    ) -> None:
        super().__init__(whole, batch_size=batch_size, seed=seed)
        self.made_by = made_by

    def encodings(self) -> list[Mapping[str, str]]:
        """The fingerprint of the first stage."""
        return [self.made_by]


def latents_of(first: FirstStage, image: Tensor) -> Tensor:
    """What the diffusion sees of pictures uint8 [b 3 H W]: [b c h w]."""
    with torch.no_grad():
        return first.space().encode(from_uint8(image))
