"""Exponential moving average of weights, its memory counted in images (EDM, arXiv 2206.00364)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """A moving average of a module's parameters; buffers are copied as they are.

    Args:
        module: the module that is trained.
        half_life: images after which a weight's share in the average has halved.
        ramp: early on the half-life is at most this fraction of the images seen, so that the
            random initial weights are forgotten.
    """

    def __init__(self, module: nn.Module, half_life: float, ramp: float = 0.05) -> None:
        self.module, self.half_life, self.ramp = module, half_life, ramp
        self.shadow = {k: v.detach().clone() for k, v in module.state_dict().items()}
        self.averaged = [k for k, _ in module.named_parameters(remove_duplicate=False)]

    @torch.no_grad()
    def update(self, batch: int, images: int) -> None:
        """Move towards the module's weights after a step on `batch` images, `images` in all."""
        half_life = min(self.half_life, max(images, 1) * self.ramp)
        keep = 0.5 ** (batch / max(half_life, 1e-8))
        state = self.module.state_dict()
        torch._foreach_lerp_(
            [self.shadow[k] for k in self.averaged], [state[k] for k in self.averaged], 1 - keep
        )
        for k in state.keys() - set(self.averaged):
            self.shadow[k].copy_(state[k])

    @contextmanager
    def applied(self) -> Iterator[nn.Module]:
        """The module with the averaged weights, for as long as the context lasts."""
        live = {k: v.detach().clone() for k, v in self.module.state_dict().items()}
        self.module.load_state_dict(self.shadow)
        try:
            yield self.module
        finally:
            self.module.load_state_dict(live)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged tensors, by the module's names."""
        return self.shadow

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over averaged tensors; names and shapes must be the module's."""
        for k, v in self.shadow.items():
            v.copy_(state[k])
