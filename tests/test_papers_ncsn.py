"""Parts of the NCSN study: exact scores of mixtures, annealed Langevin step by step, its norm."""

from __future__ import annotations

import pytest
import torch
from networks_cases import perturbed
from oracles import FULL
from oracles import Mixture as Oracle

from ldm.data.toys import Mixture
from ldm.diffusion import VE, Noise, Process, UniformGrid
from ldm.diffusion.repeated import RepeatedGrid
from ldm.networks.refinenet import InstanceNormPlus
from ldm.papers.exact import Exact
from ldm.papers.halves import Halves, beats_controls
from ldm.papers.measures import DigitJudge
from ldm.papers.ncsn_toy import SOLVER, share

DATA = Mixture(means=((1.0, 0.5), (-0.8, -0.6)), weights=(0.3, 0.7), std=0.4)


@pytest.mark.parametrize("process", FULL.values(), ids=FULL)
def test_the_exact_score_is_the_gradient_of_the_exact_density(process: Process) -> None:
    exact = Exact(DATA, process)
    x = torch.randn(3, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([process.t_max, (process.t_min + process.t_max) / 2, process.t_max / 3])
    x.requires_grad_()
    gradient = torch.autograd.grad(exact.log_prob(x, t).sum(), x)[0]
    torch.testing.assert_close(exact.score(x, t), gradient)
    x0, eps, _ = exact(x, t)
    alpha, sigma = process.at(t, x)
    torch.testing.assert_close(alpha * x0 + sigma * eps, x.detach())


def test_clouds_are_judged_as_single_points_are() -> None:
    """Against the oracle of the diffusion tests, which takes points one by one."""
    process = VE(sigma_min=0.1, sigma_max=5.0)
    oracle = Oracle(weights=DATA.weights, means=DATA.means, stds=(DATA.std,) * 2)
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    t = torch.full((6,), 0.4, dtype=torch.float64)
    exact = Exact(DATA, process)
    torch.testing.assert_close(exact.log_prob(x[None], t[:1])[0], oracle.log_prob(process, x, t))
    torch.testing.assert_close(exact(x[None], t[:1]).x0[0], oracle.denoise(process, x, t).x0)


def test_the_repeated_grid_is_the_ladder_one_step_at_a_time() -> None:
    """1907.05600 algorithm 1: T steps at each of L levels, geometric in sigma."""
    ladder = VE(sigma_min=0.01, sigma_max=1.0)
    times = RepeatedGrid(base=UniformGrid(), repeats=3)(ladder, 9)
    sigma = ladder.alpha_sigma(times)[1]
    expected = torch.tensor([1.0] * 3 + [0.1] * 3 + [0.01] * 3, dtype=torch.float64)
    torch.testing.assert_close(sigma, expected)
    with pytest.raises(ValueError, match="multiple"):
        RepeatedGrid(base=UniformGrid(), repeats=3)(ladder, 10)
    with pytest.raises(ValueError, match="1 or more"):
        RepeatedGrid(base=UniformGrid(), repeats=0)


def test_langevin_at_one_level_has_the_noised_gaussian_as_its_law() -> None:
    """x += h s + sqrt(2 h) z with s = -x/V settles at the variance V/(1 - h/(2 V)), exactly."""
    ladder = VE(sigma_min=1.0, sigma_max=20.0)
    exact = Exact(Mixture(means=((0.0, 0.0),), weights=(1.0,), std=1.0), ladder)
    x, t, noise = torch.zeros(1, 20_000, 2), torch.tensor([0.0]).double(), Noise([0])
    for _ in range(200):
        x, _ = SOLVER.step(exact, ladder, x, t, t, None, noise)
    step, variance = SOLVER.corrector.step_size.epsilon, 2.0  # type: ignore[attr-defined]
    assert x.var().item() == pytest.approx(variance / (1 - step / (2 * variance)), rel=0.03)


def test_instance_norm_plus_is_the_published_formula() -> None:
    """gamma (h - m)/s + beta + alpha (m - mean m)/std m, 1907.05600 appendix A.1."""
    norm = perturbed(InstanceNormPlus(4, 6))
    draws = torch.Generator().manual_seed(0)
    h, time = torch.randn(2, 4, 3, 3, generator=draws), torch.randn(2, 6, generator=draws)
    gamma, alpha, beta = norm.modulation(torch.nn.functional.elu(time)).chunk(3, dim=1)
    found = norm(h, time)
    for b in range(2):
        means = torch.stack([h[b, k].mean() for k in range(4)])
        for k in range(4):
            normal = (h[b, k] - means[k]) / h[b, k].std(correction=0)
            spread = (means[k] - means.mean()) / means.std()
            expected = (1 + gamma[b, k]) * normal + (1 + alpha[b, k]) * spread + beta[b, k]
            torch.testing.assert_close(found[b, k], expected, rtol=1e-3, atol=1e-3)


def test_halves_know_the_left_and_take_the_right_from_elsewhere() -> None:
    whole = torch.randn(3, 1, 8, 8)
    halves = Halves(whole, torch.arange(3), DigitJudge(None))
    other = torch.zeros_like(whole)
    filled = halves.filled(other)
    assert torch.equal(filled[..., :4], whole[..., :4]) and (filled[..., 4:] == 0).all()
    assert halves.exact(filled) and not halves.exact(other)


def test_a_true_half_beats_the_controls_and_a_mismatched_one_does_not() -> None:
    halves = [Halves.of_test_digits(150, seed) for seed in (0, 1)]
    true = [h.measured(h.whole) for h in halves]
    assert beats_controls(true)
    mismatched = [h.measured(h.filled(h.whole.roll(2, 0))) for h in halves]
    assert not beats_controls(mismatched)
    assert all(run["the digit itself"][0] > 0.9 for run in true)


def test_the_share_counts_points_nearer_to_the_first_mode() -> None:
    assert share(torch.tensor([[5.0, 5.0], [4.0, -3.0], [-5.0, -5.0], [-1.0, 0.5]])) == 0.5
