"""The measures themselves, on cases whose answer is known."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.errors import DataError, RequestError
from ldm.evaluation.cache import cached
from ldm.evaluation.features import RUN, WIDTH, Extractor, Seen
from ldm.evaluation.figures import Figure, known_figure, mean_figure
from ldm.evaluation.judge import Judge, fit_probe, without_skin_tone
from ldm.evaluation.pairs import choose, derangement, in_another_style
from ldm.evaluation.prior import baselines, nearest, rank_within
from ldm.evaluation.real import RealPicture
from ldm.evaluation.reconstruction import psnr, ssim
from ldm.evaluation.retrieval import chance, ranks
from ldm.evaluation.run import PARTS, SUITES, parts_of

STYLES = ("round", "square", "thin", "bold")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made_up(concepts: int = 30) -> list[RealPicture]:
    """A data set without pictures: every concept in every style, a tenth of the pairs held out."""
    pairs = [(f"thing {c}", s) for c in range(concepts) for s in STYLES]
    return [
        RealPicture(str(i), "heldout" if i % 10 == 0 else "train", c, s, f"{c}, {s} style", b"")
        for i, (c, s) in enumerate(pairs)
    ]


# 1. Intervals


def test_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    covered = 0
    for trial in range(200):
        figure = mean_figure(3 + torch.randn(100, generator=generator(trial)), seed=trial)
        assert figure.low is not None and figure.high is not None
        covered += figure.low < 3 < figure.high
    assert 178 <= covered <= 199  # 95 % of 200, and four standard deviations


def test_interval_has_the_width_of_the_normal_theory() -> None:
    hits = torch.arange(400) < 100
    figure = mean_figure(hits, "%")
    assert figure.value == 0.25 and figure.n == 400
    assert figure.high is not None and figure.low is not None
    expected = 2 * 1.96 * (0.25 * 0.75 / 400) ** 0.5
    assert figure.high - figure.low == pytest.approx(expected, rel=0.1)
    assert mean_figure(hits, "%") == figure  # the same seed, the same interval


def test_figures_are_written_with_their_unit() -> None:
    assert str(Figure(0.25, 0.2, 0.301, 9, "%")) == "25.0 % [20.0, 30.1]"
    assert str(Figure(25.31, 25.0, 26.0, 9, "dB")) == "25.31 dB [25.00, 26.00]"
    assert str(known_figure(0.5, 2)) == "0.500"
    with pytest.raises(ValueError, match="no items"):
        mean_figure(torch.zeros(0))


# 2. Ranks


def test_ranks_on_a_constructed_case() -> None:
    similarity = torch.tensor([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.3, 0.3, 0.1]])
    right = torch.tensor([[True, False, False], [False, False, True], [True, False, False]])
    assert ranks(similarity, right).tolist() == [0, 2, 1]  # the last: a tie counts as a miss
    assert ranks(similarity, torch.ones(3, 3, dtype=torch.bool)).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="right candidate"):
        ranks(similarity, torch.zeros(3, 3, dtype=torch.bool))


def test_chance_is_what_random_similarities_give() -> None:
    right = torch.zeros(20000, 12, dtype=torch.bool)
    right[:, :2] = True
    rank = ranks(torch.rand(20000, 12, generator=generator(0)), right)
    for k in (1, 5):
        expected = chance(right[:1], k).item()
        assert (rank < k).double().mean().item() == pytest.approx(expected, abs=0.01)
    assert chance(right[:1], 12)[0] == 1


# 3. Pairs


def test_pairs_depend_on_data_and_seed_alone(caplog: pytest.LogCaptureFixture) -> None:
    pictures = made_up()
    first = choose(pictures, "train", 20, seed=0)
    assert first == choose(pictures, "train", 20, seed=0) != choose(pictures, "train", 20, seed=1)
    assert choose(pictures, "train", 40, seed=0)[:20] == first
    names = [(p.concept, p.style) for p in (pictures[i] for i in first)]
    turned = pictures[::-1]
    again = choose(turned, "train", 20, seed=0)
    assert [(turned[i].concept, turned[i].style) for i in again] == names  # not the files' order
    assert all(pictures[i].split == "train" for i in first) and len(set(names)) == 20
    with caplog.at_level(logging.WARNING):
        assert len(choose(pictures, "heldout", 999, seed=0)) == 12
    assert "12 pairs" in caplog.text
    with pytest.raises(DataError, match="3 styles"):
        choose(made_up()[:2], "train", 5, seed=0)


def test_floor_is_the_same_concept_in_another_style() -> None:
    pictures = made_up()
    places = choose(pictures, "heldout", 12, seed=0)
    for seed in range(20):
        for place, other in zip(places, in_another_style(pictures, places, seed), strict=True):
            assert pictures[other].concept == pictures[place].concept
            assert pictures[other].style != pictures[place].style


def test_derangement_moves_everything() -> None:
    for n in (2, 3, 50):
        order = derangement(n, seed=0)
        assert sorted(order) == list(range(n)) and all(i != j for i, j in enumerate(order))


# 4. The judge


def synthetic() -> tuple[list[RealPicture], Tensor]:
    """Features in which style and concept are plain to see."""
    pictures = made_up()
    g = generator(0)
    concept, style = torch.randn(30, 64, generator=g), torch.randn(4, 64, generator=g)
    features = [
        concept[int(p.concept.split()[1])] + 2 * style[STYLES.index(p.style)] for p in pictures
    ]
    return pictures, torch.stack(features)


def test_judge_tells_good_pictures_from_bad_ones() -> None:
    pictures, features = synthetic()
    concepts, styles = [p.concept for p in pictures], [p.style for p in pictures]
    train = [i for i, p in enumerate(pictures) if p.split == "train"]
    probe = fit_probe(features[train], [styles[i] for i in train])
    judge = Judge(probe, features, concepts, styles)
    noisy = features + 0.3 * torch.randn(features.shape, generator=generator(1))
    good = judge(Seen(noisy, noisy), concepts, styles)
    assert good.style.all() and (good.rank == 0).all() and (good.plain_rank == 0).all()

    order = torch.randperm(len(features), generator=generator(2))
    bad = judge(Seen(noisy, noisy).take(order.tolist()), concepts, styles)
    assert bad.style.float().mean() == pytest.approx(1 / 4, abs=0.12)
    for k in (1, 5):
        assert judge.chance(concepts, styles, k) == pytest.approx(k / 30)
        assert (bad.rank < k).float().mean() == pytest.approx(k / 30, abs=0.1)


def test_concepts_are_looked_up_within_the_asked_style() -> None:
    features = torch.eye(4)
    concepts, styles = ["cat", "dog", "cat", "dog"], ["round", "round", "thin", "thin"]
    judge = Judge(fit_probe(features, styles), features, concepts, styles)
    query = Seen(
        torch.tensor([[0.5, 0.1, 0.0, 0.9]]), torch.eye(4)[:1]
    )  # nearest of all: the thin dog
    assert judge(query, ["cat"], ["round"]).rank.tolist() == [0]
    assert judge(query, ["cat"], ["thin"]).rank.tolist() == [1]


def test_probe_is_right_about_pictures_that_it_has_not_seen() -> None:
    pictures, features = synthetic()
    noisy = features + 1.5 * torch.randn(features.shape, generator=generator(3))
    heldout = [i for i, p in enumerate(pictures) if p.split == "heldout"]
    train = [i for i, p in enumerate(pictures) if p.split == "train"]
    probe = fit_probe(noisy[train], [pictures[i].style for i in train])
    seen = probe(noisy[heldout])
    assert sum(s == pictures[i].style for s, i in zip(seen, heldout, strict=True)) >= 10


def test_skin_tones_are_left_out_of_names() -> None:
    for name, base in {
        "woman with medium-dark skin tone and white hair": "woman with white hair",
        "handshake with light skin tone and dark skin tone": "handshake",
        "kiss between woman, man, dark skin tone and light skin tone": "kiss between woman and man",
        "rightwards thumb sign light skin tone": "rightwards thumb sign",
    }.items():
        assert without_skin_tone(name) == without_skin_tone(base) != without_skin_tone("man")
    pictures, features = synthetic()
    styles = [p.style for p in pictures]
    tones = [f"hand with {t} skin tone" for t in ("light", "dark")]
    probe = fit_probe(features, styles)
    judge = Judge(probe, features[:8], [tones[i // 4] for i in range(8)], styles[:8])
    verdict = judge(
        Seen(features, features).take(range(4)), [tones[1]] * 4, styles[:4]
    )  # light shown, dark asked
    assert (verdict.rank == 1).all() and (verdict.plain_rank == 0).all()


# 5. The autoencoder and the prior


def test_psnr_and_ssim() -> None:
    x = torch.randint(0, 246, (2, 3, 32, 32), generator=generator(0)).byte()
    assert psnr(x, x).tolist() == [100, 100]
    assert psnr(x, x + 10)[0].item() == pytest.approx(28.13, abs=0.01)  # 20 log10(255 / 10)
    assert ssim(x, x).tolist() == pytest.approx([1, 1])
    assert (ssim(x, x + 10) > 0.98).all() and (ssim(x, 255 - x) < 0).all()


def test_baselines_of_the_prior() -> None:
    g = generator(0)
    text, train_text, train_image = (
        F.normalize(torch.randn(n, 8, generator=g), dim=1) for n in (3, 50, 50)
    )
    train_text[7] = text[1]
    found = baselines(text, train_text, train_image, answers := torch.eye(3, 8), [2, 0, 1])
    assert torch.equal(found["nearest training caption"][1], train_image[7])
    assert torch.equal(found["shuffled captions"], answers[[2, 0, 1]])
    assert all(torch.allclose(v.norm(dim=1), torch.ones(3)) for v in found.values())


def test_answers_of_the_prior_are_looked_up_within_the_style() -> None:
    answer, truth = torch.tensor([[1.0, 0.2, 0.5]]), torch.eye(3)
    right = torch.tensor([[False, False, True]])
    assert rank_within(answer, truth, right, torch.tensor([[False, True, True]])).tolist() == [0]
    assert rank_within(answer, truth, right, torch.tensor([[True, True, True]])).tolist() == [1]
    drawn = torch.eye(3).expand(2, 3, 3)
    assert torch.equal(nearest(drawn, torch.eye(3)[[2, 0]]), torch.eye(3)[[2, 0]])


# 6. Features and their cache


def test_cache_is_refused_where_anything_differs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Tensor:
        raise AssertionError("computed again")

    identity = {"data": "1", "weights": "a"}
    cached(tmp_path, "features", identity, lambda: torch.ones(2))
    assert torch.equal(cached(tmp_path, "features", identity, fail), torch.ones(2))
    other = cached(tmp_path, "features", {**identity, "weights": "b"}, lambda: torch.zeros(2))
    assert torch.equal(other, torch.zeros(2))
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    swapped = files[0].read_bytes()
    files[0].write_bytes(files[1].read_bytes())
    files[1].write_bytes(swapped[:40])
    with caplog.at_level(logging.WARNING):
        for name in ("a", "b"):
            told = cached(tmp_path, "features", {**identity, "weights": name}, lambda: torch.eye(2))
            assert torch.equal(told, torch.eye(2))
    assert caplog.text.count("is not used") == 2


def test_extractor_matches_timm() -> None:
    timm = pytest.importorskip("timm")
    extractor = Extractor()
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    weights = torch.load(extractor.path, weights_only=True).values()
    model.load_state_dict(dict(zip(model.state_dict(), weights, strict=True)))
    n = RUN + 2  # more than are looked at at once
    image = torch.randint(0, 256, (n, 3, 128, 128), generator=generator(0)).byte()
    with torch.no_grad():
        x = model.bn1(model.conv_stem(image.float() / 127.5 - 1))
        maps = [x := block(x) for block in model.blocks][-3:]
        expected = model.bn2(model.conv_head(x)).mean(dim=(2, 3))
    seen = Seen.parted(extractor(image))
    assert seen.content.shape == (n, WIDTH)
    assert torch.allclose(seen.content, expected, atol=1e-4)
    statistics = [m.mean(dim=(2, 3)) for m in maps] + [m.std(dim=(2, 3)) for m in maps]
    assert torch.allclose(seen.style, torch.cat(statistics, dim=1), atol=1e-4)
    with pytest.raises(ValueError, match="squares"):
        extractor(image[:, :, :64])
    with pytest.raises(RequestError, match="reinstall"):
        Extractor(Path(__file__))


def test_unknown_part_is_told() -> None:
    assert parts_of("default") == list(PARTS)
    assert set(parts_of("quick")) == set(SUITES["quick"]) < set(PARTS)
    assert parts_of("default", ["prior", "clip"]) == ["clip", "prior"]
    with pytest.raises(RequestError, match="Did you mean 'quick'"):
        parts_of("quik")
    with pytest.raises(RequestError, match="Did you mean 'pictures'"):
        parts_of("default", ["picture"])
