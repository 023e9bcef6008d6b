"""Exact likelihood by the probability-flow ODE.

Song et al. 2021 (arXiv 2011.13456) section 4.3 and appendix D.2: log p(x0) = log p_T(x_T) plus the
integral of the divergence of the velocity, from t_min to t_max.

Shapes: b batch, ... data, d numbers in an item.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ldm.diffusion.adaptive import Rk45
from ldm.diffusion.denoiser import Denoise
from ldm.diffusion.noise import Noise
from ldm.diffusion.process import Process
from ldm.diffusion.step import velocity


class Trace(ABC):
    """A rule for the trace of the Jacobian of a field."""

    @abstractmethod
    def probes(self, x: Tensor, noise: Noise) -> Tensor:
        """Directions, drawn once and kept along the path: x [b ...] -> [n b ...]."""

    def __call__(self, field: Tensor, x: Tensor, probes: Tensor) -> Tensor:
        """The sum over probes of v . J v, times `share`: field(x), x [b ...] -> [b]."""
        total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for v in probes:
            product = torch.autograd.grad((v * field).sum(), x, retain_graph=True)[0]
            total = total + (v * product).flatten(1).sum(1)
        return self.share(probes) * total

    @abstractmethod
    def share(self, probes: Tensor) -> float:
        """The weight of one probe."""


@dataclass(frozen=True, kw_only=True)
class ExactTrace(Trace):
    """Every coordinate in turn: d products a call."""

    def probes(self, x: Tensor, noise: Noise) -> Tensor:
        basis = torch.eye(math.prod(x.shape[1:]), dtype=x.dtype, device=x.device)
        return basis.view(-1, 1, *x.shape[1:]).expand(-1, *x.shape)

    def share(self, probes: Tensor) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class RademacherTrace(Trace):
    """Hutchinson's estimate with random signs. 2011.13456 eq. 40; exact on a diagonal Jacobian."""

    num_probes: int = 1

    def probes(self, x: Tensor, noise: Noise) -> Tensor:
        draws = [noise.rademacher(x.shape[1:], x.dtype) for _ in range(self.num_probes)]
        return torch.stack(draws)

    def share(self, probes: Tensor) -> float:
        return 1.0 / self.num_probes


@dataclass(frozen=True, kw_only=True)
class GaussianTrace(Trace):
    """Hutchinson's estimate with normal directions."""

    num_probes: int = 1

    def probes(self, x: Tensor, noise: Noise) -> Tensor:
        return torch.stack([noise.normal(x.shape[1:], x.dtype) for _ in range(self.num_probes)])

    def share(self, probes: Tensor) -> float:
        return 1.0 / self.num_probes


@dataclass(frozen=True, kw_only=True)
class FlowLikelihood:
    """log p(x0) by the flow, x0 read as x at t_min, with the prior N(0, sigma_T^2)."""

    trace: Trace = field(default_factory=RademacherTrace)
    rtol: float = 1e-5
    atol: float = 1e-5

    def __call__(self, denoise: Denoise, process: Process, x0: Tensor, noise: Noise) -> Tensor:
        """x0 [b ...] -> log p [b] nats; `bits_per_dim(-log p, d, 2/256)` for pixels."""
        probes = self.trace.probes(x0, noise)

        def rate(y: Tensor, t: Tensor) -> Tensor:
            with torch.enable_grad():
                x = y[:, :-1].reshape(x0.shape).detach().requires_grad_()
                moving = velocity(process, denoise(x, t), t)
                divergence = self.trace(moving, x, probes)
            return torch.cat([moving.flatten(1), divergence[:, None]], dim=1).detach()

        begin = torch.full((len(x0),), process.t_min, dtype=torch.float64, device=x0.device)
        end = torch.full_like(begin, process.t_max)
        y = torch.cat([x0.flatten(1), x0.new_zeros(len(x0), 1)], dim=1)
        y = Rk45(rtol=self.rtol, atol=self.atol)(rate, y, begin, end)
        sigma = process.alpha_sigma(end)[1].to(x0.dtype)
        return y[:, -1] + _log_normal(y[:, :-1], sigma)


def _log_normal(x: Tensor, sigma: Tensor) -> Tensor:
    """log N(x; 0, sigma^2): x [b d], sigma [b] -> [b]."""
    size = x.square().sum(1) / sigma.square()
    return -(size + x.shape[1] * torch.log(2 * math.pi * sigma.square())) / 2
