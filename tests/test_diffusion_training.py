"""Training: times, weightings, simple objectives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracles import GAUSS, PAIR
from wrong_nets import Wrong, data, draws

from ldm.diffusion import (
    P2,
    X0,
    Antithetic,
    Denoiser,
    Discrete,
    Edm,
    ElboWeight,
    Eps,
    EpsUnit,
    Flow,
    Karras,
    Likelihood,
    LinearChain,
    LinearFlow,
    LogitNormal,
    LogNormalSigma,
    LossSecondMoment,
    MinSnr,
    Mse,
    Prediction,
    Score,
    SlicedScoreMatching,
    Uniform,
    V,
    VPCosine,
    VPLinear,
)
from ldm.diffusion.objective import Drawn
from ldm.diffusion.times import Times


@pytest.mark.parametrize(
    "times",
    [
        Uniform(),
        Antithetic(),
        Discrete(num_steps=10),
        LogitNormal(),
        LogNormalSigma(),
        LossSecondMoment(num_steps=10).build(),
    ],
    ids=lambda t: type(t).__name__,
)
def test_times_lie_in_range_and_follow_their_generator(times: Times) -> None:
    for process in (VPLinear(), Edm()):
        t, weight = times(process, 50, draws())
        assert t.dtype == torch.float64 and t.shape == weight.shape == (50,)
        assert ((t >= process.t_min) & (t <= process.t_max)).all()
        torch.testing.assert_close(weight, torch.ones_like(weight))
        assert torch.equal(t, times(process, 50, draws())[0])
        assert not torch.equal(t, times(process, 50, draws(1))[0])


def test_times_have_their_distributions() -> None:
    process, n = VPLinear(), 4000
    even = Antithetic()(process, n, draws())[0].sort().values
    gaps = even.diff() * n / (process.t_max - process.t_min)
    torch.testing.assert_close(gaps, torch.ones_like(gaps))
    chain = LinearChain(num_steps=10)
    steps = Discrete(num_steps=10)(chain, n, draws())[0] * 10
    torch.testing.assert_close(steps, steps.round())
    assert set(steps.round().int().tolist()) == set(range(1, 11))
    sigma = LogNormalSigma(mean=-1.2, std=1.2)(Edm(), n, draws())[0].log()
    assert abs(sigma.mean() + 1.2) < 0.08 and abs(sigma.std() - 1.2) < 0.05
    logit = torch.logit((LogitNormal(mean=0.5, std=0.7)(process, n, draws())[0] - 1e-3) / 0.999)
    assert abs(logit.mean() - 0.5) < 0.05 and abs(logit.std() - 0.7) < 0.03


@pytest.mark.parametrize("weighting", [EpsUnit(), ElboWeight(), MinSnr(), P2()], ids=str)
def test_a_weighting_means_the_same_in_every_space(weighting: Any) -> None:
    process = VPCosine()
    denoiser = Denoiser(Wrong(process, V()), process, V())
    spaces: list[Prediction] = [Eps(), X0(), V(), Flow(), Score(), Karras()]
    losses = [
        Mse(weighting=weighting, space=space)(denoiser, data(), None, draws())["loss"]
        for space in spaces
    ]
    for loss in losses[1:]:
        torch.testing.assert_close(loss, losses[0], rtol=1e-8, atol=1e-10)


def test_weightings_are_the_published_ones() -> None:
    process, t = VPCosine(), torch.linspace(0.05, 0.9, 9, dtype=torch.float64)
    snr = process.logsnr(t).exp()
    torch.testing.assert_close(MinSnr(gamma=5.0)(process, X0(), t), snr.clamp(max=5.0))
    torch.testing.assert_close(MinSnr(gamma=5.0)(process, V(), t), snr.clamp(max=5.0) / (snr + 1))
    torch.testing.assert_close(P2(k=2.0, gamma=0.5)(process, Eps(), t), (2 + snr) ** -0.5)
    elbo = ElboWeight()(process, Eps(), t)
    torch.testing.assert_close(Likelihood()(process, Eps(), t), 2 * elbo)
    # 2107.00630 eq. 17: -SNR'(t)/2 on x0, by finite differences
    h = 1e-6
    slope = (process.logsnr(t + h).exp() - process.logsnr(t - h).exp()) / (2 * h)
    torch.testing.assert_close(ElboWeight()(process, X0(), t), -slope / 2, rtol=1e-5, atol=1e-6)
    # 2206.00364 table 1: weight (sigma^2 + s^2)/(sigma s)^2 on x0 is one on F
    sigma = torch.tensor([0.3, 2.0], dtype=torch.float64)
    det = Karras(sigma_data=0.5).determinant(Edm(), sigma).square()
    x0_det = X0().determinant(Edm(), sigma).square()
    torch.testing.assert_close(det / x0_det, (sigma**2 + 0.25) / (0.5 * sigma) ** 2)


def test_simple_loss_is_ddpms() -> None:
    """2006.11239 eq. 14, from the same generator by hand; the sample by Vincent's identity."""
    process = LinearChain()
    denoiser = Denoiser(Wrong(process, Eps()), process, Eps())
    x0 = data()
    terms = Mse(times=Discrete())(denoiser, x0, None, draws())
    generator = draws()
    t, _ = Discrete()(process, len(x0), generator)
    eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    abar = process.alpha_sigma(t)[0].square()[:, None]
    x = abar.sqrt() * x0 + (1 - abar).sqrt() * eps
    expected = (0.8 * PAIR.denoise(process, x, t).eps - eps).square().mean(1)
    torch.testing.assert_close(terms["loss"], expected, rtol=1e-6, atol=1e-8)
    assert terms["loss"].shape == (64,) and terms["loss"].requires_grad


def test_flow_matching_target_is_noise_minus_data() -> None:
    process = LinearFlow()
    denoiser = Denoiser(Wrong(process, Flow()), process, Flow())
    drawn = Drawn(denoiser, None, data(4), torch.ones(4, 2).double(), torch.rand(4).double() / 2)
    found = Mse().terms(drawn, draws())["loss"]
    velocity = denoiser.raw(drawn.x_t, drawn.t, None)
    expected = (velocity - (drawn.eps - drawn.x0)).square().mean(1)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def test_sliced_score_matching_finds_the_true_score() -> None:
    """Lowest at the truth, where sigma^2 (|s|^2/2 + tr) is -sigma^2/(2 V) a dimension."""
    process, b = VPCosine(), 6000
    x0 = GAUSS.draw(b, draws(), torch.float64)
    means = []
    for factor in (1.0, 0.7, 1.3):
        net = Wrong(process, Eps(), factor)
        net.net.data = GAUSS
        denoiser = Denoiser(net, process, Eps())
        t = torch.full((b,), 0.5).double()
        eps = torch.randn(b, 2, generator=draws(1), dtype=torch.float64)
        loss = SlicedScoreMatching().terms(Drawn(denoiser, None, x0, eps, t), draws(2))["loss"]
        means.append(loss.mean())
    alpha, sigma = process.alpha_sigma(torch.tensor(0.5).double())
    exact = -(sigma**2) / (2 * (0.25 * alpha**2 + sigma**2))
    assert abs(means[0] - exact) < 0.02
    assert means[0] < min(means[1:])
    means[1].backward()
    assert net.factor.grad is None  # of the last network
    assert SlicedScoreMatching()(denoiser, x0[:8], None, draws())["loss"].requires_grad
