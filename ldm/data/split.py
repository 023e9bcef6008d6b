"""The deterministic split: which concept x style pairs no part may ever be trained on."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable

from ldm.data.emoji import Picture

HELDOUT_FRACTION = 0.08
MIN_STYLES = 3


def is_chosen(pair: str, fraction: float = HELDOUT_FRACTION) -> bool:
    """Whether the hash of "concept|style" falls in the held-out share."""
    number = int.from_bytes(hashlib.sha256(pair.encode()).digest()[:8], "big")
    return number < fraction * 2**64


def split_pictures(
    pictures: Iterable[Picture], fraction: float = HELDOUT_FRACTION
) -> dict[str, list[Picture]]:
    """{"train": ..., "heldout": ...}.

    A pair can be held out if its concept exists in at least three styles, so that what it shows
    can be learned elsewhere, and if no other pair shows the very same pixels.
    """
    pictures = list(pictures)
    styles: dict[str, set[str]] = defaultdict(set)
    pairs_of_pixels: dict[bytes, set[str]] = defaultdict(set)
    for picture in pictures:
        styles[picture.concept.name.lower()].add(picture.style)
        pairs_of_pixels[picture.png].add(picture.pair)
    shared = Counter(p for pairs in pairs_of_pixels.values() if len(pairs) > 1 for p in pairs)
    split: dict[str, list[Picture]] = {"train": [], "heldout": []}
    for picture in pictures:
        eligible = len(styles[picture.concept.name.lower()]) >= MIN_STYLES
        held = eligible and picture.pair not in shared and is_chosen(picture.pair, fraction)
        split["heldout" if held else "train"].append(picture)
    return split
