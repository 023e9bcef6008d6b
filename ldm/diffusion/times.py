"""Distributions of the training time.

Called with (process, b, generator), each gives t [b] float64 in [t_min, t_max] and the importance
weight [b] that makes the mean of weight * loss an estimate of the mean over uniform t (it is one
where the distribution itself is the method's choice).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from ldm.diffusion.process import Process


class Times(ABC):
    """A distribution of t over the range of a process."""

    @abstractmethod
    def __call__(
        self, process: Process, b: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw t [b] and weight [b], float64, on the generator's device."""

    def update(self, process: Process, t: Tensor, loss: Tensor) -> None:  # noqa: B027
        """Hear the losses [b] found at t [b]; most distributions do not listen."""

    def build(self) -> Times:
        """What training draws from: itself, unless it has a memory to be made."""
        return self

    def memory(self) -> nn.Module | None:
        """What a checkpoint must hold of it; most distributions remember nothing."""
        return None


def _uniform(b: int, generator: torch.Generator) -> Tensor:
    return torch.rand(b, generator=generator, dtype=torch.float64, device=generator.device)


def _spread(process: Process, u: Tensor) -> Tensor:
    return process.t_min + (process.t_max - process.t_min) * u


@dataclass(frozen=True, kw_only=True)
class Uniform(Times):
    """Independent uniform times."""

    def __call__(
        self, process: Process, b: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        u = _uniform(b, generator)
        return _spread(process, u), torch.ones_like(u)


@dataclass(frozen=True, kw_only=True)
class Antithetic(Times):
    """One uniform draw, spread evenly over the batch: t_i = (u + i/b) mod 1.

    Kingma et al. 2021 (arXiv 2107.00630) appendix I.1.
    """

    def __call__(
        self, process: Process, b: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        u = _uniform(1, generator)
        offsets = torch.arange(b, dtype=torch.float64, device=u.device) / b
        u = (u + offsets) % 1.0
        return _spread(process, u), torch.ones_like(u)


@dataclass(frozen=True, kw_only=True)
class Discrete(Times):
    """Uniform over num_steps even times from t_min to t_max: the chain of DDPM, NCSN's levels."""

    num_steps: int = 1000

    def __call__(
        self, process: Process, b: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        index = (_uniform(b, generator) * self.num_steps).floor()
        t = _spread(process, index / max(self.num_steps - 1, 1))
        return t, torch.ones_like(t)


@dataclass(frozen=True, kw_only=True)
class LogitNormal(Times):
    """sigmoid(mean + std z), stretched over the range.

    Esser et al. 2024 (arXiv 2403.03206) eq. 19.
    """

    mean: float = 0.0
    std: float = 1.0

    def __call__(
        self, process: Process, b: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        z = torch.randn(b, generator=generator, dtype=torch.float64, device=generator.device)
        t = _spread(process, torch.sigmoid(self.mean + self.std * z))
        return t, torch.ones_like(t)


@dataclass(frozen=True, kw_only=True)
class LogNormalSigma(Times):
    """log(sigma/alpha) ~ N(mean, std^2). Karras et al. 2022 (arXiv 2206.00364) table 1."""

    mean: float = -1.2
    std: float = 1.2

    def __call__(
        self, process: Process, b: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        z = torch.randn(b, generator=generator, dtype=torch.float64, device=generator.device)
        t = process.t_of_logsnr(-2 * (self.mean + self.std * z))
        return t, torch.ones_like(t)


@dataclass(frozen=True, kw_only=True)
class LossSecondMoment(Times):
    """Steps of an even chain, drawn in proportion to the root mean square of their last losses.

    Nichol & Dhariwal 2021 (arXiv 2102.09672) eq. 18: `history` losses a step, uniform until every
    step has them, mixed with `uniform` of the uniform distribution, weight 1/(N p). This is the
    setting; `build` makes the `LossHistory` from which is drawn.
    """

    num_steps: int = 1000
    history: int = 10
    uniform: float = 0.001

    def __post_init__(self) -> None:
        if self.num_steps < 2 or self.history < 1 or not 0 < self.uniform <= 1:
            raise ValueError(
                f"{self}: num_steps is 2 or more, history 1 or more, uniform above 0 and up to 1."
            )

    def build(self) -> LossHistory:
        return LossHistory(self)

    def __call__(
        self, process: Process, b: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        raise ValueError(
            f"{self} is a setting without a memory. Draw from what its build() makes: "
            "`objective = objective.build()`, and keep `objective.memory()` with the model."
        )


class LossHistory(nn.Module, Times):
    """The memory of `LossSecondMoment`: a module, so that it is saved with the model and resumed.

    It hears losses while in training mode, and not in evaluation. Where torch.distributed runs,
    every process must take part in each training loss: their losses are gathered, so that all
    draw from one and the same history, as in 2102.09672's code. Losses that are not finite are
    passed over.
    """

    losses: Tensor  # [n history] float32, a ring for each step
    counts: Tensor  # [n], losses heard in all

    def __init__(self, config: LossSecondMoment) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("losses", torch.zeros(config.num_steps, config.history))
        self.register_buffer("counts", torch.zeros(config.num_steps, dtype=torch.long))

    def memory(self) -> nn.Module:
        return self

    def probabilities(self) -> Tensor:
        """p of each step, [n] float64."""
        losses = self.losses.double()
        even = torch.full_like(losses[:, 0], 1 / len(losses))
        if int(self.counts.min()) < self.config.history:
            return even
        root = losses.square().mean(1).sqrt()
        share = root / root.sum().clamp(min=torch.finfo(root.dtype).tiny)
        return (1 - self.config.uniform) * share + self.config.uniform * even

    def forward(
        self, process: Process, b: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        p = self.probabilities().to(generator.device)
        index = torch.multinomial(p, b, replacement=True, generator=generator)
        t = _spread(process, index.double() / (len(p) - 1))
        return t, 1 / (len(p) * p[index])

    def __call__(
        self, process: Process, b: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return self.forward(process, b, generator)

    @torch.no_grad()
    def update(self, process: Process, t: Tensor, loss: Tensor) -> None:
        if not self.training:
            return
        heard = gather_rows(torch.stack([t.double(), loss.double()], dim=1))
        t, loss = heard[heard.isfinite().all(1)].to(self.losses.device).unbind(1)
        place = (t - process.t_min) / (process.t_max - process.t_min)
        self._remember((place * (len(self.losses) - 1)).round().long(), loss.float())

    def _remember(self, index: Tensor, loss: Tensor) -> None:
        """Put each loss [b] into the ring of its step [b]; of too many at once the last stay."""
        same = index[:, None] == index
        before, after = same.tril(-1).sum(1), same.triu(1).sum(1)
        slot = (self.counts[index] + before) % self.config.history
        stays = after < self.config.history
        self.losses[index[stays], slot[stays]] = loss[stays]
        self.counts.index_add_(0, index, torch.ones_like(index))


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of every process, in the order of ranks: [b k] -> [sum of b, k]; alone, as given."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return rows
    counts = [torch.empty_like(rows[:1, 0]) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, rows.new_full((1,), len(rows)))
    sizes = [int(count) for count in counts]
    padded = torch.cat([rows, rows.new_zeros(max(sizes) - len(rows), rows.shape[1])])
    found = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(found, padded)
    return torch.cat([part[:size] for part, size in zip(found, sizes, strict=True)])
