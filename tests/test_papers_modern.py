"""What the studies of the modern methods count and compare is what they say."""

from __future__ import annotations

import pytest
import torch

from configs.papers import dit
from ldm.diffusion import Edm, Heun, KarrasGrid, Noise, sample
from ldm.diffusion.sample import start_from
from ldm.networks.dit import DiTConfig
from ldm.papers.edm_solvers import EVALUATIONS, TOLERANCE, WAYS, fine, mixture, needed, solved
from ldm.papers.exact import Exact
from ldm.papers.flops import multiply_adds, parameters


@pytest.mark.parametrize("name", WAYS)
def test_every_way_costs_what_its_column_says(name: str) -> None:
    way, calls = WAYS[name], []
    exact = Exact(mixture(), way.process)

    def counted(x: torch.Tensor, t: torch.Tensor) -> object:
        calls.append(t)
        return exact(x, t)

    times = way.grid(way.process, way.steps(19))
    x = start_from(way.process, times, torch.zeros(1, 64))
    sample(counted, way.process, way.solver, times, x, Noise([0]))  # type: ignore[arg-type]
    assert len(calls) == 19


def test_the_fine_solution_is_one() -> None:
    z = Noise(range(4)).normal((64,))
    once, twice = fine(Edm(), z, 100), fine(Edm(), z, 200)
    assert (once - twice).abs().max() < 0.01
    rough = solved(WAYS["Euler, Karras grid"], 20, z)
    assert (rough - twice).abs().max() > 0.01
    assert isinstance(WAYS["Heun, Karras grid"].solver, Heun)
    assert WAYS["Heun, Karras grid"].grid == KarrasGrid(rho=7.0)


def test_multiply_adds_and_parameters_of_a_transformer_by_hand() -> None:
    d, n, mult, depth = 16, 4, 4, 2
    config = DiTConfig(
        in_channels=1, out_channels=1, patch_size=2, depth=depth, width=d, heads=2, ff_mult=mult
    )
    block = n * (4 + 2 * mult) * d * d + 2 * n * n * d + 6 * d * d  # tokens, attention, time
    ends = 2 * n * 4 * d + 2 * d * d  # patches in and out, the last modulation
    clock = d // 4 * d + d * d
    assert multiply_adds(config, (1, 4, 4)) == depth * block + ends + clock
    assert parameters(config) == sum(p.numel() for p in config.build().parameters())


def test_published_sizes_have_the_published_cost() -> None:
    for name in ("S/8", "B/4", "XL/2"):
        _, millions, ours, giga, cost = dit.counted(name)
        assert ours == pytest.approx(millions, rel=0.02)
        assert cost == pytest.approx(giga, rel=0.01)


def test_evaluations_to_an_error_are_read_off_a_power_law() -> None:
    """Errors of a method of second order that pass the tolerance between two counts, at 50."""
    falling = [TOLERANCE * (50 / n) ** 2 for n in EVALUATIONS]
    assert needed(falling) == pytest.approx(50)
    assert needed([TOLERANCE / 2, *falling[1:]]) == EVALUATIONS[0]
    assert needed([1.0] * len(EVALUATIONS)) == EVALUATIONS[-1]
