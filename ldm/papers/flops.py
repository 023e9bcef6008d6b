"""Parameters and multiply-adds of a network, counted without memory for either."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from ldm.conditioning import Cond
from ldm.stage import Buildable


def parameters(config: Buildable) -> int:
    """Learned numbers of the network."""
    with torch.device("meta"):
        return sum(p.numel() for p in config.build().parameters())


def multiply_adds(config: Buildable, shape: tuple[int, ...]) -> int:
    """Of one forward pass over one item [...]; papers' "Gflops" are often these, in units of 1e9.

    Matrix products, convolutions and attention are counted, what is done entry by entry is not.
    """
    with torch.device("meta"):
        network, x, time = config.build(), torch.empty(1, *shape), torch.empty(1)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(x, time, Cond())
    return int(counter.get_total_flops()) // 2
