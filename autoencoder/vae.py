"""The KL-regularised convolutional autoencoder of latent diffusion (arXiv 2112.10752, section 3.1).

Shapes: b batch, H W pixels, c latent channels, h w latent grid (H = factor * h).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from os import PathLike
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoencoder import files
from autoencoder.blocks import Decoder, Encoder
from autoencoder.config import AutoencoderConfig
from autoencoder.linear import LinearPath
from autoencoder.posterior import DiagonalGaussian


class AutoencoderKL(nn.Module):
    """Pictures to a Gaussian over latents, and latents to pictures.

    With `patch_size` 1 this is diffusers' `AutoencoderKL`, tensor for tensor. With a larger
    `patch_size` squares of pixels become channels first (space to depth), which makes the fine
    levels, the dear ones, unnecessary for pictures of simple texture. With `linear_path` a linear
    autoencoder of squares of `factor` pixels is added to both halves.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        c, area = config.latent_channels, config.patch_size**2
        widths, layers = config.block_out_channels, config.layers_per_block
        groups, act, attend = config.norm_num_groups, config.act_fn, config.mid_block_add_attention
        self.encoder = Encoder(
            config.in_channels * area, 2 * c, widths, layers, groups, act, attention=attend
        )
        self.decoder = Decoder(
            c, config.out_channels * area, widths, layers, groups, act, attention=attend
        )
        self.quant_conv = nn.Conv2d(2 * c, 2 * c, 1) if config.use_quant_conv else None
        self.post_quant_conv = nn.Conv2d(c, c, 1) if config.use_post_quant_conv else None
        self.linear = LinearPath(config) if config.linear_path else None

    @property
    def factor(self) -> int:
        """Pixels a side for one latent position."""
        return self.config.factor

    def encode(self, x: Tensor) -> DiagonalGaussian:
        """[b 3 H W] in [-1, 1] -> posterior over latents [b c H/factor W/factor].

        Raises:
            ValueError: wrong number of channels, or H or W not a multiple of `factor`.
        """
        self._check_pixels(x)
        moments = self.encoder(F.pixel_unshuffle(x, self.config.patch_size))
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        if self.linear is not None:
            mean, logvar = moments.chunk(2, dim=1)  # [b c h w] each
            moments = torch.cat((mean + self.linear.encode(x), logvar), dim=1)
        return DiagonalGaussian(moments)

    def decode(self, z: Tensor) -> Tensor:
        """[b c h w] latents (not normalised) -> [b 3 H W], about [-1, 1], not clamped."""
        if z.ndim != 4 or z.shape[1] != self.config.latent_channels:
            raise ValueError(
                f"latents must be [b {self.config.latent_channels} h w], got {tuple(z.shape)}"
            )
        inner = z if self.post_quant_conv is None else self.post_quant_conv(z)
        y = F.pixel_shuffle(self.decoder(inner), self.config.patch_size)
        return y if self.linear is None else y + self.linear.decode(z)

    def forward(self, x: Tensor) -> Tensor:
        """[b 3 H W] -> reconstruction [b 3 H W] through the mode of the posterior."""
        return self.decode(self.encode(x).mode())

    def _check_pixels(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != self.config.in_channels:
            raise ValueError(
                f"pictures must be [b {self.config.in_channels} H W], got {tuple(x.shape)}"
            )
        height, width = x.shape[2:]
        if not height or not width or height % self.factor or width % self.factor:
            f = self.factor
            near = tuple(max(f, round(n / f) * f) for n in (height, width))
            raise ValueError(
                f"pictures of {height} x {width} pixels: height and width must be multiples of {f}"
                f" (patch size times halvings); resize or crop to {near[0]} x {near[1]}"
            )

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Store measured latent statistics [c], [c] in the configuration, so that they are saved.

        The scale of published weights is dropped: a latent is normalised once, by its statistics.
        """
        self.config = replace(
            self.config,
            latents_mean=tuple(mean.double().tolist()),
            latents_std=tuple(std.double().tolist()),
            scaling_factor=1.0,
            shift_factor=None,
        )

    def fingerprint(self) -> str:
        """16 hex digits of sha256 over configuration and weights, in the precision of the file.

        Weights count as float16, which is how they are stored, so that a model has one fingerprint
        before saving and after loading.
        """
        digest = hashlib.sha256(json.dumps(self.config.to_json(), sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            stored = tensor.detach().to("cpu", torch.float16).contiguous()
            digest.update(f"{name}{tuple(stored.shape)}".encode())
            digest.update(stored.view(torch.uint8).numpy().tobytes() if stored.numel() else b"")
        return digest.hexdigest()[:16]

    def save_pretrained(
        self, folder: str | PathLike[str], dtype: torch.dtype = torch.float16
    ) -> None:
        """Write `config.json` and `diffusion_pytorch_model.safetensors`, diffusers' folder."""
        files.save(Path(folder), self.config.to_json(), self.state_dict(), dtype)

    @classmethod
    def from_pretrained(
        cls, folder: str | PathLike[str], dtype: torch.dtype = torch.float32
    ) -> AutoencoderKL:
        """Read a folder of `save_pretrained` or of diffusers (patch size 1); strict.

        Raises:
            ValueError: a file is missing, cut or altered, a key of the configuration is unknown,
                or a tensor is missing, extra or of the wrong shape; the message names the file.
        """
        config = files.read_config(Path(folder), AutoencoderConfig.from_json)
        model = cls(config)
        files.load(model, Path(folder))
        return model.to(dtype).eval()
