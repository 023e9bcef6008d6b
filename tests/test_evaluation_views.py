"""The two views of the judge, and the plain prompts: on images whose verdict is known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_evaluation_report import FIXTURE, Oracle
from torch import Tensor

from ldm.errors import DataError
from ldm.evaluation import plain, prompts, readme, samples
from ldm.evaluation.features import COARSE, SHARP, SIDE, VIEWS, Extractor, Seen
from ldm.evaluation.grids import GAP, LARGEST, sheet
from ldm.evaluation.judge import Judge, fit_probe
from ldm.evaluation.pairs import some_of
from ldm.evaluation.real import RealPictures, load_real
from ldm.evaluation.section import Bench, Options

ASKED = {"a crown": ("crown", "tiara"), "a star": ("star",), "a unicorn": ("unicorn",)}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Softened(Oracle):
    """An oracle whose images are soft: every square of 2 x 2 pixels has one colour."""

    def __init__(self, real: RealPictures, answer: list[int]) -> None:
        super().__init__(real, answer, "soft")
        for caption, image in self.pictures.items():
            small = F.avg_pool2d(image.float(), 2).round()
            self.pictures[caption] = F.interpolate(small, scale_factor=2).byte()


class Asked(Oracle):
    """An oracle that also knows plain prompts: it shows the real image of `shown` for each."""

    def __init__(self, real: RealPictures, shown: dict[str, str]) -> None:
        super().__init__(real, list(range(len(real))), "".join(shown.values()))
        for prompt, concept in shown.items():
            place = next(i for i, p in enumerate(real) if p.concept == concept)
            self.pictures[prompt] = real.images([place])


@pytest.fixture(scope="module")
def real() -> RealPictures:
    return load_real(FIXTURE)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def bench_of(pipe: Any, real: RealPictures, cache: Path) -> Bench:
    return Bench(pipe, real, Options(pairs=12, batch_size=64, grid=5, cache=cache, quiet=True))


# 1. What a view shows


def grainy() -> tuple[Tensor, Tensor]:
    """Even images of 256 px and the same with grain whose mean over 8 x 8 pixels is 0."""
    colours = torch.randint(60, 190, (2, 3, 32, 32), generator=generator(0)).float()
    even = F.interpolate(colours, scale_factor=8)
    board = (torch.arange(256)[:, None] + torch.arange(256)) % 2 * 2 - 1
    return even, even + 50 * board


def test_the_coarse_view_sees_no_grain() -> None:
    even, grain = grainy()
    assert torch.allclose(COARSE.show(even), COARSE.show(grain), atol=1e-3)
    assert COARSE.show(even).shape == SHARP.show(even).shape == (2, 3, SIDE, SIDE)
    half = F.avg_pool2d(even, 2)  # an image of 128 px of the same: the side does not matter
    assert torch.allclose(COARSE.show(half), COARSE.show(even), atol=1e-3)
    assert (SHARP.show(half) == half).all()
    lines = torch.tensor([0.0, 255.0]).repeat_interleave(2).repeat(32).expand(2, 3, SIDE, SIDE)
    assert COARSE.show(lines).std() < 1 < SHARP.show(lines).std()


def test_features_and_their_cache_tell_the_view() -> None:
    sharp, coarse = (Extractor(view=view) for view in VIEWS)
    even, grain = (images.byte() for images in grainy())
    assert torch.allclose(coarse(even), coarse(grain), atol=1e-3)
    lines = torch.tensor([0, 255], dtype=torch.uint8).repeat_interleave(2).repeat(32)
    striped = lines.expand(1, 3, SIDE, SIDE)
    assert not torch.allclose(coarse(striped), sharp(striped), atol=0.1)
    assert sharp.identity()["input"] != coarse.identity()["input"]
    assert sharp.identity() == Extractor().identity()


def test_the_origin_is_subtracted_from_both_sides() -> None:
    # Seen from 0 the cat is nearer; seen from the mean of all, the dog lies in the same direction.
    gallery = torch.tensor([[100.0, 1, 0], [100, 0, 9], [100, -8, -8]])
    query = torch.tensor([[100.0, 0, 4]])
    names, styles = ["cat", "dog", "cow"], ["round"] * 3
    probe = fit_probe(torch.eye(2).repeat(2, 1), ["round", "thin"] * 2)
    seen = Seen(query, torch.eye(2)[:1])

    def rank(origin: Tensor) -> int:
        return int(Judge(probe, gallery, names, styles, origin)(seen, ["dog"], ["round"]).rank)

    assert rank(SHARP.origin(gallery)) == 1
    assert rank(COARSE.origin(gallery)) == 0


# 2. Concepts of any style


def test_a_concept_has_one_vote() -> None:
    names = ["cat", "cat", "cat with light skin tone", "dog", "cow"]
    features = torch.tensor([[1, 0.1, 0], [1, 0.2, 0], [1, 0.3, 0], [1, 1, 0], [0, 0, 1.0]])
    styles = ["round", "thin", "round", "thin", "thin"]
    judge = Judge(fit_probe(features, styles), features, names, styles)
    assert judge.names == ("cat", "cow", "dog")
    found = judge.by_concept(torch.tensor([[1.0, 0.29, 0]]))
    assert found.shape == (1, 3) and found[0].argsort(descending=True).tolist() == [0, 2, 1]
    best = F.cosine_similarity(torch.tensor([1.0, 0.29, 0]), features[2], dim=0)
    assert found[0, 0].item() == pytest.approx(float(best))
    right = plain.accepted(judge, [("dog", "puppy"), ("cat with dark skin tone",)])
    assert right.tolist() == [[False, False, True], [True, False, False]]


def test_images_of_a_prompt_are_drawn_whatever_their_order(real: RealPictures) -> None:
    places = list(range(20))
    few = some_of(real, places, 4, seed=0)
    assert few == some_of(real, places[::-1], 4, seed=0) != some_of(real, places, 4, seed=1)
    assert len(set(few)) == 4 and len(some_of(real, places[:2], 4, seed=0)) == 2


def test_there_are_forty_plain_prompts_without_a_style(real: RealPictures) -> None:
    assert len(plain.PROMPTS) == 40 and not any("style" in p for p in plain.PROMPTS)
    names = [name for accepted in plain.PROMPTS.values() for name in accepted]
    assert len(set(names)) == len(names) and all(n == n.lower() for n in names)
    known = {p.concept for p in real}
    assert {"airplane", "bus", "crown", "penguin", "star", "train"} <= known & set(names)


# 3. The sections


def test_a_soft_image_is_right_at_32_px(real: RealPictures, cache: Path) -> None:
    pipe = Softened(real, list(range(len(real))))
    section = samples.evaluate(bench_of(pipe, real, cache))
    rows = section.rows
    for split in ("train", "heldout"):
        coarse, true = (rows[f"{split}: {row}{COARSE.label}"] for row in ("generated", "real"))
        assert coarse["concept top-1"].value == true["concept top-1"].value == 1
        assert coarse["style"].value == pytest.approx(true["style"].value, abs=0.1)
        assert rows[f"{split}: generated"] != rows[f"{split}: real"]
        names = [name for name in rows if name.startswith(f"{split}: ")]
        labelled = [name.removesuffix(COARSE.label) for name in names if COARSE.label in name]
        assert set(names) == {*labelled, *(n + COARSE.label for n in labelled), f"{split}: chance"}
    assert set(section.protocol["views"]) == {view.name for view in VIEWS}
    record = section.details[0]
    assert record["rank, at 32 px"] == 0 and isinstance(record["rank"], int)
    assert record.keys() >= {"style", "style, at 32 px"}
    for main in (m for m in readme.MAIN if m.section == "pictures"):
        for row, column in ((main.row, main.column), *((b.row, b.column) for b in main.beside)):
            assert column in rows[row]


@pytest.mark.parametrize("right", [True, False])
def test_plain_prompts_are_right_where_an_accepted_concept_is_near(
    real: RealPictures, cache: Path, right: bool
) -> None:
    shown = {"a crown": "crown", "a star": "star" if right else "tropical fish"}
    section = plain.evaluate(bench_of(Asked(real, shown), real, cache), ASKED)
    rows = section.rows
    for view in VIEWS:
        drawn = rows[f"generated{view.label}"]
        assert drawn[plain.FIRST].value == (1 if right else 0.5) and drawn[plain.FIRST].n == 2
        assert rows[f"{readme.CEILING}{view.label}"][plain.FIRST].value == 1
    concepts = len({p.concept for p in real})
    assert rows["chance"][plain.FIVE].value == pytest.approx(5 / concepts)
    assert any("a unicorn" in note for note in section.notes)
    assert [record["prompt"] for record in section.details] == ["a crown", "a star"]
    first = section.details[1]["nearest, at 32 px"][0]
    assert first == shown["a star"] and section.details[0]["accepted"] == ["crown", "tiara"]
    for main in (m for m in readme.MAIN if m.section == "plain-prompts"):
        assert main.column in rows[main.row] and all(b.row in rows for b in main.beside)


def test_data_without_any_asked_thing_is_told(real: RealPictures, cache: Path) -> None:
    bench = bench_of(Asked(real, {}), real, cache)
    with pytest.raises(DataError, match="no real image"):
        plain.evaluate(bench, {"a unicorn": ("unicorn",)})


def test_images_are_judged_without_a_model(real: RealPictures, cache: Path) -> None:
    bench = bench_of(Asked(real, {}), real, cache)
    critics, places = samples.make_critics(bench), [3, 40]
    names, styles = [real[i].concept for i in places], [real[i].style for i in places]
    rows = samples.judge_images(critics, real.images(places), names, styles)
    assert list(rows) == ["generated", "generated, at 32 px"]
    assert all(row["concept top-1"].value == 1 for row in rows.values())
    swapped = samples.judge_images(critics, real.images(places[::-1]), names, styles)
    assert all(row["concept top-1"].value == 0 for row in swapped.values())


# 4. Sheets


def test_sheets_reduce_large_images_unless_told_not_to() -> None:
    images = torch.zeros(2, 3, 256, 256, dtype=torch.uint8)
    images[:, :, :, ::2] = 200
    small, whole = sheet([images], ["a", "b"]), sheet([images], ["a", "b"], largest=None)
    assert small.width == 2 * (LARGEST + GAP) and whole.width == 2 * (256 + GAP)
    assert small.getpixel((5, small.height - 5)) == (100, 100, 100)
    assert whole.getpixel((4, whole.height - 5)) == (200, 200, 200)


def test_prompts_are_shown_whole_and_in_groups() -> None:
    every = [p for group in prompts.PROMPTS.values() for p in group]
    assert len(set(every)) == len(every) and len(prompts.PLAIN) == 12
    clip = SimpleNamespace(
        image=lambda x: F.normalize(torch.ones(len(x), 4), dim=1),
        text=lambda t: SimpleNamespace(pooled=F.normalize(torch.ones(len(t), 4), dim=1)),
        fingerprint=lambda: "",
    )
    bench: Any = SimpleNamespace(
        options=Options(quiet=True),
        pipe=SimpleNamespace(clip=clip),
        seeds=lambda n: list(range(n)),
        pictures=lambda asked, seeds, **_: (torch.zeros(len(asked), 3, 160, 160).byte(), {}),
        over=lambda images, see, what: see(images),
    )
    section = prompts.evaluate(bench)
    assert section.grids["prompts"].width == 6 * (160 + GAP)
    assert section.shown["prompts-new"] == prompts.NEW
    assert section.rows["a blue apple"]["CLIP score"].value == pytest.approx(100)
