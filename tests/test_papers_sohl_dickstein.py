"""Bits, learned betas and products: closed forms."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from ldm.diffusion import FixedLarge, FractionChain, Noise
from ldm.diffusion.binomial import BinomialChain, bernoulli_kl, binomial_bound
from ldm.diffusion.ends import FixedFirst
from ldm.diffusion.learned_chain import LearnedFractionConfig
from ldm.diffusion.prediction import Denoised
from ldm.diffusion.product import Factor, GaussianFactor, ProductAncestral, SmoothFactor
from ldm.papers.heartbeat import ENTROPY, Oracle, beats, periodic
from ldm.papers.products import MEAN, PRODUCT, VAR, ExpectedFactor, UnitGaussian
from ldm.papers.swiss_roll import GRID, RollDensity


def test_the_binomial_posterior_is_bayes_rule_over_whole_paths() -> None:
    chain = BinomialChain(num_steps=4)
    for x0, end in itertools.product((0.0, 1.0), repeat=2):
        for t in (1, 2, 3, 4):
            weight = {0.0: 0.0, 1.0: 0.0}
            for path in itertools.product((0.0, 1.0), repeat=t - 1):
                steps = (x0, *path, end)
                chance = 1.0
                for number, (a, b) in enumerate(itertools.pairwise(steps), start=1):
                    beta = 1 / (4 - number + 1)
                    chance *= (1 - beta) * (a == b) + beta / 2
                weight[steps[-2]] += chance
            found = chain.posterior(torch.tensor([[end]]), torch.tensor([[x0]]), torch.tensor([t]))
            assert found.item() == pytest.approx(weight[1.0] / sum(weight.values()))
            marginal = chain.chance(torch.tensor([[x0]]), torch.tensor([t])).item()
            kept = math.prod(1 - 1 / (4 - u + 1) for u in range(1, t + 1))
            assert marginal == pytest.approx(kept * x0 + (1 - kept) / 2)


def test_the_kl_of_coins() -> None:
    q, p = torch.tensor([0.0, 0.3, 1.0]).double(), torch.tensor([0.2, 0.3, 0.2]).double()
    wanted = torch.tensor([-math.log(0.8), 0.0, -math.log(0.2)]).double()
    torch.testing.assert_close(bernoulli_kl(q, p), wanted)


def test_with_exact_beliefs_the_bound_comes_near_the_entropy_from_above() -> None:
    found = []
    for steps in (5, 60):
        chain = BinomialChain(num_steps=steps)
        x0 = beats().repeat(40, 1)
        nats = binomial_bound(chain, Oracle(chain), x0, torch.Generator().manual_seed(0)).sum(0)
        bits = nats / math.log(2)
        found.append((bits.mean().item(), bits.std().item() / len(bits) ** 0.5))
    (few, few_error), (many, many_error) = found
    assert few > ENTROPY + 3 * few_error
    assert ENTROPY - 3 * many_error < many < ENTROPY + 0.3


def test_only_whole_beats_are_periodic() -> None:
    broken = beats().clone()
    broken[0, 0] = 0.0
    assert periodic(beats()) == 1.0 and periodic(broken) == pytest.approx(0.8)


def test_learned_betas_start_as_the_fixed_ones_and_all_but_the_first_learn() -> None:
    chain, fixed = LearnedFractionConfig(num_steps=10).build(), FractionChain(num_steps=10)
    t = torch.linspace(0.1, 1, 10, dtype=torch.float64)
    torch.testing.assert_close(chain.logsnr(t).detach(), fixed.logsnr(t))
    with torch.no_grad():
        chain.shift.add_(1.0)
    assert (chain.betas()[1:] > fixed.betas()[1:]).all()
    assert chain.betas()[0].item() == pytest.approx(fixed.betas()[0].item())
    chain.logsnr(t)[-1].backward()
    assert chain.shift.grad is not None and (chain.shift.grad < 0).all()


def test_the_first_variance_is_the_forward_step() -> None:
    chain = FractionChain()
    t1, t2 = torch.tensor([1 / 40.0]).double(), torch.tensor([2 / 40.0]).double()
    found = FixedFirst(later=FixedLarge()).first(chain, Denoised(*[torch.zeros(1, 2)] * 2), t1, t2)
    assert found.exp().item() == pytest.approx(1e-3)


def law(factor: Factor) -> tuple[float, float]:
    """Mean and variance of the chain of N(0, 1) under a factor, step by affine step: no draws."""
    process = FractionChain()
    solver = ProductAncestral(factor=factor, variance=FixedFirst(later=FixedLarge()))
    denoise, times = UnitGaussian(process), GRID(process, 40)
    first = factor(torch.zeros(1, 1).double(), process.at(times[:1], torch.zeros(1, 1).double())
                   .sigma.square(), times[:1])
    mean, variance = first[0].item(), first[1].item()

    class Silent(Noise):
        def normal(self, shape: object, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.full((3, 1), float(self.level), dtype=dtype)

        level = 0.0

    quiet, loud = Silent([0, 0, 0]), Silent([0, 0, 0])
    loud.level = 1.0
    x = torch.tensor([[0.0], [1.0], [2.0]]).double()
    for t, s in itertools.pairwise(times):
        at, to = t.repeat(3), s.repeat(3)
        moved = solver.step(denoise, process, x, at, to, None, quiet)[0]
        noisy = solver.step(denoise, process, x, at, to, None, loud)[0]
        slope = (moved[1] - moved[0]).item()
        mean = moved[0].item() + slope * mean
        variance = slope**2 * variance + (noisy[0] - moved[0]).item() ** 2
    last = solver.finish(denoise, process, x, times[-1].repeat(3), quiet)
    slope = (last[1] - last[0]).item()
    return last[0].item() + slope * mean, slope**2 * variance


def test_a_product_with_the_expected_factor_is_exact() -> None:
    mean, variance = law(ExpectedFactor(FractionChain()))
    assert mean == pytest.approx(PRODUCT[0], abs=2e-3)
    assert variance == pytest.approx(PRODUCT[1], abs=3e-3)  # the last draw, of 1e-3, is a mean


def test_a_constant_factor_counts_r_twice() -> None:
    """Small steps are Langevin's with the gradient of log r doubled: stationary N(0.8, 0.2)."""
    mean, variance = law(GaussianFactor(mean=MEAN, variance=VAR))
    assert mean == pytest.approx(0.8, abs=0.02) and variance == pytest.approx(0.2, abs=0.02)


def test_a_smooth_factor_is_the_gaussian_one_in_small_steps() -> None:
    mean, small = torch.full((1, 1), 0.3).double(), torch.full((1, 1), 1e-6).double()
    s = torch.zeros(1).double()
    smooth = SmoothFactor(log_r=lambda x, t: (-(x - MEAN).square() / (2 * VAR)).sum(1))
    exact = GaussianFactor(mean=MEAN, variance=VAR)
    shift = [(factor(mean, small, s)[0] - mean).item() for factor in (smooth, exact)]
    assert shift[0] == pytest.approx(shift[1], rel=1e-4) and shift[0] > 0


def test_the_density_of_the_roll_is_one_in_all() -> None:
    side = torch.linspace(-4, 4, 161, dtype=torch.float64)
    points = torch.cartesian_prod(side, side)
    density = RollDensity(angles=800).log_prob(points).exp()
    assert density.sum().item() * 0.05**2 == pytest.approx(1.0, abs=1e-3)
