"""Inverse problems: what is known stays known, and the rest follows from it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from solver_cases import SharedNoise
from torch import Tensor

from ldm.diffusion import (
    Ancestral,
    Coarse,
    Ddim,
    DpmSolverPP2M,
    Grey,
    JumpingGrid,
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
LOGSNR = LogSnrGrid()


def smooth(x: Tensor, t: Tensor) -> Denoised:
    """The exact denoiser of pictures [b c h w] of one colour each, N(0, 1) a channel."""
    alpha, sigma = PROCESS.at(t, x)
    n = x.shape[2] * x.shape[3]
    mean = x.mean((2, 3), keepdim=True)
    x0 = (alpha * n / (alpha**2 * n + sigma**2) * mean).expand_as(x)
    return given_x0(PROCESS, t, x, x0)


def run(solver: Any, steps: int = 20, b: int = 3, seed: int = 0, grid: Any = LOGSNR) -> Tensor:
    times = grid(PROCESS, steps)
    noise = Noise(range(seed, seed + b))
    x = start(PROCESS, times, noise, (3, 4, 4))
    return sample(smooth, PROCESS, solver, times, x, noise)


def known_and_mask() -> tuple[Tensor, Tensor]:
    known = torch.tensor([0.8, -0.5, 0.1]).view(1, 3, 1, 1).expand(3, 3, 4, 4).clone()
    mask = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    mask[..., :2] = True
    return known, mask


@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("inner", [Ancestral(), Ddim(), DpmSolverPP2M()])
def test_inpainting_is_exact_outside_the_hole_and_follows_it_inside(
    inner: Any, length: int
) -> None:
    known, mask = known_and_mask()
    solver = Replacing(solver=inner, projection=Mask(mask=mask), known=known)
    grid = JumpingGrid(base=LOGSNR, length=length, repeats=4)
    found = run(Resampling(solver=solver), grid=grid)
    wide = mask.expand_as(found)
    assert torch.equal(found[wide], known[wide])
    assert (found - known).abs().max() < 0.25


def published_schedule(n: int, length: int, repeats: int) -> list[int]:
    """2201.09865 appendix B, one level at a time, from the level above the first to that below 0:
    a level that is a multiple of the length has repeats - 1 jumps to spend."""
    left = {level: repeats - 1 for level in range(0, n - length, length)}
    level, walk = n, []
    while level >= 1:
        level -= 1
        walk.append(level)
        if left.get(level, 0) > 0:
            left[level] -= 1
            for _ in range(length):
                level += 1
                walk.append(level)
    return walk


@pytest.mark.parametrize(
    ("n", "length", "repeats"), [(9, 1, 3), (20, 10, 2), (23, 5, 4), (4, 7, 3)]
)
def test_the_walk_is_the_published_schedule_of_jumps(n: int, length: int, repeats: int) -> None:
    walk = JumpingGrid(base=LOGSNR, length=length, repeats=repeats).levels(n)
    one_by_one = walk[:1]
    for level in walk[1:]:
        before = one_by_one[-1]
        one_by_one += range(before + 1, level + 1) if level > before else [level]
    assert one_by_one == published_schedule(n, length, repeats)


@pytest.mark.parametrize("inner", [Ancestral(), DpmSolverPP2M()])
def test_one_walk_without_jumps_is_replacement(inner: Any) -> None:
    """j = 1 and r = 1, number for number; a walk refuses counts below one."""
    known, mask = known_and_mask()
    solver = Replacing(solver=inner, projection=Mask(mask=mask), known=known)
    once = JumpingGrid(base=LOGSNR, length=1, repeats=1)
    assert torch.equal(run(Resampling(solver=solver), grid=once), run(solver))
    for wrong in ({"length": 0}, {"repeats": 0}):
        with pytest.raises(ValueError, match="1 or more"):
            JumpingGrid(base=LOGSNR, **wrong)


def test_a_jump_is_a_draw_of_the_forward_process_and_forgets_the_path() -> None:
    times = LOGSNR(PROCESS, 5)
    x = torch.ones(3, 2, dtype=torch.float64)
    s, t = times[3].repeat(3), times[1].repeat(3)
    solver = Resampling(solver=DpmSolverPP2M())
    found, carry = solver.step(smooth, PROCESS, x, s, t, "the path", Noise(range(3)))
    z = Noise(range(3)).normal((2,), torch.float64)
    ratio = PROCESS.alpha_sigma(t)[0] / PROCESS.alpha_sigma(s)[0]
    std = PROCESS.conditional_variance(t, s).sqrt()
    torch.testing.assert_close(found, ratio[:, None] * x + std[:, None] * z)
    assert carry is None


CORRELATION = 0.8


def correlated(x: Tensor, t: Tensor) -> Denoised:
    """The exact denoiser of two numbers, N(0, 1) each, of that correlation: [b 2]."""
    alpha, sigma = (v[0] for v in PROCESS.alpha_sigma(t))
    c = torch.tensor([[1.0, CORRELATION], [CORRELATION, 1.0]], dtype=torch.float64)
    gain = alpha * c @ torch.linalg.inv(alpha**2 * c + sigma**2 * torch.eye(2).double())
    return given_x0(PROCESS, t, x, x @ gain.T)


def fill_in(length: int, repeats: int) -> tuple[float, float]:
    """Mean and variance of the second number, given that the first is 1.5."""
    b = 1000
    noise = SharedNoise(torch.Generator().manual_seed(0), b)
    times = JumpingGrid(base=LOGSNR, length=length, repeats=repeats)(PROCESS, 20)
    known = torch.full((b, 2), 1.5, dtype=torch.float64)
    mask = torch.tensor([[True, False]])
    inner = Replacing(solver=Ancestral(), projection=Mask(mask=mask), known=known)
    x = noise.normal((2,), torch.float64)
    found = sample(correlated, PROCESS, Resampling(solver=inner), times, x, noise)
    assert (found[:, 0] == 1.5).all()
    return found[:, 1].mean().item(), found[:, 1].var().item()


def test_repaint_approaches_the_posterior_of_a_gaussian() -> None:
    """N(0.8 * 1.5, 1 - 0.8^2); replacement alone falls short of its mean by two fifths."""
    mean, variance = 1.5 * CORRELATION, 1 - CORRELATION**2
    found = [fill_in(2, repeats) for repeats in (1, 4, 20)]
    gaps = [mean - average for average, _ in found]
    assert gaps[0] > 0.4 and gaps[1] < 0.7 * gaps[0]
    assert abs(gaps[2]) < 0.1
    assert abs(found[2][1] - variance) < 0.12


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
