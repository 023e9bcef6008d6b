"""Solvers against closed forms: order, agreement, moments, identities, the batch."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from oracles import FULL, GAUSS, PAIR, SMOOTH, Mixture, begin, exact_flow, walk
from torch import Tensor

from ldm.diffusion import (
    VE,
    AdaptiveRk45,
    Ancestral,
    Ddim,
    DpmSolverPP2M,
    DpmSolverPP2S,
    Euler,
    EulerMaruyama,
    FixedLarge,
    Heun,
    KarrasGrid,
    LadderStep,
    Langevin,
    LearnedLogit,
    LearnedRange,
    LinearChain,
    LinearFlow,
    LinspaceGrid,
    LogSnrGrid,
    Noise,
    PredictorCorrector,
    ReverseDiffusion,
    ShiftedGrid,
    SigmaFrame,
    SignalFrame,
    SnrStep,
    Solver,
    Stay,
    TrailingGrid,
    UniformGrid,
    UniPC,
    VPCosine,
    VPLinear,
    invert,
    sample,
    trajectory,
)
from ldm.diffusion.prediction import Denoised
from ldm.diffusion.stochastic import score_of

ORDERS: dict[str, tuple[Solver, Any, float]] = {
    "ddim": (Ddim(), LogSnrGrid(), 1),
    "euler": (Euler(), UniformGrid(), 1),
    "euler-sigma": (Euler(frame=SigmaFrame()), LogSnrGrid(), 1),
    "heun": (Heun(), UniformGrid(), 2),
    "heun-sigma": (Heun(frame=SigmaFrame()), LogSnrGrid(), 2),
    "heun-signal": (Heun(frame=SignalFrame()), LogSnrGrid(), 2),
    "2m": (DpmSolverPP2M(), LogSnrGrid(), 2),
    "2s": (DpmSolverPP2S(), LogSnrGrid(), 2),
    "unipc1": (UniPC(order=1), LogSnrGrid(), 2),
    "unipc2": (UniPC(order=2), LogSnrGrid(), 3),
    "unipc3": (UniPC(order=3), LogSnrGrid(), 3),
}
STOCHASTIC: dict[str, Solver] = {
    "ddim1": Ddim(eta=1.0),
    "small": Ancestral(),
    "large": Ancestral(variance=FixedLarge()),
    "2m-sde": DpmSolverPP2M(eta=1.0),
    "2s-sde": DpmSolverPP2S(eta=1.0),
    "maruyama": EulerMaruyama(),
    "reverse": ReverseDiffusion(),
    "corrector": PredictorCorrector(corrector=Langevin(step_size=LadderStep(epsilon=1e-5))),
    "churn": Heun(frame=SigmaFrame(), churn=0.1),
}
EVERY: dict[str, Solver] = {
    **{name: case[0] for name, case in ORDERS.items()},
    **STOCHASTIC,
    "rk45": AdaptiveRk45(rtol=1e-3, atol=1e-3),
}


def error(solver: Solver, grid: Any, process: Any, n: int) -> float:
    """Distance of the solver from the exact flow of a Gaussian, at the end of the grid."""
    times = grid(process, n + 1)
    x, noise = begin(process, times, range(3))
    found = walk(GAUSS.bind(process), process, solver, times, x, noise)
    return (found - exact_flow(GAUSS, process, x, times[:1], times[-1:])).abs().max().item()


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("case", ORDERS)
def test_order_of_convergence(case: str, name: str) -> None:
    solver, grid, theory = ORDERS[case]
    coarse, fine = (error(solver, grid, SMOOTH[name], n) for n in (40, 80))
    order = math.log2(coarse / fine)
    assert order > theory - 0.2
    assert order < theory + 0.2 or theory == 3  # a linear field can be kinder to high orders


@pytest.mark.parametrize("name", SMOOTH)
def test_adaptive_rk45_keeps_its_tolerance(name: str) -> None:
    for tolerance in (1e-4, 1e-8):
        solver = AdaptiveRk45(rtol=tolerance, atol=tolerance)
        assert error(solver, UniformGrid(), SMOOTH[name], 1) < 20 * tolerance


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


@pytest.mark.parametrize("name", ["cosine", "subvp", "ve", "edm", "flow"])
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


class SharedNoise(Noise):
    """One generator for all items: faster where thousands are wanted."""

    def __init__(self, draws: torch.Generator, b: int) -> None:
        super().__init__([0])
        self.draws, self.b = draws, b

    def normal(self, shape: Any, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(self.b, *shape, generator=self.draws, dtype=dtype)


def test_ddim_with_eta_one_and_all_steps_is_ddpm() -> None:
    """Seed for seed, against the loop of 2006.11239 algorithm 2 with beta-tilde."""
    chain = LinearChain(num_steps=50)
    times = LinspaceGrid(num_steps=50)(chain, 50)
    x, noise = begin(chain, times, range(3))
    found = sample(PAIR.bind(chain), chain, Ddim(eta=1.0), times, x, noise)
    ours = sample(PAIR.bind(chain), chain, Ancestral(), times, x, _after_start(3))
    beta = chain.betas()
    abar = (1 - beta).cumprod(0)
    noise = _after_start(3)
    for i in range(49, 0, -1):
        eps = PAIR.denoise(chain, x, torch.full((3,), (i + 1) / 50).double()).eps
        mean = (x - beta[i] / (1 - abar[i]).sqrt() * eps) / (1 - beta[i]).sqrt()
        small = (1 - abar[i - 1]) / (1 - abar[i]) * beta[i]
        x = mean + small.sqrt() * noise.normal((2,), torch.float64)
    eps = PAIR.denoise(chain, x, torch.full((3,), 1 / 50).double()).eps
    x = (x - beta[0].sqrt() * eps) / (1 - beta[0]).sqrt()
    torch.testing.assert_close(found, x, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours, found, rtol=1e-10, atol=1e-10)


def _after_start(b: int) -> Noise:
    noise = Noise(range(b))
    noise.normal((2,), torch.float64)
    return noise


def _one_step(solver: Solver, denoise: Any, process: Any, t: float, s: float) -> tuple[Tensor, ...]:
    """x, the step's result, and the noise that it used."""
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    times = [torch.full((3,), v, dtype=torch.float64) for v in (t, s)]
    found, _ = solver.step(denoise, process, x, *times, solver.init(), Noise(range(3)))
    return x, found, Noise(range(3)).normal((2,), torch.float64)


def test_fixed_large_is_ddims_sigma_hat() -> None:
    """2010.02502 section 5.1: noise sqrt(1 - abar/abar'), direction still that of eta = 1."""
    chain = LinearChain(num_steps=50)
    abar_t, abar = (chain.alpha_sigma(torch.tensor(v).double())[0].square() for v in (0.6, 0.5))
    for solver, hat in ((Ancestral(variance=FixedLarge()), True), (Ancestral(), False)):
        x, found, z = _one_step(solver, PAIR.bind(chain), chain, 0.6, 0.5)
        x0, eps, _ = PAIR.denoise(chain, x, torch.full((3,), 0.6).double())
        wide = (1 - abar_t / abar).sqrt()
        s = ((1 - abar) / (1 - abar_t)).sqrt() * wide
        expected = abar.sqrt() * x0 + (1 - abar - s**2).sqrt() * eps + (wide if hat else s) * z
        torch.testing.assert_close(found, expected)


def test_ddim_formula_at_any_eta() -> None:
    """2010.02502 eq. 12 and 16."""
    chain, eta = LinearChain(num_steps=50), 0.6
    abar_t, abar = (chain.alpha_sigma(torch.tensor(v).double())[0].square() for v in (0.6, 0.5))
    x, found, z = _one_step(Ddim(eta=eta), PAIR.bind(chain), chain, 0.6, 0.5)
    x0, eps, _ = PAIR.denoise(chain, x, torch.full((3,), 0.6).double())
    s = eta * ((1 - abar) / (1 - abar_t) * (1 - abar_t / abar)).sqrt()
    torch.testing.assert_close(found, abar.sqrt() * x0 + (1 - abar - s**2).sqrt() * eps + s * z)


@pytest.mark.parametrize("nu", [-1.0, 0.0, 1.0])
def test_learned_range_lies_between_the_two(nu: float) -> None:
    """2102.09672 eq. 15: log variance is nu log beta + (1 - nu) log beta-tilde, nu = (aux+1)/2."""
    chain = LinearChain(num_steps=50)

    def denoise(x: Tensor, t: Tensor) -> Denoised:
        return PAIR.denoise(chain, x, t)._replace(aux=torch.full_like(x, nu))

    steps = []
    for variance in (LearnedRange(), FixedLarge(), None):
        solver = Ancestral(variance=variance) if variance else Ancestral()
        mean = _one_step(Ddim(eta=1.0), denoise, chain, 0.6, 0.5)[1]
        z = _one_step(solver, denoise, chain, 0.6, 0.5)[2]
        small = chain.posterior_std(torch.tensor([0.6]), torch.tensor([0.5]))
        steps.append((_one_step(solver, denoise, chain, 0.6, 0.5)[1] - mean) / z + small)
    learned, large, small = (step.mean().log() for step in steps)
    share = (nu + 1) / 2
    torch.testing.assert_close(learned, share * large + (1 - share) * small)


def test_learned_variances_need_their_channels() -> None:
    for variance in (LearnedRange(), LearnedLogit()):
        with pytest.raises(ValueError, match="VarianceHead"):
            _one_step(Ancestral(variance=variance), PAIR.bind(VPLinear()), VPLinear(), 0.6, 0.5)


def test_learned_logit_starts_at_beta() -> None:
    """1503.03585's covariance: an answer of zero is the forward variance."""
    chain = LinearChain(num_steps=50)
    t, s = torch.tensor([0.6]).double(), torch.tensor([0.5]).double()
    found = PAIR.denoise(chain, torch.zeros(1, 2).double(), t)._replace(aux=torch.zeros(1, 2))
    log_variance = LearnedLogit(num_steps=50)(chain, found, t, s).double()
    beta = chain.conditional_variance(t, s).log().expand(1, 2)
    torch.testing.assert_close(log_variance, beta, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_picture_i_of_seven_is_picture_i_alone(name: str) -> None:
    process, solver = VPCosine(), EVERY[name]
    times = KarrasGrid()(process, 5)
    x, noise = begin(process, times, range(7))
    together = sample(PAIR.bind(process), process, solver, times, x, noise)
    x, noise = begin(process, times, range(4, 5))
    alone = sample(PAIR.bind(process), process, solver, times, x, noise)
    torch.testing.assert_close(together[4:5], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in EVERY if name != "corrector"])
def test_the_last_evaluation_adds_no_noise(name: str) -> None:
    process, solver = VPCosine(), EVERY[name]
    times = UniformGrid()(process, 1)
    x, noise = begin(process, times, range(2))
    found = sample(PAIR.bind(process), process, solver, times, x, noise)
    expected = PAIR.denoise(process, x, times.repeat(2)).x0
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("solver", [Ddim(), Euler(), Heun(), DpmSolverPP2M(), Ddim(eta=1.0)])
def test_flow_samples_from_pure_noise(solver: Solver) -> None:
    """t_max = 1, where alpha is 0: nothing divides by it."""
    process = LinearFlow(t_max=1.0)
    times = ShiftedGrid()(process, 12)
    x, noise = begin(process, times, range(64))
    found = sample(GAUSS.bind(process), process, solver, times, x, noise)
    assert found.isfinite().all()
    assert (found.mean(0) - torch.tensor(GAUSS.means[0])).abs().max() < 0.3


def test_ddim_is_eulers_method_for_flow_and_for_edm() -> None:
    for name, frames in (("flow", (Euler(), Euler(frame=SigmaFrame()))), ("edm", (Euler(),))):
        process = SMOOTH[name]
        times = UniformGrid()(process, 6)
        x, noise = begin(process, times, range(3))
        ddim = sample(PAIR.bind(process), process, Ddim(), times, x, noise)
        for euler in frames:
            found = sample(PAIR.bind(process), process, euler, times, x, noise)
            torch.testing.assert_close(found, ddim, rtol=1e-10, atol=1e-10)


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


def test_the_score_is_that_of_the_data() -> None:
    process, t = VPCosine(), torch.full((3,), 0.4).double()
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    exact = torch.autograd.grad(PAIR.log_prob(process, x, t).sum(), x)[0]
    torch.testing.assert_close(score_of(process, PAIR.denoise(process, x, t), t), exact)


def test_inversion_returns_and_its_error_falls_with_steps() -> None:
    process, errors = VPCosine(t_min=0.01), []
    x0 = PAIR.draw(5, torch.Generator().manual_seed(1), torch.float64)
    for n in (20, 40, 80):
        times = LogSnrGrid()(process, n)
        noise = Noise(range(5))
        x_T = invert(PAIR.bind(process), process, Ddim(), times, x0, noise)
        back = sample(PAIR.bind(process), process, Ddim(), times, x_T, noise)
        errors.append((back - x0).square().mean().sqrt().item())
    assert errors[0] > 1.6 * errors[1] > 2.5 * errors[2]
    assert errors[2] < 0.05


def test_every_step_can_be_seen() -> None:
    process = VPCosine()
    times = TrailingGrid(num_steps=100)(process, 10)
    x, noise = begin(process, times, range(2))
    moments = list(trajectory(PAIR.bind(process), process, Ddim(), times, x, noise))
    assert [m.step for m in moments] == list(range(10))
    first = PAIR.denoise(process, x, times[:1].repeat(2))
    torch.testing.assert_close(moments[0].x0, first.x0)
    assert torch.equal(moments[-1].x, moments[-1].x0)


def test_the_loop_is_short() -> None:
    lines = inspect.getsource(inspect.unwrap(trajectory)).splitlines()
    assert len(lines) <= 18  # decorator, signature and docstring included
