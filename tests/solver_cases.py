"""The solvers that the diffusion tests go through, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldm.diffusion import (
    AdaptiveRk45,
    Ancestral,
    Ddim,
    DpmSolverPP2M,
    DpmSolverPP2S,
    Euler,
    EulerMaruyama,
    FixedLarge,
    Heun,
    LadderStep,
    Langevin,
    Noise,
    PredictorCorrector,
    Process,
    ReverseDiffusion,
    SigmaFrame,
    SignalFrame,
    Solver,
    UniformGrid,
    UniPC,
)
from ldm.diffusion.grids import Grid


@dataclass(frozen=True, kw_only=True)
class Started(Solver):
    """UniPC whose first three points are exact: its order p + 1 is that of a started method."""

    solver: UniPC

    def step(
        self, denoise: Any, process: Process, x: Tensor, t: Tensor, s: Tensor,
        carry: Any, noise: Noise,
    ) -> tuple[Tensor, Any]:
        count, past = carry or (0, None)
        moved, past = self.solver.step(denoise, process, x, t, s, past, noise)
        if count < 3:
            exact = AdaptiveRk45(rtol=1e-12, atol=1e-12)
            moved, past = exact.step(denoise, process, x, t, s, None, noise)[0], past._replace(x=x)
        return moved, (count + 1, past)


@dataclass(frozen=True, kw_only=True)
class Middle(Grid):
    """Even in log-SNR where data and noise are alike: there high orders show at few steps."""

    def __call__(self, process: Process, n: int) -> Tensor:
        return process.t_of_logsnr(torch.linspace(-1.5, 1.5, n, dtype=torch.float64))


# solver, the grid in which its order shows, and the order
ORDERS: dict[str, tuple[Solver, Grid, int]] = {
    "ddim": (Ddim(), Middle(), 1),
    "euler": (Euler(), UniformGrid(), 1),
    "euler-sigma": (Euler(frame=SigmaFrame()), Middle(), 1),
    "heun": (Heun(), UniformGrid(), 2),
    "heun-sigma": (Heun(frame=SigmaFrame()), Middle(), 2),
    "heun-signal": (Heun(frame=SignalFrame()), Middle(), 2),
    "2m": (DpmSolverPP2M(), Middle(), 2),
    "2s": (DpmSolverPP2S(), Middle(), 2),
    "unipc1": (UniPC(order=1), Middle(), 2),
    "unipc2": (UniPC(order=2), Middle(), 3),
    "unipc3": (Started(solver=UniPC(order=3)), Middle(), 4),
}
STOCHASTIC: dict[str, Solver] = {
    "ddim1": Ddim(eta=1.0),
    "small": Ancestral(),
    "large": Ancestral(variance=FixedLarge()),
    "2m-sde": DpmSolverPP2M(eta=1.0),
    "2s-sde": DpmSolverPP2S(eta=1.0),
    "maruyama": EulerMaruyama(),
    "reverse": ReverseDiffusion(),
    "corrector": PredictorCorrector(corrector=Langevin(step_size=LadderStep(epsilon=1e-5))),
    "churn": Heun(frame=SigmaFrame(), churn=0.1),
}
EVERY: dict[str, Solver] = {
    **{name: case[0] for name, case in ORDERS.items()},
    "unipc3": UniPC(order=3),
    **STOCHASTIC,
    "rk45": AdaptiveRk45(rtol=1e-7, atol=1e-7),
}


class SharedNoise(Noise):
    """One generator for all items: faster where thousands are wanted."""

    def __init__(self, draws: torch.Generator, b: int) -> None:
        super().__init__([0])
        self.draws, self.b = draws, b

    def normal(self, shape: Any, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(self.b, *shape, generator=self.draws, dtype=dtype)
