"""Solvers: identities between methods, independence of the batch, the loop."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from oracles import GAUSS, PAIR, SMOOTH, begin
from solver_cases import EVERY
from torch import Tensor

from ldm.diffusion import (
    Ancestral,
    Ddim,
    DpmSolverPP2M,
    Euler,
    FixedLarge,
    Heun,
    KarrasGrid,
    LearnedLogit,
    LearnedRange,
    LinearChain,
    LinearFlow,
    LinspaceGrid,
    LogSnrGrid,
    Noise,
    ShiftedGrid,
    SigmaFrame,
    Solver,
    TrailingGrid,
    UniformGrid,
    VPCosine,
    VPLinear,
    invert,
    sample,
    slerp,
    trajectory,
)
from ldm.diffusion.prediction import Denoised
from ldm.diffusion.stochastic import score_of


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


def test_slerp_is_an_arc_that_keeps_the_length_of_noise() -> None:
    """2010.02502 eq. 67; a straight line between two noises is shorter in the middle."""
    first, second = (Noise([seed, seed + 9]).normal((3, 8, 8), torch.float64) for seed in (1, 2))
    share = torch.tensor([0.3, 0.5], dtype=torch.float64)
    found = slerp(first, second, share)
    for a, b, x, part in zip(first, second, found, share, strict=True):
        theta = torch.acos((a * b).sum() / (a.norm() * b.norm()))
        expected = torch.sin((1 - part) * theta) * a + torch.sin(part * theta) * b
        torch.testing.assert_close(x, expected / theta.sin())
    assert (found.flatten(1).norm(dim=1) / first.flatten(1).norm(dim=1) - 1).abs().max() < 0.1
    assert ((first + second) / 2).flatten(1).norm() < 0.8 * first.flatten(1).norm()
    torch.testing.assert_close(slerp(first, second, torch.tensor([0.0, 1.0]))[1], second[1])
    torch.testing.assert_close(slerp(first, second, torch.tensor([0.0, 1.0]))[0], first[0])
    torch.testing.assert_close(slerp(first, 2 * first, share)[0], 1.3 * first[0])  # one direction


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
