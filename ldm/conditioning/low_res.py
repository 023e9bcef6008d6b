"""A low-resolution picture as conditioning: for an upsampler.

The picture is enlarged to the target's size and joined to the network's input (Nichol & Dhariwal
2021, arXiv 2102.09672, section 5). In training it is degraded a little, so that the upsampler
forgives the faults of what it will be given (Ho et al. 2021, arXiv 2106.15282, section 3; unCLIP,
arXiv 2204.06125, section 2.1, blurs).

b batch; c channels; l side of the small picture; s side of the large one
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.conditioning.cond import Cond
from ldm.conditioning.sources import Conditioner, check_rate, draw_drop, null_parameter, or_null
from ldm.data.batch import Batch
from ldm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class LowResConfig:
    """small, large: sides in pixels; channels: 3, or 1 for grey pictures.

    In training, each sample draws its own strength up to these:
    max_blur: deviation in small pixels of a 3 x 3 Gaussian (unCLIP: 0.6);
    max_noise: deviation of Gaussian noise, for pixels in [-1, 1]. drop: rate of dropout.
    """

    small: int
    large: int
    max_blur: float = 0.6
    max_noise: float = 0.1
    drop: float = 0.0
    channels: int = 3

    def __post_init__(self) -> None:
        check_rate("drop", self.drop)
        if not 1 <= self.small < self.large:
            raise ConfigError(f"small {self.small} must be positive and below large {self.large}")
        if self.channels < 1:
            raise ConfigError(f"channels is {self.channels}; a picture has 1 or more")
        if self.max_blur < 0 or self.max_noise < 0:
            raise ConfigError(
                f"max_blur {self.max_blur} and max_noise {self.max_noise} must not be negative"
            )

    def build(self) -> LowRes:
        return LowRes(self)


class LowRes(Conditioner):
    """`batch.image` of side large (reduced here) or small -> concat `[b c s s]`, about [-1, 1]."""

    def __init__(self, config: LowResConfig) -> None:
        super().__init__()
        self.config = config
        self.null_colour = null_parameter(config.channels, 1, 1)

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Cond:
        large = self.config.large
        null = self.null_colour.expand(-1, large, large)
        grid = None
        if batch.image is not None:
            small = self._small(batch.image)
            if generator is not None:
                small = self._degraded(small, generator)
            grid = F.interpolate(small, (large, large), mode="bilinear", align_corners=False)
        drop = draw_drop(grid, self.config.drop, generator)
        return Cond(concat=or_null(grid, null, drop, len(batch)))

    def _small(self, image: Tensor) -> Tensor:
        """Pixels in [-1, 1], `[b c l l]`."""
        small, large = self.config.small, self.config.large
        if image.shape[-2:] not in ((small, small), (large, large)):
            raise ValueError(
                f"pictures are {list(image.shape[-2:])}; this upsampler takes {small} x {small}, "
                f"or {large} x {large} to be reduced"
            )
        x = image.to(self.null_colour.dtype) / 127.5 - 1
        if x.shape[-1] == small:
            return x
        return F.interpolate(x, (small, small), mode="bilinear", antialias=True)

    def _degraded(self, x: Tensor, generator: torch.Generator) -> Tensor:
        device = generator.device
        strength = torch.rand(2, len(x), 1, 1, 1, generator=generator, device=device).to(x.device)
        noise = torch.randn(x.shape, generator=generator, device=device).to(x.device)
        x = blurred(x, self.config.max_blur * strength[0])
        return x + self.config.max_noise * strength[1] * noise


def blurred(x: Tensor, sigma: Tensor) -> Tensor:
    """A 3 x 3 Gaussian of deviation sigma `[b 1 1 1]` pixels over `[b c h w]`; borders repeat."""
    side = torch.exp(-0.5 / sigma.clamp(min=1e-6) ** 2)
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    rows = padded[..., 1:-1, :] + side * (padded[..., :-2, :] + padded[..., 2:, :])
    both = rows[..., 1:-1] + side * (rows[..., :-2] + rows[..., 2:])
    return both / (1 + 2 * side) ** 2
