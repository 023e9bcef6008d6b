"""Where things are, said as a grid: a first guess of x0 from the image embedding alone.

A U-Net knows position only by the padding of its convolutions, so that turning one vector into the
layout of a picture is what it learns last. Two linear layers do it at once, and the grid that they
make joins the network's input.

b batch; n samples; e width of the embedding; c h w channels and grid; f hidden width
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class LayoutConfig:
    """channels, height, width: of the grid, which is x0's; hidden: width of the layer between."""

    channels: int
    height: int
    width: int
    hidden: int = 1024

    def __post_init__(self) -> None:
        if min(self.channels, self.height, self.width, self.hidden) < 1:
            raise ConfigError(f"{self} has a size below 1")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one grid, (c, h, w)."""
        return self.channels, self.height, self.width


class Layout(nn.Module):
    """An embedding of unit variance `[b e]` -> a grid `[b c h w]`."""

    def __init__(self, config: LayoutConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.hidden = nn.Linear(embed_dim, config.hidden)
        self.out = nn.Linear(config.hidden, config.channels * config.height * config.width)

    def forward(self, embedding: Tensor) -> Tensor:
        c, h, w = self.config.shape
        flat = self.out(F.relu(self.hidden(embedding)))
        return rearrange(flat, "b (c h w) -> b c h w", c=c, h=h, w=w)

    @torch.no_grad()
    def fit(self, embedding: Tensor, x0: Tensor, ridge: float = 1e-3) -> None:
        """Set the last layer to the ridge regression of x0 `[n c h w]` on the hidden features of
        `embedding [n e]`; the first layer stays as it was drawn.

        ridge: added to the features' covariance, as a share of their mean variance.
        """
        features = F.relu(self.hidden(embedding)).double()
        target = x0.flatten(1).double()
        mean, centre = features.mean(0), target.mean(0)
        centred = features - mean
        covariance = centred.T @ centred / len(centred)
        covariance.diagonal().add_(ridge * covariance.diagonal().mean())
        weight = torch.linalg.solve(covariance, centred.T @ (target - centre) / len(centred)).T
        self.out.weight.copy_(weight)
        self.out.bias.copy_(centre - weight @ mean)
