"""Diversity: exact on sets whose answer is known, and on models that collapse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_evaluation_report import FIXTURE, Oracle

from ldm.evaluation import reconstruction
from ldm.evaluation.diversity import evaluate, evaluate_prompts, jackknife_figure, pairwise, vendi
from ldm.evaluation.real import RealPictures, load_real
from ldm.evaluation.section import Bench, Options


@pytest.fixture(scope="module")
def real() -> RealPictures:
    return load_real(FIXTURE)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def bench(real: RealPictures, cache: Path, answer: list[int]) -> Bench:
    pipe: Any = Oracle(real, answer)
    return Bench(pipe, real, Options(pairs=8, batch_size=16, cache=cache, quiet=True))


@pytest.mark.parametrize("n", [2, 5, 12])
def test_equal_pictures_count_once_and_orthogonal_ones_each(n: int) -> None:
    same = torch.rand(1, 40).expand(n, 40) * torch.arange(1, n + 1)[:, None]
    apart = 3 * torch.eye(n, 40)
    assert vendi(same) == pytest.approx(1) and pairwise(same) == pytest.approx(0, abs=1e-12)
    assert vendi(apart) == pytest.approx(n) and pairwise(apart) == pytest.approx(1)
    assert vendi(apart.repeat(3, 1)) == pytest.approx(n)


def test_pairwise_is_the_mean_over_all_pairs() -> None:
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    pairs = [(i, j) for i in range(7) for j in range(i)]
    told = [1 - torch.cosine_similarity(x[i], x[j], dim=0).item() for i, j in pairs]
    assert pairwise(x) == pytest.approx(sum(told) / len(told), abs=1e-6)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    x = torch.randn(15, 1, generator=torch.Generator().manual_seed(0)).double()
    figure = jackknife_figure(x, lambda some: some.mean().item())
    assert figure.low is not None and figure.high is not None
    error = x.std().item() / 15**0.5
    assert (figure.high - figure.low) / 2 == pytest.approx(1.96 * error)
    assert figure.value == pytest.approx(x.mean().item()) and figure.n == 15


def test_a_model_that_draws_one_picture_has_no_diversity(real: RealPictures, cache: Path) -> None:
    honest = evaluate(bench(real, cache, list(range(len(real))))).rows
    stuck = evaluate(bench(real, cache, [3] * len(real))).rows
    for split in ("train", "heldout"):
        assert honest[f"{split}: generated"] == honest[f"{split}: real"]
        assert 1.5 < honest[f"{split}: real"]["Vendi score"].value < 8
        assert stuck[f"{split}: generated"]["Vendi score"].value == pytest.approx(1, abs=1e-6)
        assert stuck[f"{split}: real"] == honest[f"{split}: real"]


def test_pictures_of_one_prompt_are_compared_with_each_other(
    real: RealPictures, cache: Path
) -> None:
    section = evaluate_prompts(bench(real, cache, list(range(len(real)))))
    same, other, truth = section.rows.values()
    assert same["Vendi score"].value == pytest.approx(1, abs=1e-6)  # the oracle knows no seed
    assert same["feature distance"].value == pytest.approx(0, abs=1e-6)
    assert other["Vendi score"].value == pytest.approx(truth["Vendi score"].value, abs=1e-5)
    assert other["feature distance"].value > 0.1
    assert section.grids["diversity"].width == 8 * 66


def test_the_autoencoder_is_judged_as_a_set_and_by_features(
    real: RealPictures, cache: Path
) -> None:
    model = bench(real, cache, list(range(len(real))))
    perfect = reconstruction.evaluate_distribution(model).rows
    row = perfect["through the autoencoder (rFID, rKID)"]
    assert row["FID-effnetlite0"].value == pytest.approx(0, abs=1e-3)
    assert row["FID-effnetlite0"].n == 16
    same = reconstruction.evaluate(model).rows["all"]
    assert same["feature distance"].value == pytest.approx(0, abs=1e-5)
    pipe: Any = Oracle(real, list(range(len(real))), "grey")
    pipe.space.decode = lambda z: torch.zeros_like(z)
    grey = Bench(pipe, real, Options(pairs=8, batch_size=16, cache=cache, quiet=True))
    worse = reconstruction.evaluate_distribution(grey).rows
    assert worse["through the autoencoder (rFID, rKID)"]["FID-effnetlite0"].value > 1
    lost = reconstruction.evaluate(grey).rows["all"]
    assert lost["feature distance"].value > 0.2 and lost["PSNR"].value < 20
