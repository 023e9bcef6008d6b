"""A time embedding for ablations: the network is not told the time.

Shapes: b batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.diffusion.denoiser import TimeEmbed
from ldm.diffusion.process import Process


@dataclass(frozen=True, kw_only=True)
class Untimed(TimeEmbed):
    """One number for every time: what the network knows of t, it sees in x_t."""

    value: float = 0.0

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        return torch.full_like(t, self.value)
