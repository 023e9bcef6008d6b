"""From emoji packages to shards: the work behind scripts/make_shards.py --emoji."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ldm.data.captions import captions
from ldm.data.emoji import SETS, Picture, fetch_packages, load_pictures, render_all
from ldm.data.manifest import Manifest, write_atomically
from ldm.data.split import HELDOUT_FRACTION, MIN_STYLES, split_pictures
from ldm.data.writer import Sample, shuffled, write_shards

_WORDS = {s.style: s.words for s in SETS}


@dataclass(frozen=True, kw_only=True)
class EmojiJob:
    """What to make of the emoji sets; `limit` keeps so many pictures, shared concepts first."""

    out: Path
    cache: Path
    packages: Path | None = None
    size: int = 128
    styles: tuple[str, ...] = ()
    limit: int | None = None
    per_shard: int = 1000
    workers: int = 1


def make_emoji(job: EmojiJob) -> dict[str, Manifest]:
    """Render, caption, split and write: OUT/train, OUT/heldout, OUT/pairs.json."""
    packages = fetch_packages(job.cache, job.packages)
    pictures = load_pictures(packages, job.styles)
    if job.limit is not None:
        pictures = _limited(pictures, job.limit)
    visible = len(pictures)
    pictures = render_all(pictures, job.size, job.workers)
    extra = {"size": job.size, "visible_icons": visible, "twins_dropped": visible - len(pictures)}
    versions = tuple(sorted({p.source for p in pictures}))
    manifests = {}
    split = split_pictures(pictures)
    for name, part in split.items():
        samples = shuffled((_sample(p) for p in part), _content)
        manifests[name] = write_shards(
            samples,
            job.out / name,
            split=name,
            per_shard=job.per_shard,
            versions=versions,
            extra=extra,
        )
    _write_pairs(job.out / "pairs.json", split)
    return manifests


def _sample(picture: Picture) -> Sample:
    concept = picture.concept
    words = _WORDS[picture.style]
    texts = captions(
        concept.name, words, synonyms=concept.synonyms, tags=concept.tags, words=concept.words
    )
    meta = {
        "name": concept.name,
        "style": picture.style,
        "style_words": words,
        "licence": picture.licence,
        "source": picture.source,
        "icon": picture.icon,
        "code": concept.code,
    }
    return Sample(picture.png, "png", tuple(texts), meta)


def _content(sample: Sample) -> bytes:
    return json.dumps([0, sample.captions, sample.meta], sort_keys=True).encode() + sample.image


def _limited(pictures: list[Picture], limit: int) -> list[Picture]:
    """Concepts that exist in most styles first, in the order of a hash, up to `limit` pictures."""
    styles = Counter(p.concept.name for p in pictures)

    def rank(picture: Picture) -> tuple[int, bytes]:
        name = picture.concept.name
        return -styles[name], hashlib.sha256(name.encode()).digest()

    order = sorted(pictures, key=rank)
    return order[:limit]


def _write_pairs(path: Path, split: dict[str, list[Picture]]) -> None:
    """The list of concept x style pairs of each side, for whoever judges the model."""
    rule = f"sha256(concept|style) below {HELDOUT_FRACTION}, concept in >= {MIN_STYLES} styles"
    body = {"rule": rule, **{name: _pairs(part) for name, part in split.items()}}
    write_atomically(path, (json.dumps(body, indent=0, ensure_ascii=False) + "\n").encode())


def _pairs(pictures: Iterable[Picture]) -> list[list[str]]:
    return [list(p) for p in sorted({(q.concept.name, q.style) for q in pictures})]
