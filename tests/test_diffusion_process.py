"""Processes: identities, published chains, learned schedules."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import FULL, SMOOTH
from torch import Tensor

from ldm.diffusion import (
    VE,
    CosineChain,
    Denoised,
    FractionChain,
    LearnedLinearConfig,
    LinearChain,
    LinearFlow,
    MonotoneConfig,
    Process,
    ScaledLinearChain,
    SubVP,
    Tabulated,
    UniformGrid,
    VPCosine,
    VPLinear,
    ZeroTerminalSnr,
)
from ldm.diffusion.step import velocity

ALL: dict[str, Process] = {
    **FULL,
    "linear_chain": LinearChain(),
    "scaled_chain": ScaledLinearChain(),
    "cosine_chain": CosineChain(num_steps=200),
    "fraction": FractionChain(),
    "learned": LearnedLinearConfig().build(),
    "monotone": MonotoneConfig(hidden=16).build(),
}


def inside(process: Process, n: int = 7) -> Tensor:
    """Times between the ends, off the steps of every chain here."""
    places = torch.linspace(0.031, 0.957, n, dtype=torch.float64)
    return process.t_min + (process.t_max - process.t_min) * places


@pytest.mark.parametrize("name", ALL)
def test_slopes_are_the_derivatives(name: str) -> None:
    process, t = ALL[name], inside(ALL[name])
    h = 1e-6 * (process.t_max - process.t_min)
    up, down = process.alpha_sigma(t + h), process.alpha_sigma(t - h)
    for slope, high, low in zip(process.slopes(t), up, down, strict=True):
        torch.testing.assert_close(slope, (high - low) / (2 * h), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_logsnr_falls_and_its_inverse_returns(name: str) -> None:
    process, t = ALL[name], inside(ALL[name])
    assert (process.logsnr_slope(t) < 0).all()
    torch.testing.assert_close(process.t_of_logsnr(process.logsnr(t)), t, rtol=1e-9, atol=1e-10)


def test_drift_and_diffusion_are_those_of_the_published_sdes() -> None:
    t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    beta, total = 0.1 + 19.9 * t, 0.1 * t + 19.9 * t * t / 2
    for process in (VPLinear(), SubVP()):
        torch.testing.assert_close(process.drift(t), -beta / 2, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(VPLinear().diffusion_sq(t), beta, rtol=1e-9, atol=1e-9)
    sub = beta * (1 - torch.exp(-2 * total))
    torch.testing.assert_close(SubVP().diffusion_sq(t), sub, rtol=1e-9, atol=1e-9)
    ve = FULL["ve"]
    rate = 2 * math.log(30.0 / 0.01) * ve.alpha_sigma(t)[1].square()
    torch.testing.assert_close(ve.diffusion_sq(t), rate, rtol=1e-9, atol=1e-9)
    edm = FULL["edm"]
    torch.testing.assert_close(edm.diffusion_sq(t), 2 * t, rtol=1e-9, atol=1e-12)


def test_the_chain_tends_to_the_vp_sde() -> None:
    """2011.13456 appendix B: N betas of beta(t)/N, in the limit; the gap falls as 1/N."""
    t = torch.tensor([0.25, 0.5, 1.0], dtype=torch.float64)
    gaps = []
    for n in (100, 1000, 10_000):
        chain = LinearChain(num_steps=n, beta_start=0.1 / n, beta_end=20 / n)
        gaps.append((chain.logsnr(t) - VPLinear().logsnr(t)).abs().max().item())
    assert gaps[0] > 8 * gaps[1] > 64 * gaps[2]
    assert gaps[2] < 0.02


def test_ncsns_levels_are_an_even_grid_of_ve() -> None:
    """1907.05600 section 4.2: ten levels in geometric progression from 1 to 0.01."""
    process = VE(sigma_min=0.01, sigma_max=1.0)
    sigma = process.alpha_sigma(UniformGrid()(process, 10))[1]
    torch.testing.assert_close(sigma[0].item(), 1.0)
    torch.testing.assert_close(sigma[1:] / sigma[:-1], torch.full((9,), 0.01 ** (1 / 9)).double())


@pytest.mark.parametrize("name", FULL)
def test_the_flow_is_the_drift_less_half_the_scores_share(name: str) -> None:
    """2011.13456 eq. 13: alpha' x0 + sigma' eps = f x - g^2 score/2, for every process."""
    process, t = FULL[name], inside(FULL[name])
    x0, eps = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0)).double()
    x = process.perturb(x0, t, eps)
    score = -eps / process.at(t, x).sigma
    f, g_sq = process.drift(t)[:, None], process.diffusion_sq(t)[:, None]
    expected = f * x - g_sq * score / 2
    found = velocity(process, Denoised(x0, eps), t)
    size = (f * x).abs() + (g_sq * score).abs()  # of what is subtracted
    assert ((found - expected).abs() <= 1e-10 * (1 + size)).all()


@pytest.mark.parametrize("name", ["vp", "subvp", "ve", "flow"])
def test_marginals_are_those_of_the_simulated_sde(name: str) -> None:
    """Euler-Maruyama forward in 400 steps from x0 = 1: mean alpha, standard deviation sigma."""
    process, b = SMOOTH[name], 20_000
    times = torch.linspace(process.t_min, process.t_max, 401, dtype=torch.float64)
    draws = torch.Generator().manual_seed(0)
    alpha, sigma = process.alpha_sigma(times)
    x = alpha[0] + sigma[0] * torch.randn(b, generator=draws, dtype=torch.float64)
    f, g_sq, dt = process.drift(times), process.diffusion_sq(times), times[1] - times[0]
    for i in range(400):
        z = torch.randn(b, generator=draws, dtype=torch.float64)
        x = x + f[i] * x * dt + (g_sq[i] * dt).sqrt() * z
    assert abs(x.mean() - alpha[-1]) < 0.01 + 4 * sigma[-1] / b**0.5
    assert abs(x.std() / sigma[-1] - 1) < 0.02


def test_posterior_and_beta_of_the_chain_are_ddpms() -> None:
    """Also of a respaced chain: beta' = 1 - abar_t/abar_s, with no class for it."""
    chain = LinearChain()
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    abar = (1 - betas).cumprod(0)
    for kept in (torch.arange(1000), torch.arange(0, 1000, 37)):
        t, s = (kept[1:] + 1).double() / 1000, (kept[:-1] + 1).double() / 1000
        beta = 1 - abar[kept[1:]] / abar[kept[:-1]]
        small = (1 - abar[kept[:-1]]) / (1 - abar[kept[1:]]) * beta
        got = chain.conditional_variance(t, s)
        torch.testing.assert_close(got, beta, rtol=1e-9, atol=0)
        tau = chain.posterior_std(t, s)
        torch.testing.assert_close(tau.square(), small, rtol=1e-9, atol=0)


def test_published_chains_are_the_library_of_record() -> None:
    diffusers = pytest.importorskip("diffusers")
    kinds = {
        "linear": (LinearChain(), 1e-4, 0.02),
        "scaled_linear": (ScaledLinearChain(), 0.00085, 0.012),
        "squaredcos_cap_v2": (CosineChain(), 1e-4, 0.02),
    }
    for name, (chain, low, high) in kinds.items():
        peer = diffusers.DDPMScheduler(beta_schedule=name, beta_start=low, beta_end=high)
        t = (torch.arange(1000) + 1).double() / 1000
        got = chain.alpha_sigma(t)[0].square()
        torch.testing.assert_close(got, peer.alphas_cumprod.double(), rtol=2e-4, atol=1e-7)


def test_cosine_is_the_published_curve() -> None:
    """2102.09672 eq. 17, and the discrete chain's before its betas are held."""
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    f = torch.cos((t + 0.008) / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)
    alpha, sigma = VPCosine().alpha_sigma(t)
    torch.testing.assert_close(alpha, f)
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones_like(t))
    torch.testing.assert_close(CosineChain(num_steps=10).alpha_sigma(t)[0], f, rtol=1e-9, atol=0)


def test_a_table_is_the_chain_it_came_from() -> None:
    chain = LinearChain(num_steps=50)
    t = (torch.arange(50) + 1).double() / 50
    table = Tabulated(alphas_bar=tuple(chain.alpha_sigma(t)[0].square().tolist()))
    torch.testing.assert_close(table.logsnr(t), chain.logsnr(t), rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match="ZeroTerminalSnr"):
        Tabulated(alphas_bar=(0.5, 0.0)).alpha_sigma(t)


def test_fraction_chain_keeps_one_part_in_t() -> None:
    chain = FractionChain(num_steps=40, first_beta=1 / 40)
    t = torch.tensor([1.0], dtype=torch.float64)
    torch.testing.assert_close(chain.alpha_sigma(t)[0].square().item(), _product(40))


def _product(n: int) -> float:
    return math.prod(1 - 1 / (n - (n - 2) * i / (n - 1)) for i in range(n))


def test_zero_terminal_snr_ends_in_noise_and_keeps_its_start() -> None:
    base = ScaledLinearChain()
    process = ZeroTerminalSnr(base=base)
    ends = torch.tensor([base.t_min, base.t_max], dtype=torch.float64)
    alpha, sigma = process.alpha_sigma(ends)
    assert alpha[1] == 0 and sigma[1] == 1
    torch.testing.assert_close(alpha[0], base.alpha_sigma(ends)[0][0])
    t = torch.tensor([0.3, 0.7], dtype=torch.float64)
    first, last = (base.alpha_sigma(ends)[0][i] for i in (0, 1))  # 2305.08891 algorithm 1
    expected = (base.alpha_sigma(t)[0] - last) * first / (first - last)
    torch.testing.assert_close(process.alpha_sigma(t)[0], expected)
    with pytest.raises(ValueError, match="VPLinear"):
        ZeroTerminalSnr(base=LinearFlow())


def test_learned_schedules_meet_their_ends_and_learn() -> None:
    for config in (LearnedLinearConfig(), MonotoneConfig(hidden=32)):
        process = config.build()
        ends = process.logsnr(torch.tensor([0.0, 1.0], dtype=torch.float64))
        torch.testing.assert_close(ends.tolist(), [13.3, -5.0])
        t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
        process.logsnr_slope(t).square().sum().backward()
        for name, parameter in process.named_parameters():
            moves = name != "gamma_min"  # which moves the whole curve, not its slope
            assert parameter.grad is not None
            assert bool(parameter.grad.abs().sum() > 1e-9) == moves


def test_the_schedule_is_float64_until_it_meets_the_data() -> None:
    process, x = VPLinear(), torch.zeros(1, 2)
    t = torch.tensor([process.t_min])
    for like in (x, x.bfloat16(), x.double()):
        alpha, _ = process.at(t, like)
        assert alpha.shape == (1, 1)
        assert alpha.dtype == torch.promote_types(like.dtype, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert process.alpha_sigma(t.double())[1].dtype == torch.float64
        inner = MonotoneConfig(hidden=8).build().alpha_sigma(t.double())[0]
        assert inner.dtype == torch.float64


def test_ends_are_checked() -> None:
    with pytest.raises(ValueError, match="Raise t_min"):
        VPLinear(t_min=0.0)
    with pytest.raises(ValueError, match="sigma_min"):
        type(FULL["ve"])(sigma_min=2.0, sigma_max=1.0)
