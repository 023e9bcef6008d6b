"""A network that is told what an encoder says of the clean picture.

Diffusion-based representation learning (Abstreiter, Mittal et al. 2021, arXiv 2105.14257): a score
network s(x_t, t, z) with z = E(x0), or z = E(x0, t) for a code that changes with the time. The
encoder is a part of the network, since here the time is known.

Legend: b batch, c channels, h w rows and columns, d width of the code z, e what the encoder says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ldm.networks.blocks import Conditions
from ldm.networks.encoder import EncoderConfig
from ldm.networks.flat import FlatConfig, FlatEncoderConfig
from ldm.networks.unet import UNetConfig


@dataclass(frozen=True, kw_only=True)
class RepresentedConfig:
    """network: takes z as cond.vector; encoder: `timed` for E(x0, t), else E(x0).

    An encoder that says twice the vector's width says mean and log-variance of a Gaussian code.
    """

    network: UNetConfig | FlatConfig
    encoder: EncoderConfig | FlatEncoderConfig

    def __post_init__(self) -> None:
        said, width = self.encoder.out_dim, self.network.vector_dim
        if width is None or said not in (width, 2 * width):
            raise ValueError(
                f"the encoder says {said} numbers and the network takes a vector of {width}; they "
                "are equal, or the first is twice the second for a Gaussian code"
            )

    def build(self) -> Represented:
        """The network, with fresh weights."""
        return Represented(self)


class Told(NamedTuple):
    """What the inner network is told."""

    vector: Tensor | None
    tokens: Tensor | None
    mask: Tensor | None
    concat: Tensor | None


class Represented(nn.Module):
    """forward: x `[b c h w]`, time `[b]`, cond -> `[b c+e h w]`.

    cond.concat `[b c h w]` is the clean picture; cond.vector `[b d]` standard normal noise for a
    Gaussian code, zeros for its mean; a deterministic code takes none. The last e channels of the
    answer are what the encoder said, alike at each pixel, for an objective that weighs it.
    """

    def __init__(self, config: RepresentedConfig) -> None:
        super().__init__()
        self.config = config
        self.network = config.network.build()
        self.encoder = config.encoder.build()

    def forward(self, x: Tensor, time: Tensor, cond: Conditions) -> Tensor:
        if cond.concat is None:
            raise ValueError("this network reads the clean picture as cond.concat; there is none")
        said = self.said(cond.concat, time)
        told = Told(vector=drawn(said, cond.vector), tokens=None, mask=None, concat=None)
        y: Tensor = self.network(x, time, told)
        return torch.cat([y, said[:, :, None, None].expand(-1, -1, *y.shape[2:])], dim=1)

    def said(self, picture: Tensor, time: Tensor) -> Tensor:
        """Pictures `[b c h w]` at time `[b]` (heard by E(x0, t) alone) -> `[b e]`."""
        out: Tensor = self.encoder(picture, time if self.config.encoder.timed else None)
        return out

    def code(self, picture: Tensor, time: Tensor) -> Tensor:
        """z `[b d]`, the mean of a Gaussian one: the representation."""
        assert self.config.network.vector_dim is not None
        return self.said(picture, time)[:, : self.config.network.vector_dim]


def drawn(said: Tensor, noise: Tensor | None) -> Tensor:
    """z `[b d]`: what was said, or mean + std * noise where there is noise `[b d]`."""
    if noise is None:
        return said
    mean, logvar = said.chunk(2, dim=1)
    return mean + (0.5 * logvar).exp() * noise
