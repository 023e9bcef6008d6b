"""Bits: exact where everything is Gaussian, their parts, and a whole model's card."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import Mixture

from ldm.diffusion import LinearFlow, VPLinear, bits_per_dim
from ldm.evaluation import bits, latent_bounds
from ldm.evaluation.coding import (
    SHRINKAGES,
    Bound,
    ByteTable,
    FirstStep,
    GaussianFit,
    held_logsnr,
    latent_bits_bound,
)
from ldm.evaluation.figures import Figure
from ldm.evaluation.latent_bounds import NOTHING, TOLD, Pictures
from ldm.evaluation.real import load_real
from ldm.evaluation.section import Bench, Options
from ldm.pipeline import TextToImage

FIXTURE = Path(__file__).resolve().parent / "fixtures" / "emoji"
UNIT = Mixture(weights=(1.0,), means=((0.0, 0.0),), stds=(1.0,))
NARROW = Mixture(weights=(1.0,), means=((0.0, 0.0),), stds=(0.5,))
PROCESS = VPLinear(beta_max=60.0)
FIRST = FirstStep(4.0, 1 / (1 + math.exp(4.0)))  # the variance of x0 given x_t, known exactly


class Constant:
    """Noise that is one number. The mean over 1 and -1 is exact where an error is linear in it."""

    def __init__(self, value: float) -> None:
        self.value = value

    def normal(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.full((1, *shape), self.value, dtype=dtype)


def bounds_of(model: Mixture, z: torch.Tensor, num_levels: int = 60) -> list[Bound]:
    """The bounds on latents z by the exact denoiser of `model`, with either noise."""
    noises: list[Any] = [Constant(1.0), Constant(-1.0)]
    return [
        latent_bits_bound(
            model.bind(PROCESS), PROCESS, z, noise, num_levels=num_levels, first=FIRST
        )
        for noise in noises
    ]


def nats_of(model: Mixture, z: torch.Tensor) -> torch.Tensor:
    return torch.stack([bound.total for bound in bounds_of(model, z)]).mean(0)


def test_bits_are_exact_for_a_linear_autoencoder_and_gaussian_latents() -> None:
    """x = W z + noise: the terms of the bound by the exact denoiser add up to -log p(x)."""
    d, noise_std, draws = 3, 0.3, torch.Generator().manual_seed(4)
    w = torch.randn(d, 2, generator=draws, dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal
    marginal = normal(torch.zeros(d).double(), w @ w.T + noise_std**2 * torch.eye(d))
    x = torch.randn(5, d, generator=draws, dtype=torch.float64)
    covariance = torch.linalg.inv(w.T @ w / noise_std**2 + torch.eye(2))
    posterior = normal(x @ w @ covariance / noise_std**2, covariance)
    z = posterior.mean + torch.randn(5, 2, generator=draws).double() @ covariance
    rec = -normal(z @ w.T, noise_std**2 * torch.eye(d).double()).log_prob(x)
    exact = bits_per_dim(-marginal.log_prob(x), d)
    latent = nats_of(UNIT, z)
    for i in range(5):
        held = Pictures([], (), x[i : i + 1], z[i : i + 1], posterior.log_prob(z)[i : i + 1], 1.0)
        row = bits.whole_row(rec[i : i + 1], held, latent[i : i + 1])
        assert row["sum, per pixel dim"].value == pytest.approx(exact[i].item(), abs=1e-3)
        terms = [row[c].value for c in ("latent", "less posterior entropy", "reconstruction")]
        assert row["sum, per pixel dim"].value == pytest.approx(sum(terms))
        assert row["latent"].value * d == pytest.approx(row["latent, per latent dim"].value * 2)


def test_a_wrong_denoiser_needs_more_bits() -> None:
    z = UNIT.draw(200, torch.Generator().manual_seed(1), torch.float64)
    right, wrong = (nats_of(model, z).mean().item() for model in (UNIT, NARROW))
    assert wrong > right + 0.5


def test_a_bound_is_its_parts_and_survives_a_file() -> None:
    z = UNIT.draw(5, torch.Generator().manual_seed(1), torch.float64)
    bound = bounds_of(UNIT, z, num_levels=7)[0]
    torch.testing.assert_close(bound.total, bound.prior + bound.levels.sum(1) + bound.first)
    torch.testing.assert_close(bound.rate[:, 0], bound.prior + bound.diffusion)
    assert (bound.rate.diff(dim=1) < 0).all() and (bound.logsnr.diff() < 0).all()
    assert bound.error.mean(0)[0] < 0.25 < 0.5 < bound.error.mean(0)[-1]
    for mine, back in zip(bound, Bound.unpacked(bound.packed()), strict=True):
        torch.testing.assert_close(back, mine)


def test_first_step_lies_at_the_level_of_the_posterior() -> None:
    process = LinearFlow()
    alpha, sigma = process.alpha_sigma(
        process.t_of_logsnr(torch.tensor([held_logsnr(process, 0.03)]))
    )
    assert (sigma / alpha).item() == pytest.approx(0.03)
    ends = process.logsnr(torch.tensor([process.t_min, process.t_max])).tolist()
    assert held_logsnr(process, 1e-7) == ends[0] and held_logsnr(process, 1e7) == ends[1]


def test_bytes_are_coded_by_what_train_pictures_came_back_as() -> None:
    draws = torch.Generator().manual_seed(0)
    y = torch.randint(0, 4, (8, 3, 16, 16), generator=draws).byte()
    right = torch.rand(y.shape, generator=draws) < 0.75
    x = torch.where(right, y, y + 1)
    table = ByteTable.fitted(x, y)
    torch.testing.assert_close(table.log2.exp2().sum(1), torch.ones(256).double())
    nats = bits_per_dim(table(x, y), x[0].numel())
    wanted = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert nats.shape == (8,)
    # One more in each of 256 places is dear beside 1,500 counts: 0.2 bits.
    assert wanted < nats.mean().item() < wanted + 0.4
    assert bits_per_dim(table(x + 9, y), x[0].numel()).mean() > 5


def test_the_gaussian_is_the_fitted_one() -> None:
    draws = torch.Generator().manual_seed(0)
    mix = torch.eye(6) + 0.3 * torch.randn(6, 6, generator=draws)
    z, other = ((torch.randn(4000, 6, generator=draws) @ mix).view(-1, 6, 1, 1) for _ in "ab")
    fit = GaussianFit.fitted(z)
    assert fit.shrinkage == SHRINKAGES[0]
    known = torch.distributions.MultivariateNormal(fit.mean, scale_tril=fit.factor)
    torch.testing.assert_close(fit(other), -known.log_prob(other.flatten(1).double()))
    truth = torch.distributions.MultivariateNormal(torch.zeros(6), mix.T @ mix)
    entropy = truth.entropy().item()
    assert entropy - 0.2 < fit(other).mean().item() < entropy + 0.2
    few = GaussianFit.fitted(torch.randn(16, 6, generator=draws))
    assert few.shrinkage > SHRINKAGES[0]


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0.1, 0.3, "beats"), (-0.3, -0.1, "loses"), (-0.1, 0.1, "not told")]
)
def test_the_verdict_on_the_baseline(low: float, high: float, said: str) -> None:
    assert said in bits.beaten(Figure((low + high) / 2, low, high, 9))


def test_the_card_of_a_whole_model(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latent_bounds, "LEVELS", 6)
    monkeypatch.setattr(bits, "FLOW_PICTURES", 2)
    pipe = TextToImage.from_pretrained(tiny_model)
    options: Any = {"pairs": 4, "batch_size": 32, "prior_steps": 2, "quiet": True}
    bench = Bench(pipe, load_real(FIXTURE), Options(cache=tmp_path, **options))
    section = bits.evaluate(bench)
    assert [len(v) for v in section.rows.values()] == [5] * 7
    assert section.rows[f"bound, told {NOTHING}"]["latent"].n == 4
    assert [n for n in section.rows if n.startswith("flow")] and section.subject[
        "flow evaluations"
    ] > 6
    for row in section.rows.values():
        parts = [row[c].value for c in ("latent", "less posterior entropy", "reconstruction")]
        assert row["sum, per pixel dim"].value == pytest.approx(sum(parts))
        assert all(math.isfinite(figure.value) for figure in row.values())
    monkeypatch.setattr(latent_bounds, "bounds", None)  # the second table is from the cache
    levels = bits.evaluate_levels(bench)
    assert list(levels.rows) == [f"told {name}" for name in TOLD]
    for name in TOLD:
        d = levels.rows[f"told {name}"]["sum"].value
        assert d == pytest.approx(
            section.rows[f"bound, told {name}"]["latent, per latent dim"].value
        )
    assert set(levels.grids) == {"bits-by-level", "rate-distortion"}
