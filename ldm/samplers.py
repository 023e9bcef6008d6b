"""Samplers: a solver, a grid, a number of steps and a guidance scale, as one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from ldm import config
from ldm.diffusion.denoiser import Denoise, Denoiser
from ldm.diffusion.grids import Grid, LogSnrGrid
from ldm.diffusion.guidance import Joinable, cfg
from ldm.diffusion.process import Process
from ldm.diffusion.solvers import (
    Ancestral,
    Ddim,
    DpmSolverPP2M,
    Euler,
    Heun,
    Solver,
)
from ldm.diffusion.variance import FixedLarge
from ldm.errors import RequestError, suggest

SOLVERS: dict[str, Callable[[], Solver]] = {
    "ddpm": Ancestral,
    "ddpm_large": lambda: Ancestral(variance=FixedLarge()),
    "ddim": Ddim,
    "euler": Euler,
    "euler_ancestral": lambda: Ddim(eta=1.0),
    "heun": Heun,
    "dpmpp_2m": DpmSolverPP2M,
    "dpmpp_2m_sde": lambda: DpmSolverPP2M(eta=1.0),
}
"""Solvers by the names that users of such software know; with their default settings."""


def solver_named(name: str) -> Solver:
    """A solver by name.

    Raises:
        RequestError: no such name; the message lists all of them.
    """
    if name not in SOLVERS:
        raise RequestError(
            f"no solver {name!r}.{suggest(name, SOLVERS)} There are: {', '.join(SOLVERS)}"
        )
    return SOLVERS[name]()


class Sampling(Protocol):
    """What drawing from a stage asks of a sampler: `Sampler`, or one guided in another way."""

    @property
    def solver(self) -> Solver: ...

    def times(self, process: Process) -> Tensor: ...

    def guide(self, denoiser: Denoiser, cond: Joinable, null: Joinable) -> Denoise: ...


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How to draw from a stage.

    Attributes:
        solver: one step.
        grid: where the steps lie in time; the DPM-Solver family wants one even in log-SNR.
        steps: points of the grid; each costs one evaluation of the network (Heun: two), twice
            that under guidance.
        guidance: scale of classifier-free guidance; 1 is the plain conditional model.
        interval: sigma/alpha between which guidance acts; None is everywhere.
        rescale: how far guidance's growth of contrast is taken back, 0 to 1.
    """

    solver: Solver = DpmSolverPP2M()
    grid: Grid = LogSnrGrid()
    steps: int = 25
    guidance: float = 1.0
    interval: tuple[float, float] | None = None
    rescale: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 10_000:
            raise RequestError(f"{self.steps} steps: ask for 1 to 10,000")
        if not 0 <= self.guidance <= 100:
            raise RequestError(f"guidance {self.guidance}: give a scale from 0 to 100")

    def times(self, process: Process) -> Tensor:
        """The grid, [steps] float64, from noise to data."""
        return self.grid(process, self.steps)

    def guide(self, denoiser: Denoiser, cond: Joinable, null: Joinable) -> Denoise:
        """The denoiser under this sampler's guidance."""
        if self.guidance == 1.0:
            return denoiser.bind(cond)
        return cfg(
            denoiser, cond, null, self.guidance, interval=self.interval, rescale=self.rescale
        )

    def describe(self) -> dict[str, Any]:
        """For records: what `config.to_dict` says."""
        described: dict[str, Any] = config.to_dict(self)
        return described


@dataclass(frozen=True, kw_only=True)
class Samplers:
    """The samplers of a text-to-image model."""

    prior: Sampler
    decoder: Sampler
