"""The vector-quantised autoencoder: between encoder and decoder stands a codebook.

van den Oord et al. 2017 (arXiv 1711.00937); as the first stage of latent diffusion (Rombach et al.,
arXiv 2112.10752, section 3.1) the diffusion model sees the latents before the codebook, which then
belongs to the decoder. Shapes: b batch, H W pixels, c latent channels, h w latent grid, k codes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoencoder import files
from autoencoder.blocks import Decoder, Encoder
from autoencoder.config import AutoencoderConfig
from autoencoder.posterior import LOGVAR_MIN, DiagonalGaussian
from autoencoder.quantiser import Quantised, Quantiser

CLASS = "PatchVQModel"


@dataclass(frozen=True, kw_only=True)
class VQConfig:
    """What an `AutoencoderVQ` is built from.

    Attributes:
        sizes: of encoder and decoder, as for the KL autoencoder (without its linear path).
        codes: entries of the codebook.
        patience: training batches before an unused code is placed anew; None: never.
    """

    sizes: AutoencoderConfig
    codes: int = 256
    patience: int | None = 50

    def __post_init__(self) -> None:
        if self.codes < 2:
            raise ValueError(f"codes = {self.codes}: a codebook has at least 2")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience = {self.patience} must be 1 batch or more, or None")
        if self.sizes.linear_path:
            raise ValueError("a vector-quantised autoencoder has no linear path")

    def build(self) -> AutoencoderVQ:
        """The autoencoder with fresh weights."""
        return AutoencoderVQ(self)

    def to_json(self) -> dict[str, Any]:
        """The contents of config.json."""
        own = {"_class_name": CLASS, "codes": self.codes, "patience": self.patience}
        return {**own, "sizes": self.sizes.to_json()}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> VQConfig:
        """Inverse of `to_json`."""
        if raw.get("_class_name") != CLASS:
            raise ValueError(f"_class_name is {raw.get('_class_name')!r}, not {CLASS!r}")
        values = {k: v for k, v in raw.items() if not k.startswith("_")}
        return cls(**{**values, "sizes": AutoencoderConfig.from_json(values["sizes"])})


class AutoencoderVQ(nn.Module):
    """Pictures to vectors, to the nearest codes, to pictures."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        sizes = config.sizes
        c, area = sizes.latent_channels, sizes.patch_size**2
        widths, layers = sizes.block_out_channels, sizes.layers_per_block
        groups, act, attend = sizes.norm_num_groups, sizes.act_fn, sizes.mid_block_add_attention
        self.vq = config
        self.encoder = Encoder(
            sizes.in_channels * area, c, widths, layers, groups, act, attention=attend
        )
        self.quant_conv = nn.Conv2d(c, c, 1)
        self.quantiser = Quantiser(config.codes, c, config.patience)
        self.post_quant_conv = nn.Conv2d(c, c, 1)
        self.decoder = Decoder(
            c, sizes.out_channels * area, widths, layers, groups, act, attention=attend
        )

    @property
    def config(self) -> AutoencoderConfig:
        """The sizes and, once measured, the statistics of the latents."""
        return self.vq.sizes

    def vectors(self, x: Tensor) -> Tensor:
        """[b 3 H W] in [-1, 1] -> what the codebook is asked about, [b c H/factor W/factor]."""
        z: Tensor = self.quant_conv(self.encoder(F.pixel_unshuffle(x, self.config.patch_size)))
        return z

    def encode(self, x: Tensor) -> DiagonalGaussian:
        """`vectors` as a posterior without spread: what a diffusion model sees."""
        z = self.vectors(x)
        return DiagonalGaussian(torch.cat([z, torch.full_like(z, LOGVAR_MIN)], dim=1))

    def decode(self, z: Tensor) -> Tensor:
        """Vectors [b c h w], which need be no codes -> [b 3 H W], about [-1, 1]."""
        return self.from_codes(self.quantiser.look_up(self.quantiser.nearest(z)))

    def indices(self, x: Tensor) -> Tensor:
        """[b 3 H W] -> numbers of the codes [b h w]."""
        return self.quantiser.nearest(self.vectors(x))

    def from_indices(self, index: Tensor) -> Tensor:
        """Numbers of codes [b h w] -> [b 3 H W]."""
        return self.from_codes(self.quantiser.look_up(index))

    def from_codes(self, z: Tensor) -> Tensor:
        """Codes [b c h w] -> [b 3 H W]."""
        y: Tensor = self.decoder(self.post_quant_conv(z))
        return F.pixel_shuffle(y, self.config.patch_size)

    def forward(
        self, x: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Quantised]:
        """Reconstruction [b 3 H W] and what the codebook did; with a generator, as in training."""
        found = self.quantiser(self.vectors(x), generator)
        return self.from_codes(found.z), found

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Store measured latent statistics [c], [c]: they are saved with the sizes."""
        sizes = replace(
            self.config,
            latents_mean=tuple(mean.double().tolist()),
            latents_std=tuple(std.double().tolist()),
        )
        self.vq = replace(self.vq, sizes=sizes)

    def fingerprint(self) -> str:
        """16 hex digits of sha256 over configuration and weights as float32."""
        digest = hashlib.sha256(json.dumps(self.vq.to_json(), sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            stored = tensor.detach().to("cpu", torch.float32).contiguous()
            digest.update(f"{name}{tuple(stored.shape)}".encode() + stored.numpy().tobytes())
        return digest.hexdigest()[:16]

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write `config.json` and the weights, in float32: halves could change the nearest code."""
        files.save(Path(folder), self.vq.to_json(), self.state_dict(), torch.float32)

    @classmethod
    def from_pretrained(cls, folder: str | PathLike[str]) -> AutoencoderVQ:
        """Read a folder of `save_pretrained`; strict.

        Raises:
            ValueError: a file is missing, cut or altered; the message names it.
        """
        model = cls(files.read_config(Path(folder), VQConfig.from_json))
        files.load(model, Path(folder))
        return model.eval()
