"""Training on bounds: decoders, the hybrid, VDM."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from oracles import GAUSS, PAIR, oracle
from torch import Tensor
from wrong_nets import Wrong, data, draws

from ldm.diffusion import (
    Denoiser,
    Discrete,
    DiscretizedGaussian,
    Elbo,
    ElboVariance,
    Eps,
    FixedSmall,
    GaussianDecoder,
    LearnedLinearConfig,
    LearnedRange,
    LinearChain,
    MonotoneConfig,
    Mse,
    SoftmaxDecoder,
    Sum,
    VarianceHead,
    Vlb,
)
from ldm.diffusion.objective import Drawn


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


def _interior_gradient(process: Any, loss: Tensor) -> Tensor:
    found = torch.autograd.grad(loss, process.interior(), retain_graph=True)
    return torch.cat([gradient.flatten() for gradient in found])


def test_the_interiors_gradient_is_twice_each_loss_times_its_own() -> None:
    """2107.00630 appendix I.2: grad L^2 = 2 L grad L, item by item."""
    torch.manual_seed(0)
    process = MonotoneConfig(gamma_min=-6.0, gamma_max=4.0, hidden=4).build()
    denoiser = oracle(PAIR, process, Eps())
    bits = Elbo(decoder=GaussianDecoder())(denoiser, data(4), None, draws())["loss"]
    square = ElboVariance()(denoiser, data(4), None, draws())["loss"]
    by_item = [
        2 * size.sqrt().detach() * _interior_gradient(process, bit)
        for size, bit in zip(square, bits, strict=True)
    ]
    found = _interior_gradient(process, square.mean())
    torch.testing.assert_close(found, torch.stack(by_item).mean(0), rtol=1e-6, atol=1e-9)


def test_training_the_interior_lowers_the_variance_and_leaves_the_bound() -> None:
    """2107.00630 section 5.1, from a schedule that is far from a good one."""
    torch.manual_seed(0)
    process = MonotoneConfig(gamma_min=-6.0, gamma_max=4.0, hidden=8).build()
    with torch.no_grad():
        process.inner.mul_(8)
    denoiser = oracle(PAIR, process, Eps())

    def bits() -> Tensor:
        return Elbo(decoder=GaussianDecoder())(denoiser, data(1500), None, draws())["diffusion"]

    before = bits()
    optimiser = torch.optim.Adam(process.interior(), lr=0.1)
    for step in range(30):
        loss = ElboVariance()(denoiser, data(64, step), None, draws(step))["loss"].mean()
        gradients = torch.autograd.grad(loss, process.interior())
        for parameter, gradient in zip(process.interior(), gradients, strict=True):
            parameter.grad = gradient
        optimiser.step()
    after = bits()
    assert after.var() < 0.8 * before.var()
    error = ((after.var() + before.var()) / len(after)).sqrt()
    assert (after.mean() - before.mean()).abs() < 4 * error
    assert process.gamma_min.item() == -6.0 and process.gamma_range.item() == 10.0
