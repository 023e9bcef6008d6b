"""Every row of the table of methods: one training step and three sampling steps each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ldm.diffusion import (
    VE,
    X0,
    AdaptiveRk45,
    Ancestral,
    Antithetic,
    CosineChain,
    Ddim,
    Denoiser,
    Discrete,
    DpmSolverPP2M,
    Edm,
    Elbo,
    Eps,
    EulerMaruyama,
    FixedSmall,
    Flow,
    FractionChain,
    GaussianDecoder,
    Heun,
    JumpingGrid,
    KarrasGrid,
    LadderStep,
    Langevin,
    LearnedLinearConfig,
    LearnedLogit,
    LearnedRange,
    LinearChain,
    LinearFlow,
    LinspaceGrid,
    LogitNormal,
    LogNormalSigma,
    LogSnrGrid,
    LogSnrTime,
    LossSecondMoment,
    Mask,
    MinSnr,
    MonotoneConfig,
    Mse,
    Noise,
    PredictorCorrector,
    PreviousMean,
    PreviousMeanShift,
    Process,
    QuadraticGrid,
    Replacing,
    Resampling,
    ReverseDiffusion,
    ScaledLinearChain,
    Score,
    ShiftedGrid,
    SlicedScoreMatching,
    SnrStep,
    StandardInput,
    Stay,
    SubVP,
    Sum,
    TrailingGrid,
    UniformGrid,
    UniPC,
    V,
    VarianceHead,
    Vlb,
    VPCosine,
    VPLinear,
    ZeroTerminalSnr,
    sample,
    start,
)
from ldm.diffusion import Karras as KarrasPrediction


class TinyNet(nn.Module):
    """[b 4] -> [b 4 k]: two layers that see the time."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 16), nn.Linear(16, 4 * k)

    def forward(self, x: Tensor, time: Tensor, cond: Any) -> Tensor:
        together = torch.cat([x, time[:, None] / 1000], dim=1)
        out: Tensor = self.second(torch.tanh(self.first(together)))
        return out


@dataclass
class Row:
    process: Process
    prediction: Any
    objective: Any
    grid: Any
    solver: Any
    options: dict[str, Any] = field(default_factory=dict)


def _hybrid(steps: int) -> Sum:
    vlb = Vlb(num_steps=steps, stop_mean=True)
    return Sum(parts=((1.0, Mse()), (0.001, vlb)), times=Discrete(num_steps=steps))


TWO = {"head": VarianceHead()}
ROWS: dict[str, Row] = {
    "sohl-dickstein": Row(
        FractionChain(num_steps=40), PreviousMeanShift(num_steps=40),
        Vlb(num_steps=40, variance=LearnedLogit(), decoder=GaussianDecoder(),
            times=Discrete(num_steps=40)),
        LinspaceGrid(num_steps=40), Ancestral(variance=LearnedLogit()), TWO,
    ),
    "ncsn": Row(
        VE(sigma_min=0.01, sigma_max=1.0), Score(),
        SlicedScoreMatching(times=Discrete(num_steps=10)), UniformGrid(),
        PredictorCorrector(
            predictor=Stay(), corrector=Langevin(step_size=LadderStep(), num_steps=2)),
    ),
    "ddpm": Row(LinearChain(), Eps(), Mse(times=Discrete()), LinspaceGrid(), Ancestral()),
    "ddpm-mean": Row(
        LinearChain(), PreviousMean(), Mse(times=Discrete()), LinspaceGrid(), Ancestral()),
    "improved-ddpm": Row(
        LinearChain(), Eps(), _hybrid(1000), LinspaceGrid(),
        Ancestral(variance=LearnedRange()), TWO,
    ),
    "ddim": Row(LinearChain(), Eps(), Mse(times=Discrete()), QuadraticGrid(), Ddim(eta=0.5)),
    "score-sde-ve": Row(
        VE(), Score(), Mse(space=Eps()), UniformGrid(),
        PredictorCorrector(corrector=Langevin(step_size=SnrStep())),
    ),
    "score-sde-vp": Row(VPLinear(), Eps(), Mse(), UniformGrid(), EulerMaruyama()),
    "score-sde-subvp": Row(SubVP(), Eps(), Mse(), UniformGrid(), ReverseDiffusion()),
    "score-sde-ode": Row(
        VPLinear(t_min=0.02), Eps(), Mse(), UniformGrid(), AdaptiveRk45(rtol=0.1, atol=0.1)),
    "vdm": Row(
        LearnedLinearConfig().build(), Eps(), Elbo(times=Antithetic()), UniformGrid(), Ancestral(),
        {"time_embed": LogSnrTime()},
    ),
    "vdm-monotone": Row(
        MonotoneConfig(hidden=8).build(), Eps(), Elbo(), UniformGrid(), Ancestral(),
        {"time_embed": LogSnrTime()},
    ),
    "latent": Row(
        ScaledLinearChain(), Eps(), Mse(times=Discrete()), LogSnrGrid(), DpmSolverPP2M()),
    "unclip-prior": Row(VPCosine(), X0(), Mse(times=Discrete()), LogSnrGrid(), Ancestral()),
    "edm": Row(
        Edm(), KarrasPrediction(), Mse(times=LogNormalSigma()), KarrasGrid(), Heun(churn=0.1),
        {"input_scale": StandardInput()},
    ),
    "min-snr": Row(VPCosine(), V(), Mse(weighting=MinSnr()), UniformGrid(), Ddim()),
    "rectified-flow": Row(
        LinearFlow(), Flow(), Mse(times=LogitNormal()), ShiftedGrid(), Heun()),
    "zero-snr": Row(
        ZeroTerminalSnr(base=ScaledLinearChain()), V(), Mse(times=Discrete()), TrailingGrid(),
        Ddim()),
    "repaint": Row(
        LinearChain(), Eps(), Mse(times=Discrete()),
        JumpingGrid(base=LinspaceGrid(), length=2, repeats=2),
        Resampling(solver=Replacing(
            solver=Ancestral(), known=torch.zeros(2, 4),
            projection=Mask(mask=torch.tensor([[True, False, False, True]])))),
    ),
    "importance": Row(
        CosineChain(num_steps=50), V(),
        Vlb(num_steps=50, times=LossSecondMoment(num_steps=50)).build(),
        LinspaceGrid(num_steps=50), Ancestral(variance=LearnedRange()), TWO,
    ),
    "unipc": Row(VPCosine(), V(), Mse(), LogSnrGrid(), UniPC()),
    "vlb": Row(
        LinearChain(num_steps=50), Eps(),
        Vlb(num_steps=50, variance=FixedSmall(), times=Discrete(num_steps=50)),
        LinspaceGrid(num_steps=50), Ancestral()),
}


@pytest.mark.parametrize("name", ROWS)
def test_row_trains_and_samples(name: str) -> None:
    row = ROWS[name]
    torch.manual_seed(0)
    net = TinyNet(2 if "head" in row.options else 1)
    denoiser = Denoiser(net, row.process, row.prediction, **row.options)
    x0 = torch.randint(0, 256, (8, 4), generator=torch.Generator().manual_seed(0)) / 127.5 - 1
    optimiser = torch.optim.SGD(denoiser.parameters(), lr=1e-6)
    terms = row.objective(denoiser, x0, None, torch.Generator().manual_seed(1))
    assert all(value.shape == (8,) for value in terms.values())
    terms["loss"].mean().backward()
    for parameter in denoiser.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all()
    optimiser.step()
    times = row.grid(row.process, 3)
    noise = Noise([1, 2])
    x = start(row.process, times, noise, (4,))
    with torch.no_grad():
        found = sample(denoiser.bind(), row.process, row.solver, times, x, noise)
    assert found.shape == (2, 4) and found.isfinite().all()
