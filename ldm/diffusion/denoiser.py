"""The denoiser: a network, what it predicts, and about which process.

It is the only place that knows how the network's input, time and output are scaled; guidance and
solvers see a function (x, t) -> Denoised.

Shapes: b batch, c channels, ... the rest of the data, k channels of output per channel of data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ldm.diffusion.prediction import Denoised, Prediction
from ldm.diffusion.process import Process, per_item

Denoise = Callable[[Tensor, Tensor], Denoised]


class InputScale(ABC):
    """The factor on the network's input."""

    @abstractmethod
    def __call__(self, process: Process, t: Tensor) -> Tensor:
        """t [b] float64 -> [b]."""


@dataclass(frozen=True, kw_only=True)
class UnitInput(InputScale):
    """The network sees x as it is: right where the process keeps the variance."""

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        return torch.ones_like(t)


@dataclass(frozen=True, kw_only=True)
class StandardInput(InputScale):
    """c_in = 1/sqrt(alpha^2 sigma_data^2 + sigma^2): unit variance. 2206.00364 table 1."""

    sigma_data: float = 0.5

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        alpha, sigma = process.alpha_sigma(t)
        return ((alpha * self.sigma_data).square() + sigma.square()).rsqrt()


class TimeEmbed(ABC):
    """The number, around 0..1000, that the network embeds as time."""

    @abstractmethod
    def __call__(self, process: Process, t: Tensor) -> Tensor:
        """t [b] float64 -> [b]."""


@dataclass(frozen=True, kw_only=True)
class ScaledTime(TimeEmbed):
    """scale t + shift. A published chain of N steps numbered from 0 is scale=N, shift=-1."""

    scale: float = 1000.0
    shift: float = 0.0

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        return self.scale * t + self.shift


@dataclass(frozen=True, kw_only=True)
class LogSnrTime(TimeEmbed):
    """The log-SNR, mapped so that t_min gives 0 and t_max `scale`. 2107.00630 appendix B."""

    scale: float = 1000.0

    def __call__(self, process: Process, t: Tensor) -> Tensor:
        ends = process.logsnr(t.new_tensor([process.t_min, process.t_max]))
        return self.scale * (process.logsnr(t) - ends[0]) / (ends[1] - ends[0])


class Head(ABC):
    """How the channels of the network's output divide."""

    @abstractmethod
    def __call__(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """[b k*c ...] -> the prediction [b c ...] and extra channels [b (k-1)*c ...] or None."""


@dataclass(frozen=True, kw_only=True)
class PlainHead(Head):
    """All of the output is the prediction."""

    def __call__(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        return output, None


@dataclass(frozen=True, kw_only=True)
class VarianceHead(Head):
    """The second half of the channels speaks of the variance. 2102.09672 section 3.1."""

    def __call__(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        if output.shape[1] % 2:
            raise ValueError(
                f"the network gave {output.shape[1]} channels; VarianceHead needs twice the "
                "channels of the data. Double out_channels of the network or use PlainHead()."
            )
        prediction, variance = output.chunk(2, dim=1)
        return prediction, variance


class Denoiser(nn.Module):
    """network (x [b c ...], time [b], cond) -> [b k*c ...], read as a statement about x0 and eps.

    A process with learned parameters becomes a submodule here, so that the optimiser, the moving
    average and the checkpoint see it.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        prediction: Prediction,
        *,
        input_scale: InputScale | None = None,
        time_embed: TimeEmbed | None = None,
        head: Head | None = None,
    ) -> None:
        super().__init__()
        prediction.check(process)
        self.network = network
        self.process = process
        self.prediction = prediction
        self.input_scale = input_scale or UnitInput()
        self.time_embed = time_embed or ScaledTime()
        self.head = head or PlainHead()

    def raw(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        """The network's own output, in the dtype of x: [b c ...], t [b] -> [b k*c ...]."""
        t = t.double()
        scale = per_item(self.input_scale(self.process, t), x)
        dtype = torch.promote_types(x.dtype, torch.float32)
        time = self.time_embed(self.process, t).to(x.device, dtype)
        output: Tensor = self.network((scale * x).to(x.dtype), time, cond)
        return output.to(dtype)

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Denoised:
        """x [b c ...] at t [b] -> x0, eps [b c ...] and extra channels."""
        y, aux = self.head(self.raw(x, t, cond))
        if y.shape != x.shape:
            raise ValueError(
                f"the prediction is {list(y.shape)} for data {list(x.shape)}; they must agree. "
                f"Set the network's output channels to suit {self.head}."
            )
        return self.prediction.denoised(self.process, t, x, y, aux)

    def bind(self, cond: Any = None) -> Denoise:
        """The denoiser of one condition: (x, t) -> Denoised."""
        return lambda x, t: self(x, t, cond)
