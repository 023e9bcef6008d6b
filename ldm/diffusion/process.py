"""Forward processes: x_t = alpha(t) x0 + sigma(t) eps, with eps ~ N(0, I).

A process states alpha and sigma and nothing else. Drift, diffusion, log-SNR, its inverse and
every derivative follow (Kingma et al. 2021, arXiv 2107.00630, eq. 1-2 and appendix A).

Shapes: b batch, ... data dimensions ([c h w] pictures, [d] embeddings). t: [b] in [t_min, t_max],
with data at t_min and noise at t_max. Schedules are float64; `Process.at` casts once, at the end.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Level(NamedTuple):
    """Signal and noise scales (or their slopes), broadcast to the data: [b 1 ...]."""

    alpha: Tensor
    sigma: Tensor


def per_item(value: Tensor, like: Tensor) -> Tensor:
    """One number per item, [b] float64 -> [b 1 ...] beside `like` [b ...], float32 or finer."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    return value.to(like.device, dtype).view(-1, *[1] * (like.ndim - 1))


class Process(ABC):
    """A Gaussian forward process. A new one writes `alpha_sigma` and two ends, nothing more.

    Concrete processes are frozen dataclasses; the ones with learned parameters are nn.Modules too.
    """

    @property
    @abstractmethod
    def t_min(self) -> float:
        """The data end of the range."""

    @property
    @abstractmethod
    def t_max(self) -> float:
        """The noise end of the range."""

    @abstractmethod
    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha(t), sigma(t): [b] float64 -> [b], [b] float64."""

    def build(self) -> Process:
        """What a denoiser works with: itself. A `LearnedConfig` makes a module here."""
        return self

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """d alpha/dt, d sigma/dt: [b] -> [b], [b] float64, by automatic differentiation.

        Backwards, since forward mode costs several times more on schedules of a few numbers.
        """
        learned = any(level.requires_grad for level in self.alpha_sigma(t.detach().double()))
        with torch.inference_mode(False), torch.enable_grad():
            t = t.double().clone().detach().requires_grad_()
            levels = [level + 0 * t for level in self.alpha_sigma(t)]  # a constant has slope 0
            alpha, sigma = (
                torch.autograd.grad(level.sum(), t, retain_graph=True, create_graph=learned)[0]
                for level in levels
            )
        return alpha, sigma

    def at(self, t: Tensor, like: Tensor) -> Level:
        """alpha, sigma at t [b], broadcast to `like` [b ...]."""
        alpha, sigma = self.alpha_sigma(t.double())
        return Level(per_item(alpha, like), per_item(sigma, like))

    def slope(self, t: Tensor, like: Tensor) -> Level:
        """d alpha/dt, d sigma/dt at t [b], broadcast to `like` [b ...]."""
        alpha, sigma = self.slopes(t)
        return Level(per_item(alpha, like), per_item(sigma, like))

    def logsnr(self, t: Tensor) -> Tensor:
        """lambda = log alpha^2/sigma^2: [b] -> [b] float64; falls with t (2107.00630 eq. 2)."""
        alpha, sigma = self.alpha_sigma(t.double())
        return 2 * (alpha.log() - sigma.log())

    def logsnr_slope(self, t: Tensor) -> Tensor:
        """d lambda/dt < 0: [b] -> [b] float64."""
        t = t.double()
        alpha, sigma = self.alpha_sigma(t)
        d_alpha, d_sigma = self.slopes(t)
        return 2 * (d_alpha / alpha - d_sigma / sigma)

    def t_of_logsnr(self, logsnr: Tensor) -> Tensor:
        """The inverse of `logsnr` by bisection, held in [t_min, t_max]: [b] -> [b] float64."""
        logsnr = logsnr.double()
        low = torch.full_like(logsnr, self.t_min)
        high = torch.full_like(logsnr, self.t_max)
        for _ in range(64):
            middle = (low + high) / 2
            less_noise = self.logsnr(middle) > logsnr
            low, high = torch.where(less_noise, middle, low), torch.where(less_noise, high, middle)
        return (low + high) / 2

    def drift(self, t: Tensor) -> Tensor:
        """f of dx = f x dt + g dw: alpha'/alpha, [b] -> [b] float64 (2107.00630 appendix A)."""
        return self.slopes(t)[0] / self.alpha_sigma(t.double())[0]

    def diffusion_sq(self, t: Tensor) -> Tensor:
        """g^2 = -sigma^2 lambda': [b] -> [b] float64 (2107.00630 appendix A)."""
        return -self.alpha_sigma(t.double())[1].square() * self.logsnr_slope(t)

    def posterior_std(self, t: Tensor, s: Tensor) -> Tensor:
        """tau of q(x_s | x_t, x0), s < t: tau^2 = -sigma_s^2 expm1(lambda_t - lambda_s), [b].

        DDPM's beta-tilde (2006.11239 eq. 7) for any process; 2107.00630 eq. 25.
        """
        sigma = self.alpha_sigma(s.double())[1]
        return sigma * (-torch.expm1(self.logsnr(t) - self.logsnr(s))).clamp(min=0).sqrt()

    def conditional_variance(self, t: Tensor, s: Tensor) -> Tensor:
        """Variance of q(x_t | x_s), s < t: sigma_t^2 - (alpha_t/alpha_s)^2 sigma_s^2, [b].

        DDPM's beta of the chain that has these two times, so respacing needs no class.
        2107.00630 eq. 3.
        """
        sigma = self.alpha_sigma(t.double())[1]
        return sigma.square() * (-torch.expm1(self.logsnr(t) - self.logsnr(s))).clamp(min=0)

    def perturb(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_t = alpha x0 + sigma eps: x0, eps [b ...], t [b] -> [b ...]."""
        alpha, sigma = self.at(t, x0)
        return alpha * x0 + sigma * eps


def signal_to_level(log_alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Variance-preserving pair from log alpha: sigma^2 = 1 - alpha^2, without cancellation."""
    return log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()


def _linear_log_alpha(t: Tensor, beta_min: float, beta_max: float) -> Tensor:
    return -t * t * (beta_max - beta_min) / 4 - t * beta_min / 2


def logsnr_to_level(logsnr: Tensor) -> tuple[Tensor, Tensor]:
    """Variance-preserving pair from lambda: alpha^2 = sigmoid(lambda) (2107.00630 eq. 4)."""
    return torch.sigmoid(logsnr).sqrt(), torch.sigmoid(-logsnr).sqrt()


def _check_ends(t_min: float, t_max: float, limit: float) -> None:
    if not 0.0 < t_min < t_max <= limit:
        raise ValueError(
            f"t_min={t_min} and t_max={t_max} were given; 0 < t_min < t_max <= {limit} is needed, "
            "because sigma is 0 at t=0. Raise t_min or lower t_max."
        )


@dataclass(frozen=True, kw_only=True)
class VPLinear(Process):
    """The VP SDE, beta linear in t: the continuous limit of DDPM's chain.

    Song et al. 2021 (arXiv 2011.13456) eq. 33: log alpha = -t^2 (b1 - b0)/4 - t b0/2.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        _check_ends(self.t_min, self.t_max, 1.0)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return signal_to_level(_linear_log_alpha(t, self.beta_min, self.beta_max))


@dataclass(frozen=True, kw_only=True)
class SubVP(Process):
    """The sub-VP SDE: VPLinear's alpha, and sigma = 1 - alpha^2. 2011.13456 eq. 29."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        _check_ends(self.t_min, self.t_max, 1.0)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_alpha = _linear_log_alpha(t, self.beta_min, self.beta_max)
        return log_alpha.exp(), -torch.expm1(2 * log_alpha)


@dataclass(frozen=True, kw_only=True)
class VE(Process):
    """Variance exploding: alpha = 1, sigma = sigma_min (sigma_max/sigma_min)^t. 2011.13456 eq. 30.

    On an even grid of L times it is NCSN's geometric ladder of L levels (1907.05600 section 4.2).
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_min: float = 0.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"sigma_min={self.sigma_min}, sigma_max={self.sigma_max} were given; "
                "0 < sigma_min < sigma_max is needed."
            )

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        sigma = math.log(self.sigma_min) + t * math.log(self.sigma_max / self.sigma_min)
        return torch.ones_like(t), sigma.exp()


@dataclass(frozen=True, kw_only=True)
class Edm(Process):
    """alpha = 1, sigma = t. Karras et al. 2022 (arXiv 2206.00364) table 1."""

    t_min: float = 0.002
    t_max: float = 80.0

    def __post_init__(self) -> None:
        _check_ends(self.t_min, self.t_max, math.inf)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), t


@dataclass(frozen=True, kw_only=True)
class VPCosine(Process):
    """alpha = cos(u(t)) / cos(u(0)), u = (t + s)/(1 + s) pi/2.

    Nichol & Dhariwal 2021 (arXiv 2102.09672) eq. 17. alpha is 0 at t = 1, so the range ends at
    0.996, where alpha^2 is 4e-5, the end of DDPM's linear chain.
    """

    s: float = 0.008
    t_min: float = 1e-3
    t_max: float = 0.996

    def __post_init__(self) -> None:
        _check_ends(self.t_min, self.t_max, 1.0)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        start = self.s / (1 + self.s) * math.pi / 2
        u = (t + self.s) / (1 + self.s) * math.pi / 2
        # 1 - cos^2 u / cos^2 start, as a product: no cancellation near t = 0
        variance = torch.sin(u - start) * torch.sin(u + start)
        return torch.cos(u) / math.cos(start), variance.sqrt() / math.cos(start)


@dataclass(frozen=True, kw_only=True)
class LinearFlow(Process):
    """Rectified flow: alpha = 1 - t, sigma = t.

    Liu et al. 2022 (arXiv 2209.03003) eq. 1, with time turned so that data is at t = 0. alpha is
    0 at t = 1: t_max = 1 is allowed, but solvers that divide by alpha then have no first step.
    """

    t_min: float = 1e-3
    t_max: float = 0.999

    def __post_init__(self) -> None:
        _check_ends(self.t_min, self.t_max, 1.0)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - t, t
