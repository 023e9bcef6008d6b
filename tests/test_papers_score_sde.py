"""The measures of the Score-SDE study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ldm.codec import Pixels
from ldm.data.enlarged import ColouredDigits
from ldm.diffusion import VE, Grey, Process, SubVP, VPLinear
from ldm.papers.bench import Bench
from ldm.papers.sde_colours import COLOURED, GREY, SWAPPED, beats_controls, mixed_colours, seen
from ldm.papers.sde_digits import correlation
from ldm.papers.sde_exact import DATA, exactly, held_out, kernel_gap, panel


@dataclass(frozen=True, kw_only=True)
class Wrong(Process):
    """VP whose diffusion is a tenth too strong: its simulation must miss its kernel."""

    t_min: float = 1e-3
    t_max: float = 1.0

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return VPLinear().alpha_sigma(t)

    def diffusion_sq(self, t: Tensor) -> Tensor:
        return 1.1 * super().diffusion_sq(t)


def test_simulated_sdes_find_their_kernels_and_a_wrong_one_does_not(tmp_path: Path) -> None:
    bench = Bench("sde", tmp_path, tmp_path / "runs")
    for process in (VPLinear(), SubVP(), VE()):
        assert kernel_gap(bench, process, 0) < 0.03
    assert kernel_gap(bench, Wrong(), 0) > 0.03


@pytest.mark.parametrize("process", [VPLinear(), VE()], ids=["vp", "ve"])
def test_the_flow_gives_the_density_of_the_mixture_of_the_study(process: Process) -> None:
    """A far point is unlikely, a point at a mode is likely, both as the closed form has it."""
    x = torch.tensor([[1.0, 1.0], [0.0, 0.2]], dtype=torch.float64)
    mode = torch.tensor(DATA.weights[0] / (2 * torch.pi * DATA.std**2)).log()
    found = exactly(process, x)
    assert found[0].item() == pytest.approx(mode.item(), abs=0.02)
    assert found[1] < found[0] - 5


def test_colours_are_one_or_mixed() -> None:
    real = Pixels().encode(ColouredDigits(part="test").whole().take(8))
    assert mixed_colours(real) < 1e-4
    assert mixed_colours(Grey().replace(real.roll(1, 0), real)) > 0.01


def test_colours_that_leave_all_range_are_no_match() -> None:
    """One hue times a huge brightness has no mixed colours; it is far from every digit."""
    whole = Pixels().encode(ColouredDigits(part="test").whole())
    real, others = whole[:64], whole[64:]
    controls = {
        SWAPPED: seen([Grey().replace(real.roll(1, 0), real)], others),
        GREY: seen([real.mean(1, keepdim=True).expand_as(real)], others),
    }
    assert beats_controls({COLOURED: seen([real], others), **controls})
    huge = real + 20 * (real - real.mean(1, keepdim=True))
    assert seen([huge], others).mixed.below(controls[SWAPPED].mixed)
    assert not beats_controls({COLOURED: seen([huge], others), **controls})


def test_codes_of_one_picture_correlate_and_clouds_are_shown_whole() -> None:
    codes = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert correlation(codes, 2 * codes + 1) == pytest.approx(1.0, abs=1e-5)
    assert abs(correlation(codes, codes.roll(1, 0))) < 0.15
    assert panel(torch.tensor(0.25), held_out())[0] == "t 0.25"
    title, points = panel(torch.tensor(1.0), 10 * held_out())
    assert title == "t 1, within ±24" and torch.equal(points, 10 * held_out() / 8)
