"""One folder of shards as two: the samples whose caption matches a pattern, and the others.

A stream that names one of them more often than the other trains on a mixture of another proportion
than the folder's own: `sources=("others", "others", "others", "matching")`.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ldm.data.manifest import Manifest
from ldm.data.reader import Raw, read_manifest, read_whole
from ldm.data.writer import in_shards, make_empty, write_shard
from ldm.errors import DataError

logger = logging.getLogger(__name__)


def divide(
    source: Path, pattern: str, matching: Path, others: Path, *, per_shard: int = 1000
) -> tuple[Manifest, Manifest]:
    """Copy the samples of `source` into two folders, in its order and under their own keys.

    Args:
        source: folder of shards: of pictures, or encoded ones.
        pattern: regular expression, looked for anywhere in the first caption, whatever its case.
        matching, others: folders to write, empty or new; each gets its manifest last.
        per_shard: samples in a shard that is written.

    Returns:
        The manifests of `matching` and `others`.

    Raises:
        DataError: the pattern is none, or divides nothing; a folder is in use; a shard is damaged.
    """
    try:
        found = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise DataError(f"{pattern!r} is no regular expression: {error}") from error
    for folder in (matching, others):
        make_empty(folder)
    manifest = read_manifest(str(source))
    hits = sum(_matches(raw, found) for raw in _raws(source, manifest))
    if hits in (0, manifest.samples):
        raise DataError(
            f"{hits} of {manifest.samples} captions in {source} match {pattern!r}: one of the two "
            "folders would be empty"
        )

    def copy(folder: Path, wanted: bool) -> Manifest:
        chosen = (raw for raw in _raws(source, manifest) if _matches(raw, found) == wanted)
        return _write(chosen, manifest, folder, per_shard)

    return copy(matching, True), copy(others, False)


def _raws(source: Path, manifest: Manifest) -> Iterator[Raw]:
    for entry in manifest.shards:
        yield from read_whole(str(source), entry)


def _matches(raw: Raw, pattern: re.Pattern[str]) -> bool:
    return pattern.search(raw.files.get("txt", b"").decode("utf-8", "replace")) is not None


def _write(raws: Iterator[Raw], source: Manifest, folder: Path, per_shard: int) -> Manifest:
    """Shards of the samples as they are, and the manifest of the source made theirs."""
    entries, licences = [], Counter[str]()
    for number, chunk in in_shards(raws, per_shard):
        files = ({"__key__": raw.key, **raw.files} for raw in chunk)
        entries.append(write_shard(folder / f"{number:05d}.tar", files))
        licences.update(_licence(raw) for raw in chunk)
        logger.info("%s: %d samples", folder / entries[-1].name, entries[-1].samples)
    made = replace(source, shards=tuple(entries), licences=dict(sorted(licences.items())))
    made.save(folder)
    return made


def _licence(raw: Raw) -> str:
    return str(json.loads(raw.files.get("json", b"{}")).get("licence", "unknown"))
