"""Data sets in memory: order, resumption, and the toy distributions."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
import torch

from ldm.data.arrays import ArrayStream
from ldm.data.batch import Batch
from ldm.data.digits import Digits, Mnist
from ldm.data.toys import Heartbeat, Mixture, SwissRoll
from ldm.errors import DataError


def numbers(n: int) -> Batch:
    return Batch(key=tuple(map(str, range(n))), point=torch.arange(n).float()[:, None])


def test_each_epoch_holds_each_sample_once_in_another_order() -> None:
    stream = ArrayStream(numbers(10), batch_size=5, seed=3)
    batches = list(islice(stream.batches(), 6))
    epochs = [sum((b.key for b in batches[2 * i : 2 * i + 2]), ()) for i in range(3)]
    assert all(sorted(e) == sorted(map(str, range(10))) for e in epochs)
    assert len(set(epochs)) == 3
    for batch in batches:
        assert batch.point is not None
        assert [str(int(v)) for v in batch.point[:, 0]] == list(batch.key)


def test_a_batch_may_span_epochs_and_the_stream_resumes_anywhere() -> None:
    stream = ArrayStream(numbers(7), batch_size=4, seed=1)
    straight = [b.key for b in islice(stream.batches(), 9)]
    assert sorted(sum(straight, ())[:7]) == sorted(map(str, range(7)))
    for start in range(9):
        assert next(iter(stream.batches(start_batch=start))).key == straight[start]


def test_a_pass_is_in_the_given_order() -> None:
    assert [b.key for b in ArrayStream(numbers(3), batch_size=2).epoch()] == [("0", "1"), ("2",)]


def test_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="no sample"):
        ArrayStream(numbers(0), batch_size=2)
    with pytest.raises(DataError, match="batch_size"):
        ArrayStream(numbers(2), batch_size=0)


def test_toys_have_the_law_that_they_state() -> None:
    roll = SwissRoll().points()
    assert roll.mean(0).abs().max() < 1e-5 and roll.square().mean() == pytest.approx(1, abs=1e-4)
    points, label = Mixture(n=50_000).draw()
    assert (label == 0).float().mean() == pytest.approx(0.8, abs=0.01)
    assert points[label == 1].mean(0) == pytest.approx(torch.tensor([-5.0, -5.0]), abs=0.05)
    beats = Heartbeat(n=100).points()
    assert (beats.sum(1) == 4).all() and torch.equal(beats[:, 5:], beats[:, :-5])
    with pytest.raises(DataError, match="adding up to 1"):
        Mixture(weights=(0.5, 0.4))


def test_digits_have_two_parts_without_overlap() -> None:
    train, test = Digits().whole(), Digits(part="test").whole()
    assert len(train) + len(test) == 1797 and not set(train.key) & set(test.key)
    assert train.image is not None and train.image.shape[1:] == (1, 8, 8)
    assert train.image.max() == 255 and set(train.label.tolist()) == set(range(10))  # type: ignore


def test_mnist_reads_the_files_of_the_package(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fetch_mnist"):
        Mnist(folder=str(tmp_path)).whole()
    for digit in range(10):
        values = [digit / 9] * (784 * 5)
        (tmp_path / f"{digit}.json").write_text(json.dumps({"data": values}))
    whole = Mnist(folder=str(tmp_path), part="all").whole()
    assert whole.image is not None and whole.image.shape == (50, 1, 28, 28)
    means = whole.image.float().mean((1, 2, 3)) / 255 * 9
    assert torch.equal(means.round().long(), whole.label)  # type: ignore[arg-type]
