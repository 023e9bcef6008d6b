"""The way between two draws of noise: ends, even angles, loudness."""

from __future__ import annotations

import math

import torch

from ldm.diffusion import lerp, slerp


def drawn(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(*shape, generator=generator), torch.randn(*shape, generator=generator)


def angle(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    a, b = a.flatten(1).double(), b.flatten(1).double()
    return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).clamp(-1, 1).acos()


def test_ends_are_the_two_draws() -> None:
    a, b = drawn(5, 1, 4, 4)
    for way in (slerp, lerp):
        torch.testing.assert_close(way(a, b, 0.0), a)
        torch.testing.assert_close(way(a, b, 1.0), b)


def test_slerp_turns_evenly_and_stays_on_the_sphere() -> None:
    a, b = (v / v.norm(dim=1, keepdim=True) for v in drawn(6, 3))
    fraction = torch.linspace(0.1, 0.9, 6)
    between = slerp(a, b, fraction)
    torch.testing.assert_close(between.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(
        angle(a, between), fraction.double() * angle(a, b), atol=1e-4, rtol=0
    )


def test_halfway_between_two_draws_of_noise() -> None:
    a, b = drawn(4, 20_000)
    size = math.sqrt(20_000)
    torch.testing.assert_close(
        slerp(a, b, 0.5).norm(dim=1) / size, torch.ones(4), atol=0.02, rtol=0
    )
    half = torch.full((4,), 0.5**0.5)
    torch.testing.assert_close(lerp(a, b, 0.5).norm(dim=1) / size, half, atol=0.02, rtol=0)


def test_equal_and_opposite_directions_are_finite() -> None:
    a, _ = drawn(3, 7)
    torch.testing.assert_close(slerp(a, 2 * a, 0.25), 1.25 * a)
    assert slerp(a, -a, 0.5).isfinite().all()
