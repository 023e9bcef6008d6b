"""The shapes noised by a process, exactly: their world is finite, so every posterior is a sum.

b batch; n pictures of the world; s side
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from autoencoder.pixels import from_uint8
from ldm.data.shapes import is_held_out, world
from ldm.diffusion.guidance import LogProb
from ldm.diffusion.process import Process


@dataclass(frozen=True)
class ExactShapes:
    """All pictures of the trained combinations, equally likely, under `process`.

    mistaken: the share of pictures that carry a caption drawn from all of them.
    """

    process: Process
    mistaken: float = 0.0

    def pictures(self) -> tuple[Tensor, Tensor]:
        """The pictures [n 3 s s] in [-1, 1] and their combinations [n]."""
        found = world()
        rows = ~is_held_out(found.attributes)
        return from_uint8(found.image[rows]), found.label[rows]

    def shares(self, x: Tensor, t: Tensor) -> Tensor:
        """log p(x_i | x_t) for each picture: x [b 3 s s], t [b] -> [b n]."""
        alpha, sigma = self.process.at(t, x)
        pictures = self.pictures()[0].to(x).flatten(1)
        flat = (x / alpha).flatten(1)
        # |x / alpha - x_i|^2 without its first part, which is the same for each i
        near = flat @ pictures.T - pictures.square().sum(1) / 2
        return ((alpha / sigma).square().flatten(1) * near).log_softmax(1)

    def log_prob(self, label: Tensor) -> LogProb:
        """log p(caption of combination label | x_t) for labels [b]: (x_t [b ...], t [b]) -> [b]."""
        shown = self.pictures()[1]
        told = (label[:, None] == shown).double()  # [b n]
        told = (1 - self.mistaken) * told + self.mistaken * told.mean(1, keepdim=True)

        def of(x: Tensor, t: Tensor) -> Tensor:
            return (self.shares(x, t) + told.log().to(x)).logsumexp(1)

        return of
