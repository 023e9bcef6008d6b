"""Random numbers as arguments: one seed per item when sampling, one generator when training.

Shapes: b items, ... data dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Noise:
    """Row i of every draw comes from seed i alone, so an item does not depend on its batch.

    The generators live on the CPU: the same seeds give the same numbers on every device.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        if len(seeds) == 0:
            raise ValueError("no seeds were given; one whole number per item is needed.")
        self.device = torch.device(device)
        self._generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]

    def __len__(self) -> int:
        return len(self._generators)

    def normal(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal, `shape` of one item [...] -> [b ...]."""
        rows = [torch.randn(*shape, generator=g, dtype=dtype) for g in self._generators]
        return torch.stack(rows).to(self.device)

    def rademacher(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """-1 or 1 with equal chance, `shape` of one item [...] -> [b ...]."""
        rows = [torch.randint(0, 2, tuple(shape), generator=g) for g in self._generators]
        return (2 * torch.stack(rows) - 1).to(self.device, dtype)


def normal_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal of the shape, dtype and device of x [b ...], drawn where `generator` is."""
    drawn = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=generator.device)
    return drawn.to(x.device)
