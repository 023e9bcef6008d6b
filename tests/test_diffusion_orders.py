"""Solvers against closed forms: order, agreement at one sample, moments, Langevin."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from oracles import FULL, GAUSS, PAIR, SMOOTH, Mixture, begin, exact_flow, walk
from solver_cases import ORDERS, STOCHASTIC, SharedNoise
from torch import Tensor

from ldm.diffusion import (
    VE,
    AdaptiveRk45,
    Ddim,
    DpmSolverPP2M,
    DpmSolverPP2S,
    Heun,
    LadderStep,
    Langevin,
    LogSnrGrid,
    PredictorCorrector,
    SignalFrame,
    SnrStep,
    Solver,
    Stay,
    UniformGrid,
    UniPC,
    sample,
)


@functools.cache
def truth(name: str, start: float, end: float) -> Tensor:
    """The flow of PAIR from one time to another, to 1e-11, from the three points of `begin`."""
    times = torch.tensor([start, end], dtype=torch.float64)
    return reach(AdaptiveRk45(rtol=1e-12, atol=1e-12), name, times)


def reach(solver: Solver, name: str, times: Tensor, data: Mixture = PAIR) -> Tensor:
    """Where a solver stands at the end of the grid, before its last evaluation: [3 2]."""
    process = SMOOTH[name]
    x, noise = begin(process, times, range(3))
    return walk(data.bind(process), process, solver, times, x, noise)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("case", ORDERS)
def test_order_of_convergence(case: str, name: str) -> None:
    """Within 0.2 of theory, on a mixture, whose flow is not linear."""
    solver, grid, theory = ORDERS[case]
    errors = []
    for n in (40, 80):
        times = grid(SMOOTH[name], n + 1)
        exact = truth(name, times[0].item(), times[-1].item())
        errors.append((reach(solver, name, times) - exact).abs().max().item())
    assert abs(math.log2(errors[0] / errors[1]) - theory) < 0.2


@pytest.mark.parametrize("name", SMOOTH)
def test_adaptive_rk45_keeps_its_tolerance(name: str) -> None:
    """Against the closed form of a Gaussian."""
    process = SMOOTH[name]
    times = UniformGrid()(process, 2)
    x, _ = begin(process, times, range(3))
    exact = exact_flow(GAUSS, process, x, times[:1], times[-1:])
    for tolerance in (1e-6, 1e-8):
        solver = AdaptiveRk45(rtol=tolerance, atol=tolerance)
        assert (reach(solver, name, times, GAUSS) - exact).abs().max() < 20 * tolerance


@pytest.mark.parametrize("name", FULL)
def test_every_ode_solver_meets_at_one_sample(name: str) -> None:
    """On a mixture and over the whole range, from one noise to one picture."""
    process = FULL[name]
    times = LogSnrGrid()(process, 90)
    x, noise = begin(process, times, range(4))
    oracle = PAIR.bind(process)
    meet = sample(oracle, process, AdaptiveRk45(), times[[0, -1]], x, noise)
    for solver in (DpmSolverPP2M(), DpmSolverPP2S(), UniPC(), Heun(frame=SignalFrame())):
        found = sample(oracle, process, solver, times, x, noise)
        assert (found - meet).abs().max() < 0.02, solver
    first = sample(oracle, process, Ddim(), LogSnrGrid()(process, 300), x, noise)
    torch.testing.assert_close(first, meet, rtol=0, atol=0.08)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("solver", STOCHASTIC)
def test_moments_of_the_stochastic_solvers(solver: str, name: str) -> None:
    """Mean 0.7, -0.4 and standard deviation 0.5, within Monte-Carlo error and the step's bias."""
    process, b = SMOOTH[name], 2000
    times = LogSnrGrid()(process, 60)
    draws = torch.Generator().manual_seed(2)
    shared = SharedNoise(draws, b)
    x0 = GAUSS.draw(b, draws, torch.float64)
    eps = torch.randn(b, 2, generator=draws, dtype=torch.float64)
    x = process.perturb(x0, times[0].repeat(b), eps)
    found = walk(GAUSS.bind(process), process, STOCHASTIC[solver], times, x, shared)
    alpha, sigma = (v.item() for v in process.alpha_sigma(times[-1]))
    std = math.sqrt((alpha * 0.5) ** 2 + sigma**2)
    for i, mean in enumerate(GAUSS.means[0]):
        assert abs(found[:, i].mean() - alpha * mean) < 4.5 * std / b**0.5 + 0.01
        assert abs(found[:, i].std() / std - 1) < 4 / (2 * b) ** 0.5 + 0.03


TOY = Mixture(weights=(0.8, 0.2), means=((5.0, 5.0), (-5.0, -5.0)), stds=(1.0, 1.0))


def test_annealed_langevin_restores_the_weights_of_a_mixture() -> None:
    """1907.05600 section 3.2.2 and figure 3: plain Langevin from anywhere does not."""
    process, b = VE(sigma_min=0.1, sigma_max=20.0), 600
    draws = torch.Generator().manual_seed(0)
    x = 16 * torch.rand(b, 2, generator=draws, dtype=torch.float64) - 8
    noise = SharedNoise(draws, b)
    ladder = Langevin(step_size=LadderStep(epsilon=0.002), num_steps=30)
    annealed = PredictorCorrector(predictor=Stay(), corrector=ladder)
    times = UniformGrid()(process, 12)
    found = sample(TOY.bind(process), process, annealed, times, x, noise)
    plain = Langevin(step_size=LadderStep(epsilon=2.0), num_steps=300)
    stuck = plain(TOY.bind(process), process, x, torch.zeros(b).double(), noise)
    assert abs((found.sum(1) > 0).double().mean() - 0.8) < 0.07
    assert abs((stuck.sum(1) > 0).double().mean() - 0.5) < 0.12


def test_langevin_is_stationary_at_the_variance_of_its_convention() -> None:
    """x += a s + sqrt(2a) z on N(0, V) settles at V/(1 - a/(2V)), exactly."""
    process, b = VE(sigma_min=0.5, sigma_max=2.0), 20_000
    unit = Mixture(weights=(1.0,), means=((0.0,),), stds=(0.5,))
    variance, step = 0.5, 0.2
    noise = SharedNoise(torch.Generator().manual_seed(5), b)
    langevin = Langevin(step_size=LadderStep(epsilon=step), num_steps=30)
    x = noise.normal((1,), torch.float64) * variance**0.5
    found = langevin(unit.bind(process), process, x, torch.zeros(b).double(), noise)
    expected = variance / (1 - step / (2 * variance))
    assert abs(found.var().item() / expected - 1) < 4 * (2 / b) ** 0.5


def test_snr_step_is_the_published_length() -> None:
    """2011.13456 algorithm 5: 2 (r |z|/|g|)^2, of each item."""
    score, z = torch.full((2, 3), 2.0), torch.full((2, 3), 3.0)
    score[1] *= 2
    step = SnrStep(snr=0.5)(VE(), torch.zeros(2), score, z)
    torch.testing.assert_close(step.flatten(), torch.tensor([2 * 0.75**2, 2 * 0.375**2]))
