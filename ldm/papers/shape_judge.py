"""An independent judge of drawn shapes: the nearest of all pictures of their small world.

n pictures; s side
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from autoencoder.pixels import from_uint8
from ldm.data.shapes import world


@dataclass(frozen=True)
class Judged:
    """What is on pictures.

    attributes: colour, shape, place `[n 3]`; details: shift, grey `[n 2]`;
    distance: root mean square difference to the nearest picture of the world `[n]`.
    """

    attributes: Tensor
    details: Tensor
    distance: Tensor

    def right(self, wanted: Tensor) -> Tensor:
        """Which of colour, shape and place are as wanted `[n 3]`: bool `[n 3]`."""
        return self.attributes == wanted

    def accuracy(self, wanted: Tensor) -> float:
        """The share of pictures with all three attributes `[n 3]` as wanted."""
        return float(self.right(wanted).all(1).float().mean())


def judge(x: Tensor) -> Judged:
    """Pictures [n 3 s s] in [-1, 1], by their nearest neighbour: no network has a part in it."""
    known = world()
    every = from_uint8(known.image).flatten(1).double()
    apart = torch.cdist(x.clamp(-1, 1).flatten(1).double().cpu(), every)
    nearest = apart.argmin(1)
    rms = apart.gather(1, nearest[:, None]).squeeze(1) / every.shape[1] ** 0.5
    return Judged(known.attributes[nearest], known.details[nearest], rms)
