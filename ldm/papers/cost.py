"""What a step of training costs: operations counted, time measured.

b batch
"""

from __future__ import annotations

import time

import torch
from torch import nn

from ldm.data.batch import Batch
from ldm.papers.findings import Measured
from ldm.stage import Stage


def step(stage: Stage, batch: Batch, generator: torch.Generator) -> None:
    """Loss and gradients of one batch."""
    loss = stage.loss(batch, generator)["loss"].mean()
    torch.autograd.grad(loss, learning(stage), allow_unused=True)


def learning(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained."""
    return [p for p in module.parameters() if p.requires_grad]


def operations(stage: Stage, batch: Batch) -> float:
    """Floating-point operations of a step for one item of the batch, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step(stage, batch, torch.Generator().manual_seed(0))
    return float(counter.get_total_flops()) / len(batch)


def milliseconds(stage: Stage, batch: Batch, repeats: int) -> Measured:
    """Processor time of a step for one item of the batch, after one step to warm up."""
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(repeats + 1):
        start = time.process_time()
        step(stage, batch, generator)
        found.append(1000 * (time.process_time() - start) / len(batch))
    return Measured.over(found[1:])
