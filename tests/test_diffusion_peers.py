"""Peers as oracles: one tiny network and one noise, through our solvers and through theirs."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from oracles import PAIR
from torch import Tensor, nn

from ldm.diffusion import (
    AdaptiveRk45,
    Ancestral,
    Ddim,
    Denoiser,
    DpmSolverPP2M,
    Edm,
    Eps,
    Euler,
    FixedLarge,
    Heun,
    KarrasGrid,
    LeadingGrid,
    LinearChain,
    LinearFlow,
    LinspaceGrid,
    LogSnrGrid,
    Noise,
    QuadraticGrid,
    ScaledTime,
    ShiftedGrid,
    SigmaFrame,
    Solver,
    TrailingGrid,
    UniformGrid,
    UniPC,
    V,
    VPCosine,
    sample,
)
from ldm.diffusion.step import velocity

CHAIN = LinearChain()


class TinyNet(nn.Module):
    """A smooth function of picture and step, with random weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor, cond: Any = None) -> Tensor:
        late = (time / 1000).view(-1, 1, 1, 1).to(x.dtype)
        return 0.8 * x * late + 0.3 * self.second(torch.tanh(self.first(x) + late))


def peer(name: str, **options: Any) -> Any:
    diffusers = pytest.importorskip("diffusers")
    common = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
    return getattr(diffusers, name)(**common, **options)


def theirs(scheduler: Any, x: Tensor, net: nn.Module, in_sigma: bool, seed: int = 7) -> Tensor:
    """Their loop. In sigma space their x is ours over alpha."""
    draws = torch.Generator().manual_seed(seed)
    first = CHAIN.alpha_sigma((scheduler.timesteps[:1].double() + 1) / 1000)[0].item()
    x = x / first if in_sigma else x
    takes_noise = "generator" in inspect.signature(scheduler.step).parameters
    stochastic = {"generator": draws} if takes_noise else {}
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t) if in_sigma else x
        with torch.no_grad():
            eps = net(scaled, torch.as_tensor(t).float().view(1))
        x = scheduler.step(eps, t, x, **stochastic).prev_sample
    return x


def ours(solver: Solver, timesteps: Tensor, x: Tensor, net: nn.Module, seed: int = 7) -> Tensor:
    denoiser = Denoiser(net, CHAIN, Eps(), time_embed=ScaledTime(scale=1000.0, shift=-1.0))
    times = (timesteps.double() + 1) / 1000
    return sample(denoiser.bind(), CHAIN, solver, times, x, Noise([seed]))


Case = tuple[str, dict[str, Any], bool, Solver]
UNCLIPPED = {"clip_sample": False}
SDE = {"algorithm_type": "sde-dpmsolver++"}
CASES: dict[str, Case] = {
    "ddpm": ("DDPMScheduler", {"variance_type": "fixed_small", **UNCLIPPED}, False, Ancestral()),
    "ddpm-large": (
        "DDPMScheduler",
        {"variance_type": "fixed_large", **UNCLIPPED},
        False,
        Ancestral(variance=FixedLarge()),
    ),
    "ddim": ("DDIMScheduler", UNCLIPPED, False, Ddim()),
    "euler": ("EulerDiscreteScheduler", {}, True, Euler(frame=SigmaFrame())),
    "euler-is-ddim": ("EulerDiscreteScheduler", {}, True, Ddim()),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}, True, Ddim(eta=1.0)),
    "heun": ("HeunDiscreteScheduler", {}, True, Heun(frame=SigmaFrame())),
    "2m": ("DPMSolverMultistepScheduler", {}, False, DpmSolverPP2M()),
    "2m-sde": ("DPMSolverMultistepScheduler", SDE, False, DpmSolverPP2M(eta=1.0)),
    "unipc": ("UniPCMultistepScheduler", {}, False, UniPC(order=2)),
}


@pytest.mark.parametrize("case", CASES)
def test_trajectories_are_those_of_diffusers(case: str) -> None:
    """Same network, same noise, same steps: 1e-4 in float32.

    Their Euler and Heun walk x/alpha by sigma/alpha, hence SigmaFrame; their second evaluation
    repeats a time, which our grid holds once.
    """
    name, options, in_sigma, solver = CASES[case]
    scheduler = peer(name, timestep_spacing="leading", **options)
    scheduler.set_timesteps(10)
    net = TinyNet()
    x = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    steps = torch.unique(torch.as_tensor(scheduler.timesteps)).flip(0)
    expected = theirs(scheduler, x, net, in_sigma)
    found = ours(solver, steps, x, net)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_grids_are_those_of_diffusers() -> None:
    for spacing, grid in (
        ("leading", LeadingGrid()),
        ("trailing", TrailingGrid()),
    ):
        for n in (7, 10, 50):
            scheduler = peer("DDIMScheduler", timestep_spacing=spacing)
            scheduler.set_timesteps(n)
            found = grid(CHAIN, n) * 1000 - 1
            torch.testing.assert_close(found, scheduler.timesteps.double(), rtol=0, atol=1e-9)


def test_the_other_grids_are_the_published_formulas() -> None:
    """2102.09672's code, 2010.02502 appendix D.2, 2206.00927 section 3.3, 2403.03206 eq. 23."""
    steps = LinspaceGrid()(CHAIN, 7) * 1000 - 1
    expected = [round(i * 999 / 6) for i in range(7)]  # both ends; a stride that is not whole
    torch.testing.assert_close(steps.flip(0).tolist(), [float(i) for i in expected])
    steps = QuadraticGrid()(CHAIN, 20) * 1000 - 1
    expected = [int((i * 800**0.5 / 19) ** 2) for i in range(20)]
    assert (steps.flip(0) - torch.tensor(expected)).abs().max() <= 1  # where i^2 c is whole
    gaps = VPCosine().logsnr(LogSnrGrid()(VPCosine(), 9)).diff()
    torch.testing.assert_close(gaps, gaps[:1].expand(8))
    flow = LinearFlow()
    even = torch.linspace(1, 0, 5, dtype=torch.float64)
    found = ShiftedGrid(shift=3.0)(LinearFlow(t_min=1e-9, t_max=1.0), 5)
    torch.testing.assert_close(found, 3 * even / (1 + 2 * even), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(ShiftedGrid(shift=1.0)(flow, 5), UniformGrid()(flow, 5))
    for grid in (LinspaceGrid(), QuadraticGrid(), LogSnrGrid(), ShiftedGrid(), UniformGrid()):
        process = flow if isinstance(grid, ShiftedGrid) else CHAIN
        times = grid(process, 12)
        assert times.dtype == torch.float64 and (times.diff() < 0).all()


def test_adaptive_rk45_agrees_with_scipy() -> None:
    integrate = pytest.importorskip("scipy.integrate")
    for process in (VPCosine(t_min=0.01), LinearFlow()):
        x = torch.tensor([[0.4, -1.2]], dtype=torch.float64)
        denoise, ends = PAIR.bind(process), (process.t_max, process.t_min)

        def rate(t: float, y: Any, denoise: Any = denoise, process: Any = process) -> Any:
            time = torch.tensor([t], dtype=torch.float64)
            return velocity(process, denoise(torch.tensor(y)[None], time), time)[0].numpy()

        peer_x = integrate.solve_ivp(rate, ends, x[0].numpy(), rtol=1e-7, atol=1e-7).y[:, -1]
        solver = AdaptiveRk45(rtol=1e-7, atol=1e-7)
        t, s = (torch.tensor([v], dtype=torch.float64) for v in ends)
        found, _ = solver.step(denoise, process, x, t, s, None, Noise([0]))
        torch.testing.assert_close(found[0], torch.tensor(peer_x), rtol=0, atol=1e-5)


def test_karras_grid_and_heun_are_edms_algorithms() -> None:
    """2206.00364 eq. 5 and algorithm 2, churn and all, written out."""
    process, n = Edm(), 8
    i = torch.arange(n, dtype=torch.float64)
    sigmas = (80 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    times = KarrasGrid(rho=7.0)(process, n)
    torch.testing.assert_close(times, sigmas, rtol=1e-9, atol=1e-12)
    noise = Noise([3])
    x = sigmas[0] * noise.normal((2,), torch.float64)
    solver = Heun(churn=0.3, churn_range=(0.05, 50.0), churn_noise=1.01)
    found = sample(PAIR.bind(process), process, solver, times, x, noise)
    noise = Noise([3])
    noise.normal((2,), torch.float64)
    for now, after in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        gamma = 0.3 if 0.05 <= now <= 50.0 else 0.0
        hat = now * (1 + gamma)
        if after > 0:
            z = 1.01 * noise.normal((2,), torch.float64)
            x = x + (hat**2 - now**2) ** 0.5 * z
        else:
            hat = now  # the last evaluation is plain here; EDM's S_tmin does the same
        d = (x - PAIR.denoise(process, x, hat[None]).x0) / hat
        moved = x + (after - hat) * d
        if after > 0:
            end = (moved - PAIR.denoise(process, moved, after[None]).x0) / after
            moved = x + (after - hat) * (d + end) / 2
        x = moved
    torch.testing.assert_close(found, x, rtol=1e-7, atol=1e-7)


def test_v_networks_are_read_as_diffusers_reads_them() -> None:
    scheduler = peer("DDIMScheduler", prediction_type="v_prediction", clip_sample=False)
    scheduler.set_timesteps(5)
    net, x = TinyNet(), torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    expected = theirs(scheduler, x, net, in_sigma=False)
    denoiser = Denoiser(net, CHAIN, V(), time_embed=ScaledTime(scale=1000.0, shift=-1.0))
    times = (scheduler.timesteps.double() + 1) / 1000
    found = sample(denoiser.bind(), CHAIN, Ddim(), times, x, Noise([0]))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
