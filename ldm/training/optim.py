"""The optimiser and its schedule, counted in images seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from ldm.training.muon import Muon


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW, or Muon for the matrices, with warm-up, decay and gradient clipping.

    Attributes:
        method: "adamw", or "muon": matrices and kernels by orthogonalised momentum, all else by
            AdamW. On the emoji autoencoder it needed a third of AdamW's time for the same loss.
        lr: peak learning rate.
        betas: decay rates of Adam's two moments.
        weight_decay: decoupled decay, applied to matrices and kernels only (two axes or more).
        warmup_images: linear warm-up, in images.
        decay: the shape of the way from the peak to `final` of it, reached at the end of training.
        final: the fraction of `lr` that is left at the end.
        clip_norm: global norm to which gradients are clipped; None leaves them alone.
    """

    method: Literal["adamw", "muon"] = "adamw"
    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    warmup_images: int = 5_000
    decay: Literal["constant", "cosine", "linear"] = "cosine"
    final: float = 0.02
    clip_norm: float | None = 1.0

    def lr_at(self, images: int, total: int) -> float:
        """Learning rate after `images` of `total` images."""
        warm = min(1.0, (images + 1) / max(self.warmup_images, 1))
        progress = min(max(images / max(total, 1), 0.0), 1.0)
        shape = {
            "constant": 1.0,
            "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
            "linear": 1 - progress,
        }[self.decay]
        return self.lr * warm * (self.final + (1 - self.final) * shape)

    def build(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        """Over two groups: decayed (matrices, kernels) and not (biases, gains, vectors)."""
        decayed = [p for p in parameters if p.ndim >= 2]
        plain = [p for p in parameters if p.ndim < 2]
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        filled = [group for group in groups if group["params"]]
        if self.method == "muon":
            groups[0]["orthogonal"] = True
            return Muon(filled, lr=self.lr, betas=self.betas)
        return torch.optim.AdamW(filled, lr=self.lr, betas=self.betas, fused=True)


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float | None) -> float:
    """Clip to the global norm `limit`; returns the norm before clipping (inf or nan included)."""
    bound = math.inf if limit is None else limit
    return float(torch.nn.utils.clip_grad_norm_(parameters, bound, foreach=True))
