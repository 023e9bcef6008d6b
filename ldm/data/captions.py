"""Several captions for one image, so that a prompt need not follow one form."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ldm.data.wordnet import Words

_PLURAL_LOOKALIKES = ("ss", "us", "is", "os")
_LINKS = (" with ", " of ", " in ", " on ", " without ", " between ", " and ", " holding ")
_CONSONANT_VOWELS = ("uni", "use", "uk", "one", "eu", "ufo")
_MOST = 7  # captions with the style, and as many without
_NO_ARTICLE = ("keycap", "zzz", "santa claus", "mrs. claus", "mount fuji", "tokyo tower")


def with_article(name: str) -> str:
    """ "red apple" -> "a red apple"; plurals and proper names stay bare."""
    low = name.lower()
    if low.startswith("flag of "):
        return f"the {name}"
    if low.startswith(_NO_ARTICLE) or _is_plural(low):
        return name
    vowel = low[:1] in "aeiou" and not low.startswith(_CONSONANT_VOWELS)
    return f"{'an' if vowel or low[:1] == '8' else 'a'} {name}"


def captions(
    name: str,
    style: str,
    *,
    synonyms: Sequence[str] = (),
    tags: Sequence[str] = (),
    words: Words | None = None,
) -> list[str]:
    """Captions of an image of `name` in `style`, at most 14; the first is the default one.

    About half of them tell the style. Which synonyms, tags and words of WordNet appear is drawn
    from a hash of name and style, so that it is the same on every machine.
    """
    thing, found = with_article(name), words or Words()
    salt = f"{style}|{name}"
    alike = _pick([*found.synonyms, *found.hyponyms], salt, 2)
    nouns = _pick(found.nouns, salt, 2)
    kinds = _pick(found.hypernyms, salt, 1)
    others = _pick([s for s in synonyms if s.lower() != name.lower()], salt, 2)
    extra = _pick([t for t in tags if t not in name.lower()], f"{name}|{style}", 4)
    with_style = [
        f"{thing}, {style} style",
        f"{style} emoji of {thing}",
        f"{style} {name}",
        *(f"{with_article(w)}, {style} style" for w in (*alike[-1:], *nouns[-1:], *others[-1:])),
        *(f"{thing}, {w}, {style} style" for w in extra[-1:]),
        f"{name} in {style} style",
    ]
    without = [
        name,
        thing,
        *(with_article(w) for w in (*alike[:1], *nouns[:1])),
        *(f"{thing}, {w}" for w in kinds),
        *others[:1],
        *([f"{name}, {', '.join(extra[:2])}"] if extra else []),
        f"an emoji of {thing}",
    ]
    told, untold = (list(dict.fromkeys(c))[:_MOST] for c in (with_style, without))
    return told + [c for c in untold if c not in told]


def _is_plural(name: str) -> bool:
    for link in _LINKS:
        name = name.partition(link)[0]
    if name.split(" ")[0] in ("men", "women", "people"):
        return True
    return name.endswith("s") and not name.endswith(_PLURAL_LOOKALIKES)


def _pick(items: Sequence[str], salt: str, count: int) -> list[str]:
    def rank(item: str) -> bytes:
        return hashlib.sha256(f"{salt}|{item}".encode()).digest()

    return sorted(dict.fromkeys(items), key=rank)[:count]
