"""DDPM's chain as a progressive code of digits (2006.11239 section 4.3, figure 5)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ldm.diffusion import FixedSmall, Noise, bits_per_dim, progressive
from ldm.papers.bench import Bench
from ldm.papers.digit_chain import PIXELS, bound, digits, heldout_bits, steps
from ldm.papers.findings import Finding, Measured, Table

GREY = 255 / 16
"""One level of the digits, on [0, 255]."""


class Curve(NamedTuple):
    """A code over the chain's times, from noise to data, and the bits of the last step."""

    rate: Tensor  # [n] bits a pixel sent
    rmse: Tensor  # [n] on [0, 255]
    total: float

    @property
    def fine(self) -> float:
        """The share of the bits that are sent when the guess is within one level already."""
        near = int((self.rmse < GREY).nonzero()[0]) if bool((self.rmse < GREY).any()) else -1
        return 1 - float(self.rate[near]) / self.total


def curve(task: Any, n: int) -> Curve:
    """Rate and distortion of the first n held-out digits."""
    process, x0 = task.stage.denoiser.process, digits("test", n)
    times = steps(process)
    found = progressive(bound(task), process, x0, times, Noise(range(n)), variance=FixedSmall())
    rate = bits_per_dim(found.rate, PIXELS).mean(1)
    rmse = found.distortion.mean(1).sqrt() * 255 / 2
    return Curve(rate, rmse, heldout_bits(task, times, FixedSmall(), n))


def coding(bench: Bench, tasks: list[Any]) -> Finding:
    """Where the bits go."""
    curves = [curve(task, bench.count(128, 32)) for task in tasks]
    fine = Measured.over([c.fine for c in curves])
    rate = Measured.over([float(c.rate[-1]) for c in curves])
    last = Measured.over([c.total - float(c.rate[-1]) for c in curves])
    prior = Measured.over([1e6 * float(c.rate[0]) for c in curves])
    rmse = Measured.over([float(c.rmse[-1]) for c in curves])
    rows = (
        ("L_T, millionths of a bit a pixel", prior),
        ("rate L_1 + ... + L_T, bits a pixel", rate),
        ("L_0, bits a pixel", last),
        ("RMSE at the end of the rate, on [0, 255]", rmse),
        ("share of all bits sent once the RMSE is below one grey level", fine),
    )
    return Finding(
        claim="Most of the lossless code describes distortions too fine to see",
        published="CIFAR-10: rate 1.78 and distortion (L_0) 1.97 bits a dimension, more than half, "
        "at an RMSE of 0.95 of 255 (section 4.3); L_T about 1e-5 bits a dimension",
        measured=f"{fine} of the bits are sent after the guess is within one grey level "
        f"({GREY:.0f} of 255)",
        holds=Measured(0.5, None, 1).below(fine),
        table=Table(("part of the code", "measured"), rows),
        figures=(bench.plot("coding", drawn(curves)),),
        comment="The digits have 17 levels of grey and not 256, so little is left to L_0: the "
        "comparison with the paper's figure is by the share of bits beyond one level. Distortion "
        f"{'falls' if falling(curves) else 'does not fall'} all along the rate, within "
        "half a level of grey.",
    )


def falling(curves: list[Curve]) -> bool:
    """Whether the guess never becomes worse by more than half a level as bits arrive."""
    rmse = torch.stack([c.rmse for c in curves]).mean(0)
    return bool((rmse - rmse.cummin(0).values).max() < GREY / 2)


def drawn(curves: list[Curve]) -> Any:
    """Distortion over time, rate over time, distortion over rate: figure 5 of the paper."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2))
    left, middle, right = figure.subplots(1, 3)
    for c in curves:
        place = torch.linspace(0, 1, len(c.rate))
        left.plot(place, c.rmse)
        middle.plot(place, c.rate)
        right.plot(c.rate, c.rmse)
    left.set(xlabel="share of the reverse steps", ylabel="distortion (RMSE, 0 to 255)")
    middle.set(xlabel="share of the reverse steps", ylabel="rate (bits a pixel)")
    right.set(xlabel="rate (bits a pixel)", ylabel="distortion (RMSE, 0 to 255)")
    right.axhline(GREY, color="grey", linestyle=":", linewidth=1)
    right.text(0, GREY * 1.1, "one grey level", color="grey", fontsize=8)
    right.set_xlim(0, 1.05 * max(float(c.rate[-1]) for c in curves if math.isfinite(c.total)))
    figure.tight_layout()
    return figure
