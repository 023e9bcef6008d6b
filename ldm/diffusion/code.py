"""What a code z of the clean data may say: the terms that keep it small.

Diffusion-based representation learning (Abstreiter, Mittal et al. 2021, arXiv 2105.14257, sections
2 and 3): denoising score matching given z, plus a small multiple of |z| or of the KL divergence of
q(z|x0) from N(0, I). Each is a part of a `Sum` beside `Mse`. The network appends what its encoder
says to its answer.

Shapes: b batch, c channels, e numbers said of the code, d width of the code.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ldm.diffusion.denoiser import Head
from ldm.diffusion.objective import Drawn, Objective, Terms
from ldm.diffusion.process import Process
from ldm.diffusion.times import Times, Uniform


@dataclass(frozen=True, kw_only=True)
class CodeHead(Head):
    """The first `channels` are the prediction, the others what the encoder said."""

    channels: int

    def __call__(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """[b c+e h w] -> [b c h w], [b e h w]."""
        if output.shape[1] <= self.channels:
            raise ValueError(
                f"the network gave {output.shape[1]} channels; beyond {self.channels} there is "
                "nothing about a code. Use a network that holds an encoder, or PlainHead()."
            )
        return output[:, : self.channels], output[:, self.channels :]


@dataclass(frozen=True, kw_only=True)
class CodeL1(Objective):
    """|z|_1 of a deterministic code."""

    times: Times = field(default_factory=Uniform)

    def terms(self, drawn: Drawn, generator: torch.Generator) -> Terms:
        l1 = said(drawn).abs().sum(1)
        return {"loss": l1, "code_l1": l1.detach()}


@dataclass(frozen=True, kw_only=True)
class CodeKl(Objective):
    """KL(N(mean, exp(logvar)) || N(0, I)) of a Gaussian code, in nats: the variational variant."""

    times: Times = field(default_factory=Uniform)

    def terms(self, drawn: Drawn, generator: torch.Generator) -> Terms:
        mean, logvar = said(drawn).chunk(2, dim=1)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1)
        return {"loss": kl, "code_kl": kl.detach()}


def said(drawn: Drawn) -> Tensor:
    """What the encoder said, [b e], from the channels that carry it."""
    if drawn.denoised.aux is None:
        raise ValueError("nothing was said of a code: give the stage head=CodeHead(channels=...)")
    return drawn.denoised.aux.flatten(2).mean(2)


@dataclass(frozen=True, kw_only=True)
class Between(Times):
    """Uniform over a part of the range: `low` and `high` are fractions of the way to t_max.

    The restricted range decides which details a code is asked for (section 2 of the paper).
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"low {self.low}, high {self.high}: two fractions, in this order")

    def __call__(
        self, process: Process, b: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        u = torch.rand(b, generator=generator, dtype=torch.float64, device=generator.device)
        way = self.low + (self.high - self.low) * u
        return process.t_min + (process.t_max - process.t_min) * way, torch.ones_like(u)
