"""The U-Net with its residual sums divided by sqrt(2): a part of ADM's ablation.

Song et al. 2020 (arXiv 2011.13456) appendix H.2 rescale so; Dhariwal & Nichol 2021 (arXiv
2105.05233) table 1 measure it and leave it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ldm.networks.blocks import ResBlock
from ldm.networks.unet import UNet, UNetConfig


@dataclass(frozen=True, kw_only=True)
class RescaledConfig:
    """A U-Net whose residual blocks give (skip + branch)/sqrt(2)."""

    base: UNetConfig

    def build(self) -> UNet:
        """The network, with fresh weights."""
        network = self.base.build()
        for module in network.modules():
            if isinstance(module, ResBlock):
                module.register_forward_hook(halved_variance)
        return network


def halved_variance(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """y/sqrt(2): two summands of unit variance give unit variance again."""
    return output / 2**0.5
