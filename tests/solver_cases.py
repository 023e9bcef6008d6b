"""The solvers that the diffusion tests go through, by name."""

from __future__ import annotations

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
    LogSnrGrid,
    Noise,
    PredictorCorrector,
    ReverseDiffusion,
    SigmaFrame,
    SignalFrame,
    Solver,
    UniformGrid,
    UniPC,
)

ORDERS: dict[str, tuple[Solver, Any, float]] = {
    "ddim": (Ddim(), LogSnrGrid(), 1),
    "euler": (Euler(), UniformGrid(), 1),
    "euler-sigma": (Euler(frame=SigmaFrame()), LogSnrGrid(), 1),
    "heun": (Heun(), UniformGrid(), 2),
    "heun-sigma": (Heun(frame=SigmaFrame()), LogSnrGrid(), 2),
    "heun-signal": (Heun(frame=SignalFrame()), LogSnrGrid(), 2),
    "2m": (DpmSolverPP2M(), LogSnrGrid(), 2),
    "2s": (DpmSolverPP2S(), LogSnrGrid(), 2),
    "unipc1": (UniPC(order=1), LogSnrGrid(), 2),
    "unipc2": (UniPC(order=2), LogSnrGrid(), 3),
    "unipc3": (UniPC(order=3), LogSnrGrid(), 3),
}
LATE = ("2m", "unipc2", "unipc3")  # whose first steps of lower order take longer to fade
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
