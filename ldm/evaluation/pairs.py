"""Which concept x style pairs are asked of a model; a function of the data and a seed alone."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Sequence

from ldm.data.split import MIN_STYLES
from ldm.errors import DataError
from ldm.evaluation.real import RealPicture

logger = logging.getLogger(__name__)


def choose(pictures: Sequence[RealPicture], split: str, count: int, seed: int) -> list[int]:
    """The places of `count` pictures of `split`, one a pair, all of them where there are fewer.

    Only concepts that exist in at least three styles take part, which is the rule for held-out
    pairs, so that the two splits ask for concepts of one kind.
    """
    styles = _styles(pictures)
    pairs: dict[tuple[str, str], int] = {}
    for i, p in enumerate(pictures):
        if p.split == split and len(styles[p.concept]) >= MIN_STYLES:
            pairs.setdefault((p.concept, p.style), i)
    chosen = sorted(pairs, key=lambda pair: _draw(seed, *pair))[:count]
    if len(chosen) < 2:
        raise DataError(
            f"{split} has {len(chosen)} pairs whose concept exists in {MIN_STYLES} styles or more; "
            "at least 2 are needed to ask for"
        )
    if len(chosen) < count:
        logger.warning("%s has %d pairs to ask for, not %d", split, len(chosen), count)
    return [pairs[pair] for pair in chosen]


def in_another_style(
    pictures: Sequence[RealPicture], places: Sequence[int], seed: int
) -> list[int]:
    """For each place a picture of the same concept in another style, drawn by the seed."""
    by_concept = defaultdict(list)
    for i, p in enumerate(pictures):
        by_concept[p.concept].append(i)

    def partner(place: int) -> int:
        asked = pictures[place]
        others = [i for i in by_concept[asked.concept] if pictures[i].style != asked.style]
        return min(others, key=lambda i: _draw(seed, asked.style, pictures[i].style))

    return [partner(place) for place in places]


def some_of(
    pictures: Sequence[RealPicture], places: Sequence[int], count: int, seed: int
) -> list[int]:
    """At most `count` of the places, drawn by the seed, whatever the order of the files."""

    def drawn(place: int) -> bytes:
        return _draw(seed, "some", pictures[place].concept, pictures[place].style)

    return sorted(places, key=drawn)[:count]


def derangement(n: int, seed: int) -> list[int]:
    """A permutation of 0..n-1 that leaves nothing in its place; n is at least 2."""
    order = sorted(range(n), key=lambda i: _draw(seed, "derangement", str(i)))
    moved = dict(zip(order, [*order[1:], order[0]], strict=True))
    return [moved[i] for i in range(n)]


def _styles(pictures: Sequence[RealPicture]) -> dict[str, set[str]]:
    styles = defaultdict(set)
    for p in pictures:
        styles[p.concept].add(p.style)
    return styles


def _draw(seed: int, *words: str) -> bytes:
    return hashlib.sha256("|".join([str(seed), *words]).encode()).digest()
