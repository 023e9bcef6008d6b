"""Pictures as bytes and as the numbers that networks see: the one place of that scale.

Shapes: b batch, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def from_uint8(image: Tensor) -> Tensor:
    """uint8 [b 3 H W] -> float32 in [-1, 1]."""
    return image.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """[b 3 H W] in [-1, 1] -> uint8, clamped to that range and rounded."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
