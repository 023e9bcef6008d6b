"""Processes, predictions and objectives in every combination, against the loss of an exact network.

The data are one Gaussian in one dimension. All errors of an exact network are linear in (x0, eps),
so that Gauss-Hermite nodes of both take every expectation exactly.
"""

from __future__ import annotations

import math

import pytest
import torch
from oracles import SMOOTH, Mixture, oracle
from torch import Tensor

from ldm.diffusion import (
    P2,
    X0,
    Elbo,
    ElboWeight,
    Eps,
    EpsUnit,
    FixedSmall,
    Flow,
    GaussianDecoder,
    Karras,
    Likelihood,
    MinSnr,
    Mse,
    Prediction,
    Process,
    Score,
    SlicedScoreMatching,
    Sum,
    Unit,
    V,
    Vlb,
)
from ldm.diffusion.objective import Drawn

MEAN, STD = 0.7, 0.5
LINE = Mixture(weights=(1.0,), means=((MEAN,),), stds=(STD,))
NODES = torch.tensor([-(3**0.5), 0.0, 3**0.5], dtype=torch.float64)
WEIGHTS = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64)
SHARE = (WEIGHTS[:, None] * WEIGHTS[None]).flatten()
STEPS = 50
PREDICTIONS: tuple[Prediction, ...] = (X0(), Eps(), V(), Score(), Flow(), Karras())
PRODUCT = pytest.mark.parametrize("prediction", PREDICTIONS, ids=str)


def drawn(process: Process, prediction: Prediction, place: float) -> Drawn:
    """An exact network at one time, on all pairs of nodes."""
    x0 = (MEAN + STD * NODES).repeat_interleave(3)[:, None]
    t = process.t_min + (process.t_max - process.t_min) * place
    times = torch.full((9,), t, dtype=torch.float64)
    return Drawn(oracle(LINE, process, prediction), None, x0, NODES.repeat(3)[:, None], times)


def left(process: Process, t: Tensor) -> Tensor:
    """Var(x0 | x_t)."""
    return STD**2 / (1 + STD**2 * process.logsnr(t).exp())


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close((SHARE * found).sum(), expected, rtol=1e-6, atol=1e-9)


@PRODUCT
@pytest.mark.parametrize("name", SMOOTH)
def test_weighted_errors_in_every_space(name: str, prediction: Prediction) -> None:
    """At a given x an error e of x0 is -e alpha/sigma of eps, so (a - b alpha/sigma) e of y."""
    process = SMOOTH[name]
    one = drawn(process, prediction, 0.4)
    t = one.t[:1]
    alpha, sigma = process.alpha_sigma(t)
    for space in PREDICTIONS:
        a, b = space.coefficients(process, t)
        error = (a - b * alpha / sigma).square() * left(process, t)
        for weighting in (Unit(), EpsUnit(), ElboWeight(), Likelihood(), MinSnr(), P2()):
            loss = Mse(space=space, weighting=weighting).terms(one, torch.Generator())["loss"]
            same(loss, (weighting(process, space, t) * error).squeeze())


@PRODUCT
@pytest.mark.parametrize("name", SMOOTH)
def test_bounds_and_score_matching(name: str, prediction: Prediction) -> None:
    process, draws = SMOOTH[name], torch.Generator().manual_seed(0)
    one = drawn(process, prediction, 20 / (STEPS - 1))
    t, width = one.t[:1], process.t_max - process.t_min
    s, snr = t - width / (STEPS - 1), process.logsnr(t).exp()
    # 2107.00630 eq. 13 and 17
    vlb = STEPS * (process.logsnr(s).exp() - snr) / 2 * left(process, t) / math.log(2)
    step = Vlb(num_steps=STEPS, variance=FixedSmall(), decoder=GaussianDecoder())
    same(step.terms(one, draws)["loss"], vlb.squeeze())
    rate = -process.logsnr_slope(t) / 2 * snr * left(process, t)
    found = Elbo(decoder=GaussianDecoder()).terms(one, draws)["diffusion"]
    same(found, (width * rate / math.log(2)).squeeze())
    # 2102.09672 eq. 16: the simple loss and a thousandth of the bound
    hybrid = Sum(parts=((1.0, Mse(space=Eps())), (0.001, step))).terms(one, draws)["loss"]
    same(hybrid, (snr * left(process, t) + 0.001 * vlb).squeeze())
    # 1905.07088 eq. 8: -sigma^2/(2 V), V the variance of x_t
    alpha, sigma = process.alpha_sigma(t)
    expected = -(sigma**2) / (2 * ((STD * alpha) ** 2 + sigma**2))
    same(SlicedScoreMatching().terms(one, draws)["loss"], expected.squeeze())
