"""Samples -> shards in img2dataset's layout, each file whole or absent."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any, TypeVar

from ldm.data.manifest import Manifest, ShardEntry
from ldm.errors import DataError
from ldm.files import sha256_of, write_atomically

logger = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Sample:
    """A picture as the bytes of a file, its captions (the first is the default), its json."""

    image: bytes
    extension: str
    captions: tuple[str, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)


def shuffled(items: Iterable[_T], content: Callable[[_T], bytes]) -> list[_T]:
    """In the order of a hash of each item's content, so that every shard is a mixture."""
    return sorted(items, key=lambda item: hashlib.sha256(content(item)).digest())


def write_shards(
    samples: Iterable[Sample],
    folder: Path,
    *,
    split: str,
    per_shard: int = 1000,
    versions: tuple[str, ...] = (),
    extra: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write `samples` to `folder`/00000.tar ... and manifest.json last; refuses a used folder."""
    if not 1 <= per_shard <= 10_000:
        raise DataError(f"per_shard is {per_shard}; keys have room for 1 to 10000 samples a shard")
    folder.mkdir(parents=True, exist_ok=True)
    if used := sorted(p.name for p in folder.iterdir() if p.suffix in (".tar", ".json")):
        raise DataError(f"{folder} already holds {used[0]}; name an empty folder or remove it")
    entries: list[ShardEntry] = []
    index: list[dict[str, Any]] = []
    licences = Counter[str]()
    for number, chunk in in_shards(samples, per_shard):
        files = (_files(key_of(number, i), sample) for i, sample in enumerate(chunk))
        entries.append(write_shard(folder / f"{number:05d}.tar", files))
        licences.update(str(s.meta.get("licence", "unknown")) for s in chunk)
        index.extend(_index(number, chunk))
        logger.info("%s: %d samples", entries[-1].name, entries[-1].samples)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in index)
    write_atomically(folder / "index.jsonl", text.encode())
    manifest = Manifest(
        split, tuple(entries), dict(sorted(licences.items())), versions, extra or {}
    )
    manifest.save(folder)
    return manifest


def in_shards(samples: Iterable[_T], per_shard: int) -> Iterator[tuple[int, list[_T]]]:
    """The number of each shard and what belongs in it."""
    source = iter(samples)
    for number in count():
        chunk = list(islice(source, per_shard))
        if not chunk:
            return
        yield number, chunk


def make_empty(folder: Path) -> None:
    """Make `folder`, or find it empty.

    Raises:
        DataError: something is in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise DataError(f"{folder} is not empty; name another folder or remove it")


def key_of(shard: int, index: int) -> str:
    """img2dataset's key: five digits of the shard, four of the place in it."""
    return f"{shard:05d}{index:04d}"


def write_shard(path: Path, samples: Iterable[Mapping[str, Any]]) -> ShardEntry:
    """Write samples (files by extension, and `__key__`) as one tar, whole or not at all."""
    import webdataset

    temporary, count = path.with_suffix(".tar.tmp"), 0
    # A fixed time and owner: the same samples give the same bytes.
    with webdataset.TarWriter(str(temporary), mtime=0, user="ldm", group="ldm") as tar:
        for files in samples:
            tar.write(files)
            count += 1
    temporary.replace(path)
    return ShardEntry(path.name, count, path.stat().st_size, sha256_of(path))


def _files(key: str, sample: Sample) -> dict[str, Any]:
    meta = {"key": key, "captions": list(sample.captions), **sample.meta}
    files: dict[str, Any] = {
        "__key__": key,
        sample.extension: sample.image,
        "json": json.dumps(meta, ensure_ascii=False).encode(),
    }
    if sample.captions:
        files["txt"] = sample.captions[0].encode()
    return files


def _index(number: int, chunk: list[Sample]) -> Iterator[dict[str, Any]]:
    """What index.jsonl says of each sample: enough to find a picture by what it shows."""
    for index, sample in enumerate(chunk):
        line = {"key": key_of(number, index), **sample.meta}
        yield line | {"caption": sample.captions[0] if sample.captions else ""}
