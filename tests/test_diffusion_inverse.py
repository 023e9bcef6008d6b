"""Inverse problems: what is known stays known, and the rest follows from it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ldm.diffusion import (
    Ancestral,
    Coarse,
    Ddim,
    DpmSolverPP2M,
    Grey,
    LogSnrGrid,
    Mask,
    Noise,
    Replacing,
    Resampling,
    VPCosine,
    sample,
    start,
)
from ldm.diffusion.prediction import Denoised, given_x0

PROCESS = VPCosine()


def smooth(x: Tensor, t: Tensor) -> Denoised:
    """The exact denoiser of pictures [b c h w] of one colour each, N(0, 1) a channel."""
    alpha, sigma = PROCESS.at(t, x)
    n = x.shape[2] * x.shape[3]
    mean = x.mean((2, 3), keepdim=True)
    x0 = (alpha * n / (alpha**2 * n + sigma**2) * mean).expand_as(x)
    return given_x0(PROCESS, t, x, x0)


def run(solver: Any, steps: int = 20, b: int = 3, seed: int = 0) -> Tensor:
    times = LogSnrGrid()(PROCESS, steps)
    noise = Noise(range(seed, seed + b))
    x = start(PROCESS, times, noise, (3, 4, 4))
    return sample(smooth, PROCESS, solver, times, x, noise)


def known_and_mask() -> tuple[Tensor, Tensor]:
    known = torch.tensor([0.8, -0.5, 0.1]).view(1, 3, 1, 1).expand(3, 3, 4, 4).clone()
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[..., :2] = True
    return known, mask


@pytest.mark.parametrize("inner", [Ancestral(), Ddim(), DpmSolverPP2M()])
def test_inpainting_is_exact_outside_the_hole_and_follows_it_inside(inner: Any) -> None:
    known, mask = known_and_mask()
    solver = Replacing(solver=inner, projection=Mask(mask=mask), known=known)
    found = run(Resampling(solver=solver, repeats=4))
    wide = mask.expand_as(found)
    assert torch.equal(found[wide], known[wide])
    assert (found - known).abs().max() < 0.25


def test_repaint_lets_the_hole_see_the_known() -> None:
    """2201.09865 section 4.2: more resampling, better agreement."""
    known, mask = known_and_mask()
    gaps = []
    for repeats in (1, 8):
        solver = Replacing(solver=Ancestral(), projection=Mask(mask=mask), known=known)
        found = run(Resampling(solver=solver, repeats=repeats), steps=6, b=3)
        gaps.append((found - known).square().mean().item())
    assert gaps[1] < gaps[0]


def test_what_lies_in_the_hole_is_never_read() -> None:
    known, mask = known_and_mask()
    other = torch.where(mask, known, torch.full_like(known, 99.0))
    runs = [
        run(Replacing(solver=Ancestral(), projection=Mask(mask=mask), known=k))
        for k in (known, other)
    ]
    assert torch.equal(*runs)


def test_colourisation_keeps_the_grey_and_chooses_a_colour() -> None:
    known, _ = known_and_mask()
    found = run(Replacing(solver=Ancestral(), projection=Grey(), known=known), steps=60)
    torch.testing.assert_close(found.mean(1), known.mean(1), rtol=0, atol=1e-5)
    assert (found[0] - found[1]).abs().max() > 0.1  # two seeds, two colours


def test_low_resolution_consistency() -> None:
    known = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    found = run(Replacing(solver=Ddim(), projection=Coarse(factor=2), known=known))
    pool = torch.nn.functional.avg_pool2d
    torch.testing.assert_close(pool(found, 2), pool(known, 2), rtol=0, atol=1e-5)


@pytest.mark.parametrize("projection", [Grey(), Coarse(factor=2), Mask(mask=known_and_mask()[1])])
def test_projections_are_orthogonal(projection: Any) -> None:
    """Replacing twice is replacing once, and noise in the known part says nothing of the rest."""
    draws = torch.Generator().manual_seed(2)
    x, known = (torch.randn(3, 3, 4, 4, generator=draws, dtype=torch.float64) for _ in range(2))
    once = projection.replace(x, known)
    torch.testing.assert_close(projection.replace(once, known), once)
    taken, left = projection.replace(torch.zeros_like(x), x), projection.replace(x, x * 0)
    torch.testing.assert_close(taken + left, x)
    assert (taken * left).sum().abs() < 1e-10
