"""Ways between two draws of noise.

Shapes: b batch, ... data; fraction: [b] or a number.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ldm.diffusion.process import per_item


def lerp(a: Tensor, b: Tensor, fraction: Tensor | float) -> Tensor:
    """The straight way: a, b [b ...] -> [b ...]. Between two draws of noise it is too quiet."""
    f = _fraction(a, fraction)
    return per_item(1 - f, a) * a + per_item(f, a) * b


def slerp(a: Tensor, b: Tensor, fraction: Tensor | float) -> Tensor:
    """The way on a sphere, at even angular speed: a, b [b ...] -> [b ...].

    Shoemake 1985; Song et al. 2020 (arXiv 2010.02502) eq. 67. Between noise and noise it stays as
    loud as noise is. Items whose a and b have one direction, or opposite ones, go straight.
    """
    f = _fraction(a, fraction)
    x, y = (v.flatten(1).double() for v in (a, b))
    across = (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))
    angle = across.clamp(-1, 1).acos()
    straight = angle.sin() < 1e-6
    safe = torch.where(straight, 1.0, angle)
    first = torch.where(straight, 1 - f, ((1 - f) * safe).sin() / safe.sin())
    second = torch.where(straight, f, (f * safe).sin() / safe.sin())
    return per_item(first, a) * a + per_item(second, a) * b


def _fraction(a: Tensor, fraction: Tensor | float) -> Tensor:
    """[b] float64."""
    return torch.as_tensor(fraction, dtype=torch.float64, device=a.device).expand(len(a))
