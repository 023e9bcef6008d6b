"""How a vector-quantised autoencoder is trained.

A batch is anything with `image`, uint8 [b 3 H W]. Shapes: b batch, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from autoencoder.latents import measure_latents
from autoencoder.losses import ReconstructionLoss, ReconstructionLossConfig
from autoencoder.perceptual import EfficientNetLite0Features, Perceptual
from autoencoder.pixels import to_uint8
from autoencoder.task import Pictures, Player, Stream, Terms, first_pictures, pixels_of
from autoencoder.vq import VQConfig


@dataclass(frozen=True, kw_only=True)
class VQTraining:
    """A vector-quantised autoencoder by reconstruction.

    Attributes:
        autoencoder: sizes and codebook.
        loss: weights of the terms of reconstruction; the one of KL has no meaning here.
        commitment: beta of van den Oord et al. 2017 (arXiv 1711.00937), equation 3.
        measure: pictures over which mean and spread of the latents are measured at the end.
    """

    autoencoder: VQConfig
    loss: ReconstructionLossConfig
    commitment: float = 0.25
    measure: int = 8192

    def build(self, stream: Stream) -> VQTask:
        """A fresh task, drawn from torch's global generator."""
        return VQTask(self)


class VQTask:
    """Encode, replace by codes, decode, compare.

    Args:
        config: sizes and weights.
        perceptual: the feature distance; by default EfficientNet-lite0 where the weight of the
            perceptual term is not 0.
    """

    def __init__(self, config: VQTraining, perceptual: Perceptual | None = None) -> None:
        if perceptual is None and config.loss.perceptual:
            perceptual = EfficientNetLite0Features()
        self.config = config
        self.model = config.autoencoder.build()
        self.reconstruction = ReconstructionLoss(config.loss, perceptual)

    @property
    def module(self) -> nn.Module:
        """What is saved, averaged and moved between devices."""
        return self.model

    def players(self) -> Sequence[Player]:
        """The autoencoder."""
        return [Player("autoencoder", list(self.model.parameters()), self.loss)]

    def loss(self, batch: Pictures, generator: torch.Generator) -> Terms:
        """rec + |sg z - e|^2 + beta |z - sg e|^2 (equation 3), its parts, and psnr in dB."""
        x = pixels_of(batch)
        y, found = self.model(x, generator if self.model.training else None)
        terms = self.reconstruction.compare(x, y, generator)
        loss = terms.pop("rec") + found.codebook + self.config.commitment * found.commitment
        psnr = 10 * torch.log10(4 / terms["mse"].detach().clamp_min(1e-10))
        shown = {**terms, "commitment": found.commitment, "psnr": psnr}
        return {"loss": loss, **{k: v.detach() for k, v in shown.items()}}

    def samples(self, batch: Pictures, generator: torch.Generator) -> Tensor:
        """Up to eight originals, then as many reconstructions: uint8 [2b 3 H W]."""
        x = pixels_of(batch)[:8]
        return to_uint8(torch.cat([x, self.model(x)[0].float()]))

    def export(
        self,
        folder: Path,
        tensors: dict[str, Tensor],
        batches: Callable[[], Iterator[Pictures]],
    ) -> None:
        """Measure the latents of the averaged weights `tensors`, then write the model's folder."""
        self.model.load_state_dict(tensors)
        self.model.eval()
        pictures = first_pictures(batches(), self.config.measure)
        self.model.set_statistics(*measure_latents(self.model, pictures))
        self.model.save_pretrained(folder)
