"""Predictions and the denoiser: every target returns (x0, eps); refusals; what the network sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from oracles import FULL, GAUSS, PAIR, oracle
from torch import Tensor, nn

from ldm.diffusion import (
    X0,
    CosineChain,
    Denoiser,
    Edm,
    Eps,
    Flow,
    Karras,
    LinearChain,
    LinearFlow,
    LogSnrTime,
    Prediction,
    PreviousMean,
    PreviousMeanShift,
    Process,
    ScaledTime,
    Score,
    StandardInput,
    V,
    VarianceHead,
    VPCosine,
    VPLinear,
    ZeroTerminalSnr,
    clip_x0,
)

CHAIN = LinearChain(num_steps=100)
PREDICTIONS: list[Prediction] = [X0(), Eps(), V(), Score(), Flow(), Karras()]
CASES: list[tuple[str, Process, Prediction]] = [
    (f"{name}-{prediction}", process, prediction)
    for name, process in {**FULL, "chain": CHAIN}.items()
    for prediction in PREDICTIONS
]
CASES += [
    ("chain-previous", CHAIN, PreviousMean(num_steps=100)),
    ("chain-shift", CHAIN, PreviousMeanShift(num_steps=100)),
]
EVERY = pytest.mark.parametrize(
    ("process", "prediction"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)


@EVERY
def test_round_trip(process: Process, prediction: Prediction) -> None:
    """(x0, eps) -> y -> (x0, eps): 1e-10 in float64; 1e-5 in float32, both ends included."""
    places = torch.tensor([0.0, 0.13, 0.5, 0.77, 1.0], dtype=torch.float64)
    t = process.t_min + (process.t_max - process.t_min) * places
    draws = torch.Generator().manual_seed(1)
    x0, eps = (torch.randn(5, 3, generator=draws, dtype=torch.float64) for _ in range(2))
    x, y = process.perturb(x0, t, eps), prediction.target(process, t, x0, eps)
    found = prediction.denoised(process, t, x, y)
    # what is multiplied by nearly zero in x is known to fewer digits
    level = process.at(t, x)
    assert ((found.x0 - x0).abs() * level.alpha < 1e-10).all()
    assert ((found.eps - eps).abs() * level.sigma.clamp(max=1) < 1e-10).all()
    single = prediction.denoised(process, t, x.float(), y.float())
    size = (level.alpha * x0).abs() + (level.sigma * eps).abs() + 1  # of what is subtracted
    assert ((single.x0 - x0).abs() * level.alpha < 1e-5 * size).all()
    assert ((single.eps - eps).abs() * level.sigma < 1e-5 * size).all()


@EVERY
def test_an_exact_network_of_any_prediction_is_the_oracle(
    process: Process, prediction: Prediction
) -> None:
    places = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
    t = process.t_min + (process.t_max - process.t_min) * places
    x = process.perturb(torch.randn(3, 2).double(), t, torch.randn(3, 2).double())
    found = oracle(PAIR, process, prediction)(x, t)
    truth = PAIR.denoise(process, x, t)
    torch.testing.assert_close(found.x0, truth.x0, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(found.eps, truth.eps, rtol=1e-7, atol=1e-7)


def test_v_and_previous_mean_are_the_published_formulas() -> None:
    t = torch.tensor([0.4], dtype=torch.float64)
    x0, eps = torch.randn(2, 1, 3, dtype=torch.float64)
    alpha, sigma = VPCosine().at(t, x0)
    torch.testing.assert_close(V().target(VPCosine(), t, x0, eps), alpha * eps - sigma * x0)
    torch.testing.assert_close(Flow().target(LinearFlow(), t, x0, eps), eps - x0)
    score = Score().target(VPLinear(), t, x0, eps)
    torch.testing.assert_close(score * VPLinear().at(t, x0).sigma, -eps)
    # Ho et al. 2020 eq. 7 for step 40 of 100 (from 0: 39)
    betas = CHAIN.betas()
    abar = (1 - betas).cumprod(0)
    x = CHAIN.perturb(x0, t, eps)
    a = abar[38].sqrt() * betas[39] / (1 - abar[39])
    b = (1 - betas[39]).sqrt() * (1 - abar[38]) / (1 - abar[39])
    mean = PreviousMean(num_steps=100).target(CHAIN, t, x0, eps)
    torch.testing.assert_close(mean, a * x0 + b * x)
    shift = PreviousMeanShift(num_steps=100).target(CHAIN, t, x0, eps)
    torch.testing.assert_close((1 - betas[39]).sqrt() * x + betas[39].sqrt() * shift, mean)


def test_karras_is_edms_preconditioning() -> None:
    """2206.00364 table 1 on alpha = 1: x0 = c_skip x + c_out F."""
    t, s = torch.tensor([0.7], dtype=torch.float64), 0.5
    x, y = torch.randn(2, 1, 3, dtype=torch.float64)
    total = s**2 + 0.7**2
    x0 = s**2 / total * x + 0.7 * s / total**0.5 * y
    found = Karras(sigma_data=s).denoised(Edm(), t, x, y)
    torch.testing.assert_close(found.x0, x0)
    scale = StandardInput(sigma_data=s)(Edm(), t)
    torch.testing.assert_close(scale.item(), total**-0.5)


@pytest.mark.parametrize(
    ("process", "prediction", "instead"),
    [
        (LinearFlow(t_max=1.0), Eps(), "Flow"),
        (LinearFlow(t_max=1.0), Score(), "V()"),
        (ZeroTerminalSnr(base=VPLinear()), Eps(), "V()"),
    ],
)
def test_a_prediction_refuses_where_it_is_undefined(
    process: Process, prediction: Prediction, instead: str
) -> None:
    with pytest.raises(ValueError, match="Use ") as refusal:
        Denoiser(nn.Identity(), process, prediction)
    assert instead in str(refusal.value)


@dataclass(frozen=True, kw_only=True)
class FromClean(Process):
    """alpha = sqrt(1 - t), sigma = sqrt(t), from t = 0, where nothing is noise."""

    t_min: float = 0.0
    t_max: float = 0.9

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return (1 - t).sqrt(), t.sqrt()


@pytest.mark.parametrize(
    "prediction", [X0(), Score(), Karras(), Flow(), PreviousMean(), PreviousMeanShift()], ids=str
)
def test_a_process_without_noise_at_its_start_is_refused(prediction: Prediction) -> None:
    """sigma is 0 there, and its slope infinite; V alone is defined everywhere."""
    with pytest.raises(ValueError, match=r"Use V\(\)"):
        Denoiser(nn.Identity(), FromClean(), prediction)
    Denoiser(nn.Identity(), FromClean(), V())


class Recorder(nn.Module):
    """Keeps what the network is given; answers with its input, doubled in channels."""

    def forward(self, x: Tensor, time: Tensor, cond: Any) -> Tensor:
        self.x, self.time, self.cond = x, time, cond
        return torch.cat([x, x + 1], dim=1).to(torch.bfloat16)


class First(nn.Module):
    """The input itself."""

    def forward(self, x: Tensor, time: Tensor, cond: Any) -> Tensor:
        return x


def test_what_the_network_sees() -> None:
    net = Recorder()
    denoiser = Denoiser(
        net, VPCosine(), V(), head=VarianceHead(), input_scale=StandardInput(sigma_data=0.5)
    )
    x, t = torch.randn(2, 4, 3, 3), torch.tensor([0.25, 0.5])
    found = denoiser(x, t, "cond")
    torch.testing.assert_close(net.time, torch.tensor([250.0, 500.0]))
    alpha, sigma = VPCosine().at(t, x)
    torch.testing.assert_close(net.x, x / ((0.5 * alpha) ** 2 + sigma**2).sqrt())
    assert net.cond == "cond"
    assert found.x0.dtype == torch.float32 and found.aux is not None
    assert found.aux.shape == x.shape
    torch.testing.assert_close(found.aux, (net.x + 1).bfloat16().float())


def test_time_embeddings() -> None:
    t = torch.tensor([0.001, 1.0], dtype=torch.float64)
    published = ScaledTime(scale=1000.0, shift=-1.0)(LinearChain(), t)
    torch.testing.assert_close(published.tolist(), [0.0, 999.0])
    torch.testing.assert_close(LogSnrTime()(VPLinear(), t).tolist(), [0.0, 1000.0])


def test_errors_say_what_to_do() -> None:
    x, t = torch.randn(1, 3), torch.tensor([0.5])
    doubled = Denoiser(Recorder(), VPCosine(), V())
    with pytest.raises(ValueError, match="output channels"):
        doubled(x, t)
    odd = Denoiser(First(), VPCosine(), V(), head=VarianceHead())
    with pytest.raises(ValueError, match="PlainHead"):
        odd(x, t)


def test_half_precision_keeps_the_conversion_in_float32() -> None:
    denoiser = oracle(GAUSS, VPCosine(), V())
    x, t = torch.randn(2, 2), torch.tensor([0.3, 0.9])
    with torch.autocast("cpu", torch.bfloat16):
        found = denoiser(x, t)
    torch.testing.assert_close(found.x0, denoiser(x, t).x0)
    assert denoiser(x.bfloat16(), t).x0.dtype == torch.float32


def test_the_published_cosine_chain_takes_eps() -> None:
    """2102.09672: alpha is 4.9e-5 at its end; x0 comes back in float64, and clipped in float32."""
    chain, t = CosineChain(), torch.ones(1, dtype=torch.float64)
    x0, eps = torch.rand(2, 1, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alpha, sigma = chain.alpha_sigma(t)
    assert alpha.item() == pytest.approx(4.9e-5, rel=0.02)
    found = Eps().denoised(chain, t, alpha * x0 + sigma * eps, eps)
    torch.testing.assert_close(found.x0, x0, rtol=0, atol=1e-10)
    denoiser = Denoiser(First(), chain, Eps())
    clipped = clip_x0(denoiser.bind(None), chain)(torch.randn(1, 5), t)
    assert clipped.x0.abs().max() <= 1 and clipped.eps.isfinite().all()
