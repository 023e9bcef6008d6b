"""A network that errs by a known factor, for tests of objectives."""

from __future__ import annotations

from typing import Any

import torch
from oracles import PAIR, OracleNet
from torch import Tensor, nn

from ldm.diffusion import (
    Prediction,
    Process,
)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Wrong(nn.Module):
    """An oracle that errs: it shrinks what it should say, so that losses are not zero."""

    def __init__(self, process: Process, prediction: Prediction, factor: float = 0.8) -> None:
        super().__init__()
        self.net = OracleNet(PAIR, process, prediction)
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))
        self.nu = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.two = False

    def forward(self, x: Tensor, time: Tensor, cond: Any) -> Tensor:
        y = self.factor * self.net(x, time, cond)
        return torch.cat([y, self.nu.expand_as(y)], dim=1) if self.two else y


def data(b: int = 64, seed: int = 3) -> Tensor:
    return PAIR.draw(b, draws(seed), torch.float64)
