"""Training: times, weightings, objectives, variational bounds."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from oracles import GAUSS, PAIR, OracleNet, oracle
from torch import Tensor, nn

from ldm.diffusion import (
    P2,
    X0,
    Antithetic,
    Denoiser,
    Discrete,
    DiscretizedGaussian,
    Edm,
    Elbo,
    ElboVariance,
    ElboWeight,
    Eps,
    EpsUnit,
    FixedSmall,
    Flow,
    GaussianDecoder,
    Karras,
    LearnedLinearConfig,
    LearnedRange,
    Likelihood,
    LinearChain,
    LinearFlow,
    LogitNormal,
    LogNormalSigma,
    LossSecondMoment,
    MinSnr,
    MonotoneConfig,
    Mse,
    Prediction,
    Process,
    Score,
    SlicedScoreMatching,
    SoftmaxDecoder,
    Sum,
    Uniform,
    V,
    VarianceHead,
    Vlb,
    VPCosine,
    VPLinear,
)
from ldm.diffusion.objective import Drawn
from ldm.diffusion.times import Times


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Wrong(nn.Module):
    """An oracle that errs: it shrinks what it should say, so that losses are not zero."""

    def __init__(self, process: Process, prediction: Prediction, factor: float = 0.8) -> None:
        super().__init__()
        self.net = OracleNet(PAIR, process, prediction)
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))
        self.nu = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.two = False

    def forward(self, x: Tensor, time: Tensor, cond: Any) -> Tensor:
        y = self.factor * self.net(x, time, cond)
        return torch.cat([y, self.nu.expand_as(y)], dim=1) if self.two else y


def data(b: int = 64, seed: int = 3) -> Tensor:
    return PAIR.draw(b, draws(seed), torch.float64)


@pytest.mark.parametrize(
    "times",
    [
        Uniform(),
        Antithetic(),
        Discrete(num_steps=10),
        LogitNormal(),
        LogNormalSigma(),
        LossSecondMoment(num_steps=10),
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


def test_loss_second_moment_draws_by_root_mean_square_without_bias() -> None:
    """2102.09672 eq. 18; uniform until every step has its history."""
    process, times = LinearChain(num_steps=4), LossSecondMoment(num_steps=4, history=3)
    t = (torch.arange(4) + 1).double() / 4
    loss = torch.tensor([1.0, 2.0, 3.0, 10.0]).double()
    for round_ in range(5):
        times(process, 1, draws())
        times.update(t, loss * (1 if round_ >= 2 else 100))
        even = torch.full((4,), 0.25).double()
        if round_ < 2:
            torch.testing.assert_close(times.probabilities(), even)
    torch.testing.assert_close(times.probabilities(), 0.999 * loss / 16 + 0.001 * even)
    drawn, weight = times(process, 40_000, draws())
    values = loss[(drawn * 4).round().long() - 1]
    assert abs((weight * values).mean() - loss.mean()) < 0.02
    assert times.state_dict()["losses"].shape == (4, 3)


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


@pytest.mark.parametrize("decoder", [DiscretizedGaussian(levels=256), SoftmaxDecoder(levels=256)])
@pytest.mark.parametrize(("mean", "std"), [(0.1, 0.02), (-0.99, 0.3), (0.7, 0.001)])
def test_decoders_are_probabilities(decoder: Any, mean: float, std: float) -> None:
    values = torch.linspace(-1, 1, 256, dtype=torch.float64)
    log_variance = torch.full_like(values, 2 * math.log(std)).requires_grad_()
    nats = decoder(values, torch.full_like(values, mean), log_variance)
    torch.testing.assert_close(torch.exp(-nats).sum().item(), 1.0, rtol=1e-6, atol=0)
    nats[:3].sum().backward()
    assert log_variance.grad is not None and log_variance.grad.isfinite().all()


def test_discretized_gaussian_is_the_integral_of_the_bin() -> None:
    normal = torch.distributions.Normal(torch.tensor(0.1), torch.tensor(0.05))
    x0 = torch.tensor([2 * 140 / 255 - 1])
    expected = normal.cdf(x0 + 1 / 255) - normal.cdf(x0 - 1 / 255)
    log_variance = torch.tensor([2 * math.log(0.05)])
    nats = DiscretizedGaussian()(x0, torch.tensor([0.1]), log_variance)
    torch.testing.assert_close(torch.exp(-nats), expected, rtol=1e-4, atol=0)


def hybrid(num_steps: int, stop_mean: bool = True) -> tuple[Denoiser, Sum, Vlb]:
    process = LinearChain(num_steps=num_steps)
    net = Wrong(process, Eps())
    net.two = True
    vlb = Vlb(num_steps=num_steps, stop_mean=stop_mean, decoder=GaussianDecoder())
    times = Discrete(num_steps=num_steps)
    parts = ((1.0, Mse()), (0.001, vlb))
    return Denoiser(net, process, Eps(), head=VarianceHead()), Sum(parts=parts, times=times), vlb


def test_the_hybrid_weighs_a_sampled_step_by_t_over_1000() -> None:
    """2102.09672 eq. 16: 0.001 of the *sum* of L_t; for one step of T that is T/1000 of L_t."""
    num_steps, i = 40, 17
    denoiser, objective, _ = hybrid(num_steps)
    x0, eps = data(5), torch.randn(5, 2, generator=draws(), dtype=torch.float64)
    t = torch.full((5,), (i + 1) / num_steps, dtype=torch.float64)
    found = objective.terms(Drawn(denoiser, None, x0, eps, t), draws())["loss"]
    betas = denoiser.process.betas()
    abar = (1 - betas).cumprod(0)
    x = abar[i].sqrt() * x0 + (1 - abar[i]).sqrt() * eps
    guess = 0.8 * PAIR.denoise(denoiser.process, x, t).eps
    small = betas[i] * (1 - abar[i - 1]) / (1 - abar[i])
    nu = (0.3 + 1) / 2
    wide = torch.exp(nu * betas[i].log() + (1 - nu) * small.log())
    back = (1 - betas[i]).sqrt()

    def mean(e: Tensor) -> Tensor:
        return (x - betas[i] / (1 - abar[i]).sqrt() * e) / back

    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(
        normal(mean(eps), small.sqrt().expand_as(x)), normal(mean(guess), wide.sqrt().expand_as(x))
    )
    bits = kl.mean(1) / math.log(2)
    expected = (guess - eps).square().mean(1) + num_steps / 1000 * bits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_the_stopped_mean_learns_from_the_simple_loss_alone() -> None:
    x0 = data(16)
    for stop in (True, False):
        denoiser, _, vlb = hybrid(40, stop)
        drawn = Drawn(denoiser, None, x0, torch.ones_like(x0), torch.full((16,), 0.5).double())
        vlb.terms(drawn, draws())["loss"].sum().backward()
        net: Any = denoiser.network
        assert net.nu.grad.abs() > 0
        assert bool(net.factor.grad is None or net.factor.grad == 0) == stop


def test_the_first_step_of_the_bound_is_the_decoder() -> None:
    denoiser, _, vlb = hybrid(40)
    x0 = data(3)
    drawn = Drawn(denoiser, None, x0, torch.ones_like(x0), torch.full((3,), 1 / 40).double())
    found = vlb.terms(drawn, draws())["loss"]
    chain, t, s = denoiser.process, torch.full((3,), 2 / 40).double(), drawn.t
    log_variance = LearnedRange()(chain, drawn.denoised, t, s)
    nats = GaussianDecoder()(x0, drawn.denoised.x0, log_variance).mean(1)
    torch.testing.assert_close(found, 40 * nats / math.log(2))


def test_vdms_discrete_loss_is_the_bound_with_the_small_variance() -> None:
    """2107.00630 eq. 13: T/2 expm1(lambda_s - lambda_t) |eps - eps_hat|^2."""
    process = LinearChain(num_steps=20)
    denoiser = Denoiser(Wrong(process, Eps()), process, Eps())
    x0, t = data(4), torch.full((4,), 0.5).double()
    drawn = Drawn(denoiser, None, x0, torch.ones_like(x0), t)
    vlb = Vlb(num_steps=20, variance=FixedSmall(), decoder=GaussianDecoder())
    found = vlb.terms(drawn, draws())["loss"]
    rise = torch.expm1(process.logsnr(t - 0.05) - process.logsnr(t))
    expected = 10 * rise * (drawn.eps - drawn.denoised.eps).square().mean(1) / math.log(2)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_vdms_loss_does_not_depend_on_the_interior_of_the_schedule() -> None:
    """2107.00630 section 5: the closed form at every schedule, within standard errors."""
    snr = torch.tensor([8.0, -4.0], dtype=torch.float64).exp()
    exact = torch.log2((1 + snr[0] / 4) / (1 + snr[1] / 4)).item() / 2  # of variance 1/4
    results = []
    for seed, config in enumerate(
        (LearnedLinearConfig, MonotoneConfig, MonotoneConfig)
    ):
        torch.manual_seed(seed)
        process: Any = config(gamma_min=-8.0, gamma_max=4.0).build()
        if config is MonotoneConfig:
            with torch.no_grad():
                process.inner.mul_(4 + 8 * seed)  # far from a line
        denoiser = oracle(GAUSS, process, Eps())
        x0 = GAUSS.draw(6000, draws(9), torch.float64)
        with torch.no_grad():
            terms = Elbo(decoder=GaussianDecoder())(denoiser, x0, None, draws())
        diffusion = terms["diffusion"]
        results.append((diffusion.mean().item(), diffusion.std().item() / 6000**0.5))
        torch.testing.assert_close(
            terms["loss"], terms["prior"] + diffusion + terms["reconstruction"]
        )
    for mean, spread in results:
        assert abs(mean - exact) < 4 * spread
        assert spread < 0.15


def test_the_interior_learns_from_the_square_and_the_ends_from_the_bound() -> None:
    torch.manual_seed(0)
    process = MonotoneConfig(gamma_min=-6.0, gamma_max=4.0, hidden=8).build()
    denoiser = oracle(PAIR, process, Eps())
    bound = Elbo(decoder=GaussianDecoder())(denoiser, data(32), None, draws())
    square = ElboVariance()(denoiser, data(32), None, draws())["loss"]
    torch.testing.assert_close(square, bound["diffusion"].square())
    bound["loss"].mean().backward(inputs=process.ends())
    square.mean().backward(inputs=process.interior())
    for parameter in denoiser.parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0


def test_importance_weights_multiply_the_loss() -> None:
    process = LinearChain(num_steps=4)
    denoiser = Denoiser(Wrong(process, Eps()), process, Eps())
    times = LossSecondMoment(num_steps=4, history=1)
    times.update((torch.arange(4) + 1).double() / 4, torch.tensor([1.0, 2.0, 3.0, 10.0]))
    times(process, 1, draws())
    times.update((torch.arange(4) + 1).double() / 4, torch.tensor([1.0, 2.0, 3.0, 10.0]))
    plain = times.probabilities().clone()
    terms = Mse(times=times)(denoiser, data(8), None, draws())
    drawn = torch.multinomial(plain, 8, replacement=True, generator=draws())
    torch.testing.assert_close(terms["loss"], terms["mse"] / (4 * plain[drawn]))
    assert int(times.counts.sum()) == 8 + 8  # it heard the losses
