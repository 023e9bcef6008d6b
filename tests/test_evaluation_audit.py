"""The memorisation audit: its statistics against their definitions, and models of known guilt."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_evaluation_report import FIXTURE, Oracle

from ldm.conditioning import LabelsConfig
from ldm.data.batch import Batch
from ldm.diffusion import Ddim, LinearFlow, Mse, Noise, UniformGrid
from ldm.diffusion.prediction import X0
from ldm.evaluation import audit, duplicates
from ldm.evaluation.neighbours import (
    exceedance_p,
    low_tail,
    mann_whitney_z,
    nearest,
    placements,
)
from ldm.evaluation.real import RealPictures, load_real
from ldm.evaluation.section import Bench, Options, Section
from ldm.networks.flat import FlatConfig
from ldm.samplers import Sampler
from ldm.stage import PixelCodec, Stage, StageConfig

HELDOUT, TRAIN = "generated, heldout prompts", "generated, train prompts"


@pytest.fixture(scope="module")
def real() -> RealPictures:
    return load_real(FIXTURE)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


class Noisy(Oracle):
    """Its pictures are not quite those that it knows."""

    def __init__(self, real: RealPictures, answer: list[int], noise: float) -> None:
        super().__init__(real, answer, f"noise {noise} ")
        self.noise = noise

    def __call__(self, prompts: list[str], *, seed: list[int], **settings: Any) -> Any:
        output = super().__call__(prompts, seed=seed, **settings)
        generator = torch.Generator().manual_seed(seed[0])
        images = output.images
        output.images = images + self.noise * torch.randn(images.shape, generator=generator)
        return output


def bench(real: RealPictures, cache: Path, answers: str, noise: float) -> Bench:
    """A model that answers everything with pictures of the split `answers`, not the asked ones."""
    split = real.of(answers)
    answer = [split[(7 * i + 3) % len(split)] for i in range(len(real))]
    pipe: Any = Noisy(real, answer, noise)
    return Bench(pipe, real, Options(pairs=12, batch_size=32, grid=6, cache=cache, quiet=True))


def flags(section: Section) -> dict[str, bool]:
    return {name: bool(row["flagged"].value) for name, row in section.rows.items()}


def test_the_nearest_are_those_of_all_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    training = torch.randn(150, 9, generator=generator) + 50
    queries = torch.cat([training[40:45], torch.randn(90, 9, generator=generator) + 50])
    found = nearest(queries, training, 4)
    every = (queries[:, None] - training[None]).norm(dim=2).sort(dim=1)
    assert torch.allclose(found.distance, every.values[:, :4], atol=1e-5)
    assert torch.equal(found.place[:, 0], every.indices[:, 0])
    assert (found.distance[:5, 0] == 0).all()
    assert nearest(queries, training[:3], 50).place.shape == (95, 3)


def test_z_is_that_of_mann_and_whitney() -> None:
    from scipy.stats import mannwhitneyu

    generator = torch.Generator().manual_seed(0)
    for shift in (-1.0, 0.0, 0.5):
        drawn = (4 * torch.randn(40, generator=generator) + shift).round()  # with many ties
        heldout = (4 * torch.randn(70, generator=generator)).round()
        told = mannwhitneyu(
            drawn, heldout, alternative="less", method="asymptotic", use_continuity=False
        )
        p = torch.special.ndtr(torch.tensor(mann_whitney_z(drawn, heldout), dtype=torch.float64))
        assert p.item() == pytest.approx(told.pvalue, rel=1e-6)
    assert mann_whitney_z(torch.ones(5), torch.ones(9)) == 0
    assert placements(torch.tensor([0.0, 2.0, 9.0]), torch.tensor([1.0, 2.0])).tolist() == [
        1, 0.25, 0,
    ]  # fmt: skip


def test_exceedances_are_counted_over_all_orders() -> None:
    n, m, r = 4, 6, 2
    counts = []
    for mine in combinations(range(n + m), n):
        others = [i for i in range(n + m) if i not in mine]
        counts.append(sum(i < others[r - 1] for i in mine))
    for count in range(n + 1):
        share = sum(c >= count for c in counts) / len(counts)
        assert exceedance_p(count, n, r, m) == pytest.approx(share)
    assert low_tail(torch.arange(100.0), 0.05) == (5, 4.0)
    assert low_tail(torch.tensor([3.0, 1.0, 2.0]), 0.05) == (1, 1.0)


def test_plain_pictures_are_no_copies() -> None:
    """A grey picture is near to everything; a copy is near to one."""
    generator = torch.Generator().manual_seed(0)
    training = torch.rand(80, 20, generator=generator)
    grey, copy = torch.full((1, 20), 0.5), training[:1] + 0.01
    distances = audit.relative(nearest(torch.cat([grey, copy]), training, 50))
    assert distances[1] < 0.1 < 0.6 < distances[0] < 1


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_a_model_that_knows_its_training_pictures_is_flagged(
    real: RealPictures, cache: Path, noise: float
) -> None:
    guilty = bench(real, cache, "train", noise)
    section = audit.evaluate(guilty)
    # Noise that hardly shows moves features so far that only pixels still find the original.
    surely = "" if noise == 0 else "pixels"
    flagged = flags(section)
    assert all(f for n, f in flagged.items() if surely in n and audit.YARDSTICK not in n)
    assert not any(f for n, f in flagged.items() if audit.YARDSTICK in n)
    assert section.notes[0].startswith("Verdict: FLAGGED (")
    assert "The audit can tell" in " ".join(section.notes)
    assert section.rows[f"pixels: {TRAIN}"]["near as a copy"].value == (1 if noise == 0 else 0)
    twice = duplicates.evaluate(guilty).rows
    assert twice[HELDOUT]["equal to a training picture"].value == (1 if noise == 0 else 0)
    known = real.of("train")
    nearest_key = {real[i].key for i in known}
    assert {record["nearest by pixels"] for record in section.details} <= nearest_key
    assert section.grids["audit-features"].width == 6 * 66


def test_a_model_that_draws_new_pictures_is_not_flagged(real: RealPictures, cache: Path) -> None:
    for noise in (0.0, 0.03):
        honest = bench(real, cache, "heldout", noise)
        section = audit.evaluate(honest)
        made = {name: flag for name, flag in flags(section).items() if "generated" in name}
        assert len(made) == 4 and not any(made.values())
        assert section.notes[0].startswith("Verdict: not flagged. ")
    twice = duplicates.evaluate(bench(real, cache, "heldout", 0.0)).rows
    assert twice[HELDOUT]["equal to a training picture"].value == 0
    one = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    assert duplicates.equal_to_another(torch.cat([one, one + 1, one])).tolist() == [
        True, False, True,
    ]  # fmt: skip


def test_a_clip_that_saw_only_train_pairs_gives_itself_away(
    real: RealPictures, cache: Path
) -> None:
    model = bench(real, cache, "train", 0.0)
    section = duplicates.evaluate_clip(model)
    assert "does not record" in section.notes[0]
    assert set(section.rows) == {"train pairs", "heldout pairs"}


SIDE, LEARNED = 32, 100


class Stubborn(Oracle):
    """A trained stage behind the oracle's manners: it draws one of its pictures for each prompt."""

    image_size = SIDE

    def __init__(self, real: RealPictures, stage: Stage) -> None:
        super().__init__(real, list(range(len(real))), "stage")
        self.stage = stage

    def __call__(self, prompts: list[str], *, seed: list[int], **settings: Any) -> Any:
        # A prompt that it has not learned gets a picture that it has.
        label = torch.tensor([sum(map(ord, p)) % LEARNED for p in prompts])
        batch = Batch(key=tuple(prompts), label=label)
        sampler = Sampler(solver=Ddim(), grid=UniformGrid(), steps=10)
        drawn = self.stage.sample(batch, sampler, Noise(seed), (3, SIDE, SIDE))
        return SimpleNamespace(images=self.stage.codec.decode(drawn) / 2 + 0.5)


def overfitted(images: torch.Tensor, steps: int) -> Stage:
    """A stage that is trained on a hundred pictures, each with a label of its own, and no other."""
    torch.manual_seed(0)
    config = StageConfig(
        codec=PixelCodec(),
        conditioner=LabelsConfig(num_classes=LEARNED, dim=128),
        network=FlatConfig(shape=(3, SIDE, SIDE), depth=2, vector_dim=128),
        process=LinearFlow(),
        prediction=X0(),
        objective=Mse(),
    )
    stage, generator = config.build(), torch.Generator().manual_seed(0)
    keys = tuple(map(str, range(LEARNED)))
    batch = Batch(key=keys, image=images, label=torch.arange(LEARNED))
    optimizer = torch.optim.AdamW(stage.parameters(), lr=2e-3, weight_decay=0)
    for _ in range(steps):
        optimizer.zero_grad()
        stage.loss(batch, generator)["loss"].mean().backward()
        optimizer.step()
    return stage.eval()


@pytest.mark.slow
def test_a_stage_that_is_overfitted_on_a_hundred_pictures_is_flagged(
    real: RealPictures, tmp_path: Path
) -> None:
    learned = real.of("train")[:LEARNED]
    stage = overfitted(real.images(learned, SIDE), steps=500)
    pipe: Any = Stubborn(real, stage)
    model = Bench(pipe, real, Options(pairs=12, batch_size=32, cache=tmp_path, quiet=True))
    section = audit.evaluate(model)
    print({name: {c: str(f) for c, f in row.items()} for name, row in section.rows.items()})
    assert all(flag for name, flag in flags(section).items() if "generated" in name)
