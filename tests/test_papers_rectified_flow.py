"""Reflow's pairs reach the network as pairs, and straightness is what its formula says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ldm.data.pairs import Pairs, write_pairs
from ldm.diffusion import Denoiser, Flow, LinearFlow, Mse
from ldm.diffusion.coupled import Coupled
from ldm.errors import DataError
from ldm.papers.straightness import bend, detour


class Straight(nn.Module):
    """Knows that every datum is twice its noise, so that x_t = (2 - t) eps and dx/dt = -eps."""

    def forward(self, x: Tensor, time: Tensor, cond: Any) -> Tensor:
        return -x / (2 - time[:, None, None] / 1000)


def test_a_network_that_knows_the_coupling_has_no_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(64, 1, 3, generator=generator)
    denoiser = Denoiser(Straight(), LinearFlow(), Flow())
    pairs = torch.cat([2 * noise, noise], dim=1)
    assert Coupled()(denoiser, pairs, None, generator)["loss"].max() < 1e-8
    assert Mse()(denoiser, 2 * noise, None, generator)["loss"].mean() > 0.1  # noise of its own
    swapped = torch.cat([noise, 2 * noise], dim=1)
    assert Coupled()(denoiser, swapped, None, generator)["loss"].mean() > 0.1


def test_an_odd_number_of_channels_is_no_pair() -> None:
    denoiser = Denoiser(Straight(), LinearFlow(), Flow())
    with pytest.raises(ValueError, match="even number of channels"):
        Coupled()(denoiser, torch.zeros(2, 3, 3), None, torch.Generator())


def test_pairs_are_kept_and_streamed_together(tmp_path: Path) -> None:
    x0 = torch.arange(10.0)[:, None, None].expand(10, 1, 4)
    write_pairs(tmp_path / "deep" / "pairs.safetensors", x0, -x0)
    stream = Pairs(path=str(tmp_path / "deep" / "pairs.safetensors"), batch_size=4).open()
    batch = next(stream.batches())
    assert batch.point is not None and batch.point.shape == (4, 2, 4)
    assert torch.equal(batch.point[:, 0], -batch.point[:, 1])
    with pytest.raises(DataError, match="holds no pairs"):
        Pairs(path=str(tmp_path / "none")).open()
    with pytest.raises(DataError, match="differ in shape"):
        write_pairs(tmp_path / "pairs", x0, x0[:5])


def test_bend_and_detour_of_a_line_and_of_half_a_circle() -> None:
    times = torch.linspace(1, 0, 2001)
    line = times[:, None, None] * torch.tensor([[1.0, 2.0], [-3.0, 0.5]])
    assert bend(line, times) < 1e-6
    assert detour(line) == pytest.approx(1, abs=1e-4)
    angle = math.pi * times
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)[:, None]
    # chord (2, 0): velocity pi e(t), E|v - c|^2 = pi^2 - 4 since E[v] = c; over |c|^2 = 4
    assert bend(circle, times) == pytest.approx((math.pi**2 - 4) / 4, rel=1e-3)
    assert detour(circle) == pytest.approx(math.pi / 2, rel=1e-3)
    late = circle[(2000 * torch.linspace(0, 1, 2001) ** 2).round().long()]
    assert detour(late) == pytest.approx(math.pi / 2, rel=1e-3)  # no clock in it
    assert bend(late, times) > bend(circle, times)
