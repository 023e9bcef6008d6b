"""Progressive coding of a Gaussian, where rate and distortion are known; a network without time."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ldm.diffusion import (
    Denoised,
    Denoiser,
    Eps,
    FixedSmall,
    GaussianDecoder,
    LinearChain,
    LinspaceGrid,
    Noise,
    Untimed,
    discrete_bound,
    progressive,
)

STD = 0.5
CHAIN = LinearChain(num_steps=50, beta_start=2e-3, beta_end=0.4)
TIMES = LinspaceGrid(num_steps=50)(CHAIN, 50)


def exact(x: Tensor, t: Tensor) -> Denoised:
    """E[x0 | x_t] of N(0, STD^2): [b d]."""
    alpha, sigma = CHAIN.at(t, x)
    x0 = alpha * STD**2 / ((alpha * STD).square() + sigma.square()) * x
    return Denoised(x0, (x - alpha * x0) / sigma)


def test_rate_and_distortion_of_a_gaussian_are_the_closed_forms() -> None:
    items, dims = 200, 100
    x0 = STD * torch.randn(items, dims, generator=torch.Generator().manual_seed(1)).double()
    found = progressive(exact, CHAIN, x0, TIMES, Noise(range(items)), variance=FixedSmall())
    alpha, sigma = CHAIN.alpha_sigma(TIMES)
    least = (STD * sigma).square() / ((alpha * STD).square() + sigma.square())
    torch.testing.assert_close(found.distortion.mean(1), least, rtol=0.03, atol=0)
    # each step costs (SNR_s - SNR_t)/2 |x0 - x0_hat|^2: Kingma et al. 2021 (2107.00630) eq. 13
    snr = (alpha / sigma).square()
    steps = dims * (snr[1:] - snr[:-1]) / 2 * least[:-1]
    torch.testing.assert_close(found.rate.diff(dim=0).mean(1), steps, rtol=0.06, atol=0)
    prior = x0.square().sum(1) * snr[0] / 2
    torch.testing.assert_close(found.rate[0], prior, rtol=1e-5, atol=0)


def test_the_whole_rate_is_the_bound_without_its_last_term() -> None:
    x0 = STD * torch.randn(40, 3, generator=torch.Generator().manual_seed(2)).double()
    found = progressive(exact, CHAIN, x0, TIMES, Noise(range(40)), variance=FixedSmall())
    bound = discrete_bound(
        exact, CHAIN, x0, TIMES, Noise(range(40)), variance=FixedSmall(), decoder=GaussianDecoder()
    )
    torch.testing.assert_close(found.rate[-1], bound.prior + bound.diffusion)
    assert all((later >= earlier).all() for earlier, later in pairwise(found.rate))


class Clock(torch.nn.Module):
    """Answers with the time that it was told."""

    def forward(self, x: Tensor, time: Tensor, cond: object) -> Tensor:
        return time[:, None].expand_as(x)


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_an_untimed_network_is_told_one_number(value: float) -> None:
    denoiser = Denoiser(Clock(), CHAIN, Eps(), time_embed=Untimed(value=value))
    t = torch.tensor([0.1, 0.5, 1.0])
    assert (denoiser(torch.ones(3, 2), t).eps == value).all()
