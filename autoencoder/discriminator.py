"""An adversary that judges patches, for sharper texture than any distance gives.

PatchGAN of pix2pix (arXiv 1611.07004) with the hinge loss (arXiv 1705.02894) and the adaptive
weight of VQGAN (arXiv 2012.09841, equation 7). Shapes: b batch, H W pixels, h w grid of patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 8
WEIGHT_LIMIT = 1e4
WEIGHT_EPS = 1e-4


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Sizes of the adversary and its part in the loss.

    Attributes:
        channels: width of the first layer, a multiple of 8; it doubles with each layer up to 8x.
        layers: halvings of the grid; with 3 a judgement sees 70 x 70 pixels.
        weight: of the adversarial term, on top of the adaptive weight.
        start: images seen before the adversary learns and is listened to.
    """

    channels: int = 64
    layers: int = 3
    weight: float = 0.5
    start: int = 0

    def __post_init__(self) -> None:
        if self.channels < GROUPS or self.channels % GROUPS:
            raise ValueError(f"channels = {self.channels} must be a positive multiple of {GROUPS}")
        if self.layers < 1:
            raise ValueError(f"layers = {self.layers} must be at least 1")
        if self.weight < 0 or self.start < 0:
            raise ValueError("weight and start of a discriminator must be 0 or more")


class PatchDiscriminator(nn.Module):
    """[b 3 H W] in [-1, 1] -> one judgement a patch, [b 1 h w]; above 0 means real.

    Normalised by groups and not by the batch, so that the judgement of a picture does not depend
    on the pictures beside it.
    """

    def __init__(self, config: DiscriminatorConfig, in_channels: int = 3) -> None:
        super().__init__()
        widths = [config.channels * min(2**i, 8) for i in range(config.layers + 1)]
        layers: list[nn.Module] = [nn.Conv2d(in_channels, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for i in range(1, config.layers + 1):
            stride = 2 if i < config.layers else 1
            layers += [
                nn.Conv2d(widths[i - 1], widths[i], 4, stride, 1, bias=False),
                nn.GroupNorm(GROUPS, widths[i]),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))
        self.apply(_small_normal)

    def forward(self, x: Tensor) -> Tensor:
        """[b 3 H W] -> [b 1 h w]."""
        return cast(Tensor, self.layers(x))


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """1/2 mean max(0, 1 - D(real)) + 1/2 mean max(0, 1 + D(fake)): [b 1 h w] twice -> [b]."""
    loss = 0.5 * (F.relu(1.0 - real.float()) + F.relu(1.0 + fake.float()))
    return loss.mean(dim=(1, 2, 3))


def hinge_generator(fake: Tensor) -> Tensor:
    """-mean D(fake): [b 1 h w] -> [b]."""
    return -fake.float().mean(dim=(1, 2, 3))


def adaptive_weight(rec: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """|d rec / d last| / (|d adversarial / d last| + 1e-4), at most 1e4 (VQGAN, equation 7).

    Both losses pull equally on the last layer whatever their scales; no gradient flows through.

    Args:
        rec, adversarial: scalars, with their graphs, which are kept.
        last: weight of the decoder's last convolution.
    """
    (of_rec,) = torch.autograd.grad(rec, last, retain_graph=True)
    (of_gan,) = torch.autograd.grad(adversarial, last, retain_graph=True)
    weight = of_rec.norm() / (of_gan.norm() + WEIGHT_EPS)
    return weight.clamp(0.0, WEIGHT_LIMIT).detach()


def _small_normal(module: nn.Module) -> None:
    """pix2pix, section 6.2: convolutions start from N(0, 0.02)."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
