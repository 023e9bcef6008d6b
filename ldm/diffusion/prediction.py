"""What a network predicts: y = a x0 + b eps, and the way back to (x0, eps).

With x = alpha x0 + sigma eps and det = alpha b - sigma a:
x0 = (b x - sigma y)/det and eps = (alpha y - a x)/det. A prediction states a and b, nothing more.
Salimans & Ho 2022 (arXiv 2202.00512) appendix D; Karras et al. 2022 (arXiv 2206.00364) eq. 7.

Shapes: b batch, ... data; coefficients are [b] float64 and are cast once, beside the data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ldm.diffusion.process import Process, per_item

# Below this alpha the rounding of x in float32 (1e-7) alone moves x0 by more than a hundredth. The
# published cosine chain ends at 4.9e-5, where its own samplers clip x0.
MIN_ALPHA = 1e-5


class Denoised(NamedTuple):
    """What a denoiser believes: x0 [b ...], eps [b ...], and any extra channels [b c ...]."""

    x0: Tensor
    eps: Tensor
    aux: Tensor | None = None


class Prediction(ABC):
    """A network target y = a x0 + b eps."""

    @abstractmethod
    def coefficients(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
        """a, b at t [b] -> [b], [b] float64."""

    @abstractmethod
    def check(self, process: Process) -> None:
        """Raise ValueError, naming an alternative, where the target is undefined on `process`."""

    def target(self, process: Process, t: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        """y = a x0 + b eps: t [b], x0 and eps [b ...] -> [b ...]."""
        a, b = self.coefficients(process, t.double())
        return per_item(a, x0) * x0 + per_item(b, x0) * eps

    def determinant(self, process: Process, t: Tensor) -> Tensor:
        """alpha b - sigma a at t [b] -> [b] float64."""
        a, b = self.coefficients(process, t.double())
        alpha, sigma = process.alpha_sigma(t.double())
        return alpha * b - sigma * a

    def denoised(
        self, process: Process, t: Tensor, x: Tensor, y: Tensor, aux: Tensor | None = None
    ) -> Denoised:
        """x0 and eps from x and the network's y, both [b ...], at t [b]."""
        a, b = self.coefficients(process, t.double())
        alpha, sigma = process.alpha_sigma(t.double())
        det = alpha * b - sigma * a
        x0 = per_item(b / det, x) * x - per_item(sigma / det, x) * y
        eps = per_item(alpha / det, x) * y - per_item(a / det, x) * x
        return Denoised(x0, eps, aux)


def given_x0(
    process: Process, t: Tensor, x: Tensor, x0: Tensor, aux: Tensor | None = None
) -> Denoised:
    """The pair of which x0 is known: eps = (x - alpha x0)/sigma. x, x0 [b ...], t [b]."""
    return X0().denoised(process, t, x, x0, aux)


def _require_signal(prediction: Prediction, process: Process) -> None:
    alpha, _ = process.alpha_sigma(torch.tensor([process.t_max], dtype=torch.float64))
    if alpha.item() < MIN_ALPHA:
        raise ValueError(
            f"{prediction} on {process}: alpha is {alpha.item():.3g} at t_max={process.t_max}, and "
            f"x0 = (x - sigma eps)/alpha needs {MIN_ALPHA} or more. Use V(), Flow() or X0(), or "
            "lower t_max."
        )


def _require_noise(prediction: Prediction, process: Process) -> None:
    _, sigma = process.alpha_sigma(torch.tensor([process.t_min], dtype=torch.float64))
    if not sigma.item() > 0:
        raise ValueError(
            f"{prediction} on {process}: sigma is {sigma.item():.3g} at t_min={process.t_min}, and "
            "the conversion divides by it. Use V() or Flow(), or raise t_min."
        )


@dataclass(frozen=True, kw_only=True)
class X0(Prediction):
    """The clean data: (a, b) = (1, 0)."""

    def coefficients(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), torch.zeros_like(t)

    def check(self, process: Process) -> None:
        _require_noise(self, process)


@dataclass(frozen=True, kw_only=True)
class Eps(Prediction):
    """The noise: (0, 1). Ho et al. 2020 (arXiv 2006.11239) eq. 11."""

    def coefficients(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), torch.ones_like(t)

    def check(self, process: Process) -> None:
        _require_signal(self, process)


@dataclass(frozen=True, kw_only=True)
class V(Prediction):
    """v = alpha eps - sigma x0: (-sigma, alpha). 2202.00512 section 4; defined everywhere."""

    def coefficients(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = process.alpha_sigma(t)
        return -sigma, alpha

    def check(self, process: Process) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Score(Prediction):
    """The score of x_t, -eps/sigma: (0, -1/sigma). 2011.13456 eq. 7 and its Gaussian kernel."""

    def coefficients(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), -1 / process.alpha_sigma(t)[1]

    def check(self, process: Process) -> None:
        _require_signal(self, process)
        _require_noise(self, process)


@dataclass(frozen=True, kw_only=True)
class Flow(Prediction):
    """The velocity dx/dt at fixed (x0, eps): (alpha', sigma'). 2209.03003 eq. 1."""

    def coefficients(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
        return process.slopes(t)

    def check(self, process: Process) -> None:
        ends = torch.tensor([process.t_min, process.t_max], dtype=torch.float64)
        if not self.determinant(process, ends).isfinite().all():
            raise ValueError(
                f"{self} on {process}: the slope of sigma is not finite at an end. Use V(), or "
                "raise t_min."
            )


@dataclass(frozen=True, kw_only=True)
class Karras(Prediction):
    """EDM's F: x0 = c_skip x + c_out F, of unit variance at every t.

    Karras et al. 2022 (arXiv 2206.00364) table 1, written for any alpha; `sigma_data` is the
    standard deviation of the data.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not self.sigma_data > 0:
            raise ValueError(f"sigma_data={self.sigma_data} was given; it must be positive.")

    def coefficients(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = process.alpha_sigma(t)
        variance = (alpha * self.sigma_data).square() + sigma.square()
        c_skip = alpha * self.sigma_data**2 / variance
        c_out = sigma * self.sigma_data / variance.sqrt()
        return (1 - c_skip * alpha) / c_out, -c_skip * sigma / c_out

    def check(self, process: Process) -> None:
        _require_noise(self, process)


@dataclass(frozen=True, kw_only=True)
class PreviousMean(Prediction):
    """The mean of q(x_s | x_t, x0), s one step of an even chain of `num_steps` before t.

    Ho et al. 2020 (arXiv 2006.11239) eq. 7: (alpha_s, sigma_s^2 alpha_t/(sigma_t alpha_s)). Before
    the first time lies the data itself, (1, 0).
    """

    num_steps: int = 1000

    def coefficients(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
        s, first = _previous(process, t, self.num_steps)
        alpha, sigma = process.alpha_sigma(s)
        tau = process.posterior_std(t, s)
        direction = (sigma.square() - tau.square()).clamp(min=0).sqrt()
        return torch.where(first, 1.0, alpha), torch.where(first, 0.0, direction)

    def check(self, process: Process) -> None:
        _require_noise(self, process)


@dataclass(frozen=True, kw_only=True)
class PreviousMeanShift(Prediction):
    """The step's mean as a shift of x: (mean - x alpha_t/alpha_s)/sqrt(beta).

    Sohl-Dickstein et al. 2015 (arXiv 1503.03585), appendix D.2.1: mu = x sqrt(1 - beta) + shift
    sqrt(beta). With `VarianceHead` and `LearnedLogit` it is their learned mean and covariance.
    """

    num_steps: int = 40

    def coefficients(self, process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
        a, b = PreviousMean(num_steps=self.num_steps).coefficients(process, t)
        s, first = _previous(process, t, self.num_steps)
        alpha, sigma = process.alpha_sigma(t)
        keep = alpha / torch.where(first, 1.0, process.alpha_sigma(s)[0])
        beta = torch.where(first, sigma.square(), process.conditional_variance(t, s))
        return (a - keep * alpha) / beta.sqrt(), (b - keep * sigma) / beta.sqrt()

    def check(self, process: Process) -> None:
        _require_noise(self, process)


def _previous(process: Process, t: Tensor, num_steps: int) -> tuple[Tensor, Tensor]:
    """The time before t [b] in an even chain, held at t_min, and whether t is the first."""
    step = (process.t_max - process.t_min) / (num_steps - 1)
    return (t - step).clamp(min=process.t_min), t < process.t_min + step / 2
