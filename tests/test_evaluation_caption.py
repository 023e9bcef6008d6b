"""CLIP score and R-precision, exact on made-up embeddings and on models of known quality."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from test_evaluation_report import FIXTURE, Oracle

from ldm.errors import LdmError
from ldm.evaluation.caption import OTHER, OWN, clip_score, evaluate, found_first, others
from ldm.evaluation.judge import without_skin_tone
from ldm.evaluation.pairs import choose
from ldm.evaluation.real import RealPictures, load_real
from ldm.evaluation.section import Bench, Options


@pytest.fixture(scope="module")
def real() -> RealPictures:
    return load_real(FIXTURE)


def bench(real: RealPictures, answer: list[int], clip_model: str | None = None) -> Bench:
    pipe: Any = Oracle(real, answer)
    options = Options(pairs=12, batch_size=16, quiet=True, clip_model=clip_model)
    return Bench(pipe, real, options)


def test_the_score_is_a_hundred_times_the_cosine_and_never_below_nought() -> None:
    image = torch.tensor([[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]])
    text = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert clip_score(image, text).tolist() == pytest.approx([100, 60, 0])


def test_the_own_caption_must_be_nearer_than_every_other() -> None:
    image = torch.tensor([[1.0, 0.0]]).expand(3, 2)
    first, equal, nearer = ([0.8, 0.6], [0.8, -0.6]), ([0.8, 0.6], [0.8, 0.6]), ([0.8, 0.6], [1, 0])
    candidates = torch.tensor([first, equal, nearer]).float()
    candidates[0, 1, 0] = 0.7
    assert found_first(image, candidates).tolist() == [True, False, False]


def test_candidates_are_of_other_concepts_and_drawn_by_the_seed(real: RealPictures) -> None:
    places = choose(real, "train", 12, 0)
    drawn = others(real, "train", places, 0)
    assert drawn == others(real, "train", places, 0) != others(real, "train", places, 1)
    assert {len(d) for d in drawn} == {99}
    for place, some in zip(places, drawn, strict=True):
        asked = without_skin_tone(real[place].concept)
        assert len(set(some)) == 99 and {real[i].split for i in some} == {"train"}
        assert asked not in {without_skin_tone(real[i].concept) for i in some}


def test_a_perfect_model_is_found_and_a_careless_one_is_not(
    real: RealPictures, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        section = evaluate(bench(real, list(range(len(real)))))
    assert "heldout: R-precision among" in caplog.text  # the fixture holds 16 captions of it
    assert "train" not in caplog.text and section.protocol["candidates"]["train"] == 100
    assert section.notes[0] == OWN and len(section.details) == 24
    for split in ("train", "heldout"):
        made = section.rows[f"{split}: generated"]
        assert made == section.rows[f"{split}: real"]
        assert made["R-precision"].value == 1
        assert made["CLIP score"].value == pytest.approx(100, abs=1e-3)
        assert section.rows[f"{split}: shuffled captions (floor)"]["R-precision"].value == 0
    # The oracle's CLIP reads a caption as the picture that it would draw: it cannot be careless
    # with its own captions, but its pictures can be another model's.
    moved = evaluate(bench(real, list(range(len(real)))[::-1])).rows
    assert moved["train: real"]["R-precision"].value < 0.2


def test_another_clip_is_loaded_by_its_folder(real: RealPictures, tiny_model: Path) -> None:
    same = list(range(len(real)))
    section = evaluate(bench(real, same, str(tiny_model / "clip")))
    assert section.notes[0] == OTHER
    assert section.protocol["clip"] != evaluate(bench(real, same)).protocol["clip"]
    assert section.rows["train: generated"] == section.rows["train: real"]
    assert section.rows["train: real"]["R-precision"].value < 0.5  # its weights are random
    with pytest.raises(LdmError, match="no-such-clip"):
        evaluate(bench(real, same, "no-such-clip"))
