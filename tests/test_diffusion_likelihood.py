"""Likelihoods: the flow against closed forms, bounds that are exact on Gaussians, whole models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from oracles import GAUSS, PAIR, Mixture
from torch import Tensor

from ldm.diffusion import (
    VE,
    Denoised,
    Edm,
    ExactTrace,
    FixedSmall,
    FlowLikelihood,
    GaussianDecoder,
    GaussianTrace,
    LearnedLinearConfig,
    LinearFlow,
    LogSnrGrid,
    Noise,
    Process,
    RademacherTrace,
    SubVP,
    UniformGrid,
    VPCosine,
    VPLinear,
    bits_per_dim,
    continuous_bound,
    discrete_bound,
    latent_bound,
    progressive,
)
from ldm.diffusion.bounds import gaussian_kl
from ldm.diffusion.likelihood import Trace
from ldm.diffusion.process import per_item
from ldm.diffusion.variance import Variance

# Ends noisy enough that the prior N(0, sigma^2) is the marginal to 1e-4 nats.
WIDE: dict[str, Process] = {
    "vp": VPLinear(beta_max=60.0),
    "subvp": SubVP(beta_max=60.0, t_min=0.01),
    "ve": VE(sigma_min=0.002, sigma_max=20_000.0),
    "edm": Edm(t_min=0.002, t_max=20_000.0),
    "flow": LinearFlow(t_max=0.99999),
}


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("data", [GAUSS, PAIR], ids=["gauss", "mixture"])
def test_flow_likelihood_to_a_thousandth_of_a_nat(data: Mixture, name: str) -> None:
    process = WIDE[name]
    x0 = data.draw(3, torch.Generator().manual_seed(0), torch.float64)
    t = torch.full((3,), process.t_min, dtype=torch.float64)
    likelihood = FlowLikelihood(trace=ExactTrace(), rtol=1e-6, atol=1e-6)
    found = likelihood(data.bind(process), process, x0, Noise(range(3)))
    torch.testing.assert_close(found, data.log_prob(process, x0, t), rtol=0, atol=1e-3)


def test_hutchinsons_estimates_are_the_trace_on_average() -> None:
    matrix = torch.tensor(
        [[1.0, 2.0, 0.0], [0.5, -3.0, 1.0], [0.0, 4.0, 0.7]],
        dtype=torch.float64,
    )
    x = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    for trace, tolerance in (
        (ExactTrace(), 1e-12),
        (RademacherTrace(num_probes=4000), 0.35),
        (GaussianTrace(num_probes=4000), 0.5),
    ):
        probes = trace.probes(x, Noise([0, 1]))
        found = trace(x @ matrix.T, x, probes)
        torch.testing.assert_close(found, torch.full_like(found, -1.3), rtol=0, atol=tolerance)
    diagonal: Trace = RademacherTrace()
    probes = diagonal.probes(x, Noise([0, 1]))
    exact = diagonal(x * torch.tensor([1.0, 2.0, 3.0]), x, probes)
    torch.testing.assert_close(exact, torch.full_like(exact, 6.0))  # exact on a diagonal


def test_one_items_likelihood_does_not_depend_on_the_batch() -> None:
    process = VPCosine()
    x0 = PAIR.draw(4, torch.Generator().manual_seed(0), torch.float64)
    likelihood = FlowLikelihood()
    together = likelihood(PAIR.bind(process), process, x0, Noise(range(4)))
    alone = likelihood(PAIR.bind(process), process, x0[2:3], Noise([2]))
    torch.testing.assert_close(together[2:3], alone, rtol=1e-8, atol=1e-8)


# --- bounds: expectations taken exactly, by Gauss-Hermite nodes of x0 and eps in one dimension

MEAN, STD = 0.7, 0.5
LINE = Mixture(weights=(1.0,), means=((MEAN,),), stds=(STD,))
NODES = torch.tensor([-(3**0.5), 0.0, 3**0.5], dtype=torch.float64)
WEIGHTS = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64)
X0_NODES = (MEAN + STD * NODES).repeat_interleave(3)[:, None]  # [9 1]
SHARE = (WEIGHTS[:, None] * WEIGHTS[None]).flatten()


class Nodes(Noise):
    """Noise whose nine rows are the nodes: means over them are exact for squares."""

    def __init__(self) -> None:
        super().__init__(range(9))

    def normal(self, shape: Any, dtype: torch.dtype = torch.float32) -> Tensor:
        return NODES.repeat(3)[:, None].to(dtype)


def posterior_variance(process: Process, t: Tensor) -> Tensor:
    """Var(x0 | x_t) of the Gaussian data: [b] -> [b]."""
    return STD**2 / (1 + STD**2 * process.logsnr(t).exp())


@dataclass(frozen=True, kw_only=True)
class Optimal(Variance):
    """The exact variance of p(x_s | x_t) for the Gaussian data: makes the bound tight."""

    def __call__(self, process: Process, denoised: Denoised, t: Tensor, s: Tensor) -> Tensor:
        gain = process.alpha_sigma(s)[0] * -torch.expm1(process.logsnr(t) - process.logsnr(s))
        variance = process.posterior_std(t, s).square()
        variance = variance + gain.square() * posterior_variance(process, t)
        return per_item(variance.log(), denoised.x0)

    def first(self, process: Process, denoised: Denoised, t1: Tensor, t2: Tensor) -> Tensor:
        return per_item(posterior_variance(process, t1).log(), denoised.x0)


def marginal_gap(process: Process) -> float:
    """KL of the noised data's marginal at t_max from the prior, both Gaussian."""
    alpha, sigma = process.alpha_sigma(torch.tensor(process.t_max).double())
    variance = ((alpha * STD) ** 2 + sigma**2).log()
    return gaussian_kl(alpha * MEAN, variance, 0 * alpha, 2 * sigma.log()).item()


ENTROPY = 0.5 * math.log(2 * math.pi * math.e * STD**2)


@pytest.mark.parametrize("process", [VPLinear(), VPCosine(), LinearFlow(), Edm()], ids=str)
def test_the_discrete_bound_of_a_gaussian_is_exact(process: Process) -> None:
    """With the reverse chain's own variance the bound is the entropy, at any number of steps."""
    for n in (3, 9):
        times = LogSnrGrid()(process, n)
        bound = discrete_bound(
            LINE.bind(process), process, X0_NODES, times, Nodes(),
            variance=Optimal(), decoder=GaussianDecoder(),
        )
        found = (SHARE * bound.total).sum().item()
        assert abs(found - ENTROPY - marginal_gap(process)) < 1e-9


def test_the_discrete_bound_with_the_small_variance_is_the_brute_sum() -> None:
    """Each KL is (SNR_s - SNR_t)/2 of the posterior variance: 2107.00630 eq. 13."""
    process = VPLinear()
    times = UniformGrid()(process, 12)
    bound = discrete_bound(
        LINE.bind(process), process, X0_NODES, times, Nodes(),
        variance=FixedSmall(), decoder=GaussianDecoder(),
    )
    snr = process.logsnr(times).exp()
    expected = ((snr[1:] - snr[:-1]) / 2 * posterior_variance(process, times[:-1])).sum()
    torch.testing.assert_close((SHARE * bound.diffusion).sum(), expected, rtol=1e-8, atol=0)
    alpha, sigma = process.alpha_sigma(times[0])
    prior = alpha**2 * (MEAN**2 + STD**2) / (2 * sigma**2)
    torch.testing.assert_close((SHARE * bound.prior).sum(), prior)


def test_progressive_coding_of_a_gaussian_is_exact() -> None:
    """2006.11239 section 4.3: rate and distortion follow from the posterior variance, and the last
    rate is the bound without its reconstruction."""
    process = VPLinear()
    times = UniformGrid()(process, 12)
    denoise, small = LINE.bind(process), FixedSmall()
    found = progressive(denoise, process, X0_NODES, times, Nodes(), variance=small)
    assert found.rate.shape == found.distortion.shape == (12, 9)
    left = posterior_variance(process, times)
    torch.testing.assert_close(found.distortion @ SHARE, left)
    snr = process.logsnr(times).exp()
    steps = ((snr[1:] - snr[:-1]) / 2 * left[:-1]).cumsum(0)
    prior = snr[:1] * (MEAN**2 + STD**2) / 2
    torch.testing.assert_close(found.rate @ SHARE, torch.cat([prior, prior + steps]))
    bound = discrete_bound(
        denoise, process, X0_NODES, times, Nodes(), variance=small, decoder=GaussianDecoder()
    )
    torch.testing.assert_close(found.rate[-1] + bound.reconstruction, bound.total)


def test_the_discrete_bound_falls_to_the_continuous_one() -> None:
    """2107.00630 section 4.2; whose diffusion term is log((1+s^2 SNR_0)/(1+s^2 SNR_1))/2 here."""
    process = LearnedLinearConfig(gamma_min=-6.0, gamma_max=6.0).build()
    discrete = []
    with torch.no_grad():
        for n in (8, 32, 128):
            bound = discrete_bound(
                LINE.bind(process), process, X0_NODES, UniformGrid()(process, n), Nodes(),
                variance=FixedSmall(), decoder=GaussianDecoder(),
            )
            discrete.append((SHARE * bound.diffusion).sum().item())
        limit = continuous_bound(
            LINE.bind(process), process, X0_NODES, 100, Nodes(), decoder=GaussianDecoder()
        )
    ends = 1 + STD**2 * torch.tensor([6.0, -6.0]).double().exp()
    exact = (ends[0] / ends[1]).log().item() / 2
    assert abs((SHARE * limit.diffusion).sum().item() - exact) < 1e-3
    assert discrete[0] > discrete[1] > discrete[2] > exact
    assert discrete[2] < exact * 1.05
    recon = 0.5 * math.log(2 * math.pi * math.e) - 3.0  # entropy of z_0/alpha_0 given x0
    assert abs((SHARE * limit.reconstruction).sum().item() - recon) < 1e-6
    assert (SHARE * limit.total).sum() > ENTROPY


def test_bits_per_dimension() -> None:
    nats = torch.tensor([6 * math.log(2) * 3])
    torch.testing.assert_close(bits_per_dim(nats, 6), torch.tensor([3.0]))
    torch.testing.assert_close(bits_per_dim(nats, 6, 2 / 256), torch.tensor([10.0]))


def test_bits_of_a_whole_latent_model_are_exact_when_linear() -> None:
    """x = W z + noise with Gaussian z: encoder's terms and the flow give -log p(x), at any z."""
    d, noise_std = 3, 0.3
    draws = torch.Generator().manual_seed(4)
    w = torch.randn(d, 2, generator=draws, dtype=torch.float64)
    mean, scale = torch.tensor([0.2, -0.4]).double(), torch.tensor([1.5, 0.7]).double()
    normal = torch.distributions.MultivariateNormal
    prior = normal(mean, torch.diag(scale**2))
    marginal = normal(w @ mean, w @ torch.diag(scale**2) @ w.T + noise_std**2 * torch.eye(d))
    x = marginal.sample((4,)).double()
    precision = w.T @ w / noise_std**2 + torch.diag(scale**-2)
    covariance = torch.linalg.inv(precision)
    centre = (x @ w / noise_std**2 + mean / scale**2) @ covariance
    posterior = normal(centre, covariance)
    z = posterior.sample()
    process = VPLinear(beta_max=60.0)
    unit = Mixture(weights=(1.0,), means=((0.0, 0.0),), stds=(1.0,))
    flow = FlowLikelihood(trace=ExactTrace())
    latent = -flow(unit.bind(process), process, (z - mean) / scale, Noise(range(4)))
    rec = -normal(z @ w.T, noise_std**2 * torch.eye(d).double()).log_prob(x)
    bound = latent_bound(rec, posterior.log_prob(z), latent, scale.log().sum().item())
    exact = -marginal.log_prob(x)
    torch.testing.assert_close(bound.total, exact, rtol=0, atol=1e-3)
    assert prior.log_prob(z).shape == (4,)
    bits = bits_per_dim(bound.total, d)
    torch.testing.assert_close(bits, exact / (d * math.log(2)), rtol=0, atol=1e-3)
