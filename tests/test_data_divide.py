"""Dividing shards: every sample is in exactly one of the two folders, byte for byte."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ldm.data.divide import divide
from ldm.data.manifest import verify
from ldm.data.reader import Raw, read_manifest, read_whole
from ldm.data.shards import ShardConfig, ShardStream
from ldm.errors import DataError

FIXTURE = Path(__file__).parent / "fixtures" / "emoji" / "train"
SCRIPT = Path(__file__).parents[1] / "scripts" / "divide_shards.py"


def samples(folder: Path) -> list[Raw]:
    return [raw for e in read_manifest(str(folder)).shards for raw in read_whole(str(folder), e)]


def test_every_sample_is_copied_whole_to_the_folder_that_its_caption_names(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    made = divide(FIXTURE, "NOTO", a, b, per_shard=30)
    before = samples(FIXTURE)
    wanted = [raw for raw in before if b"noto" in raw.files["txt"]]
    assert samples(a) == wanted
    assert samples(b) == [raw for raw in before if raw not in wanted]
    assert [m.samples for m in made] == [len(wanted), len(before) - len(wanted)]
    for folder, manifest in zip((a, b), made, strict=True):
        verify(folder)
        assert sum(manifest.licences.values()) == manifest.samples
        assert manifest.extra == read_manifest(str(FIXTURE)).extra
    assert max(s.samples for s in made[1].shards) == 30


def test_a_folder_named_twice_is_met_twice_in_an_epoch(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    divide(FIXTURE, "face", a, b)
    stream = ShardStream(ShardConfig(sources=(str(a), str(b), str(a)), size=16, batch_size=7))
    met = Counter(key for batch in stream.epoch() for key in batch.key)
    assert met == Counter({raw.key: 2 for raw in samples(a)} | {raw.key: 1 for raw in samples(b)})


@pytest.mark.parametrize(
    ("pattern", "told"),
    [("(", "no regular expression"), ("zebra crossing", "0 of"), ("", "one of the two folders")],
)
def test_a_pattern_that_divides_nothing_is_refused(tmp_path: Path, pattern: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        divide(FIXTURE, pattern, tmp_path / "a", tmp_path / "b")
    assert not list(tmp_path.glob("*/*"))


def test_the_script_refuses_a_folder_in_use(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(FIXTURE), "face", tmp_path / "a", tmp_path / "b"]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "samples" in first.stdout
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2
    assert "is not empty" in again.stderr
