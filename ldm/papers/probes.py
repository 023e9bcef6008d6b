"""The structure of a picture that probes are asked for; the probes are the evaluation's.

n samples
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def coarse_and_fine(x: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures [n c h w] as means of 2 x 2 blocks, and what is left: [n c h w / 4], [n c h w]."""
    coarse = F.avg_pool2d(x, 2)
    fine = x - coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return coarse.flatten(1), fine.flatten(1)
