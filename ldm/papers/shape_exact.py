"""The shapes noised by a process, exactly: their world is finite, so every posterior is a sum.

b batch; n pictures; s side
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from autoencoder.pixels import from_uint8
from ldm.data.shapes import Shapes, world
from ldm.diffusion.denoiser import Denoise
from ldm.diffusion.guidance import LogProb
from ldm.diffusion.prediction import Denoised, given_x0
from ldm.diffusion.process import Process


@dataclass(frozen=True)
class ExactShapes:
    """The pictures of `data` and their captions, each as often as it comes, under `process`."""

    process: Process
    data: Shapes = field(default_factory=Shapes)

    def pictures(self) -> tuple[Tensor, Tensor]:
        """The pictures [n 3 s s] in [-1, 1] and their combinations [n]."""
        found, rows = world(), self.data.rows()
        return from_uint8(found.image[rows]), found.label[rows]

    def shares(self, x: Tensor, t: Tensor) -> Tensor:
        """log p(x_i | x_t) for each picture: x [b 3 s s], t [b] -> [b n]."""
        alpha, sigma = self.process.at(t, x)
        pictures = self.pictures()[0].to(x).flatten(1)
        flat = (x / alpha).flatten(1)
        # |x / alpha - x_i|^2 without its first part, which is the same for each i
        near = flat @ pictures.T - pictures.square().sum(1) / 2
        return ((alpha / sigma).square().flatten(1) * near).log_softmax(1)

    def told(self, label: Tensor) -> Tensor:
        """p(caption of combination label | x_i) for labels [b] and each picture: [b n]."""
        told, mistaken = (label[:, None] == self.pictures()[1]).double(), self.data.mistaken
        return (1 - mistaken) * told + mistaken * told.mean(1, keepdim=True)

    def log_prob(self, label: Tensor) -> LogProb:
        """log p(caption of combination label | x_t) for labels [b]: (x_t [b ...], t [b]) -> [b]."""
        told = self.told(label).log()
        return lambda x, t: (self.shares(x, t) + told.to(x)).logsumexp(1)

    def denoise(self, label: Tensor | None) -> Denoise:
        """The posterior means given x_t and the captions of labels [b], or given x_t alone."""
        pictures = self.pictures()[0]
        told = torch.zeros(1, 1) if label is None else self.told(label).log()

        def of(x: Tensor, t: Tensor) -> Denoised:
            shares = (self.shares(x, t) + told.to(x)).softmax(1)
            return given_x0(self.process, t, x, (shares @ pictures.to(x).flatten(1)).view_as(x))

        return of
