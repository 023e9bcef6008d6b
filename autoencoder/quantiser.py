"""A codebook: vectors to the nearest of k learned ones.

van den Oord et al. 2017 (arXiv 1711.00937), section 3. Shapes: b batch, c channels, h w grid,
k codes, n = b h w vectors.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Quantised(NamedTuple):
    """What a codebook makes of z [b c h w].

    z: the nearest codes [b c h w]; its gradient passes to the input as if nothing had happened.
    chosen: the numbers of these codes, int64 [b h w].
    codebook: mean (sg[z_e] - e)^2, moves the codes; [b].
    commitment: mean (z_e - sg[e])^2, holds the encoder to its codes; [b].
    """

    z: Tensor
    chosen: Tensor
    codebook: Tensor
    commitment: Tensor


class Quantiser(nn.Module):
    """k codes of c numbers; those that nobody asks for are placed anew.

    Args:
        codes, channels: k and c.
        patience: training batches that a code may go unused before it is put on a vector of the
            batch, drawn at random; None never does. All codes start as if their patience were
            over, so the first batch places them.
    """

    idle: Tensor

    def __init__(self, codes: int, channels: int, patience: int | None) -> None:
        super().__init__()
        self.patience = patience
        self.codes = nn.Parameter((2 * torch.rand(codes, channels) - 1) / codes)
        self.register_buffer("idle", torch.full((codes,), patience or 0, dtype=torch.int64))

    def forward(self, z: Tensor, generator: torch.Generator | None = None) -> Quantised:
        """z [b c h w]; with a generator, unused codes are placed anew (training)."""
        vectors = z.movedim(1, -1).flatten(0, -2)  # [n c]
        if generator is not None and self.patience is not None:
            self._place_idle(vectors.detach(), self.patience, generator)
        index = self.nearest(z)
        found = self.look_up(index)
        if generator is not None:
            self._note(index)
        return Quantised(
            z=z + (found - z).detach(),  # straight through: d z_q / d z_e = 1
            chosen=index,
            codebook=(found - z.detach()).square().mean(dim=(1, 2, 3)),
            commitment=(z - found.detach()).square().mean(dim=(1, 2, 3)),
        )

    def nearest(self, z: Tensor) -> Tensor:
        """[b c h w] -> numbers of the nearest codes [b h w] (equation 1)."""
        vectors = z.detach().movedim(1, -1).flatten(0, -2).float()
        chosen = torch.cdist(vectors, self.codes.detach().float()).argmin(dim=1)
        return chosen.view(z.shape[0], *z.shape[2:])

    def look_up(self, index: Tensor) -> Tensor:
        """[b h w] -> codes [b c h w]."""
        return self.codes[index].movedim(-1, 1)

    @torch.no_grad()
    def _note(self, index: Tensor) -> None:
        self.idle += 1
        self.idle[index.unique()] = 0

    @torch.no_grad()
    def _place_idle(self, vectors: Tensor, patience: int, generator: torch.Generator) -> None:
        idle = (self.idle >= patience).nonzero()[:, 0]
        drawn = torch.randint(
            len(vectors), (len(idle),), generator=generator, device=generator.device
        )
        self.codes[idle] = vectors[drawn.to(vectors.device)].to(self.codes.dtype)
        self.idle[idle] = 0


def usage(index: Tensor, codes: int) -> tuple[float, float]:
    """Share of the codes that occur in index [...], and exp of the entropy of their frequencies.

    The second, the perplexity, is the number of codes that would do if all were equally frequent.
    """
    share = torch.bincount(index.flatten(), minlength=codes).double() / index.numel()
    entropy = -torch.special.xlogy(share, share).sum()
    return float((share > 0).double().mean()), float(entropy.exp())
