"""Several captions for one picture, so that a prompt need not follow one form."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

_PLURAL_LOOKALIKES = ("ss", "us", "is", "os")
_LINKS = (" with ", " of ", " in ", " on ", " without ", " between ", " and ", " holding ")
_CONSONANT_VOWELS = ("uni", "use", "uk", "one", "eu", "ufo")
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
    name: str, style: str, *, synonyms: Sequence[str] = (), tags: Sequence[str] = ()
) -> list[str]:
    """Captions of a picture of `name` in `style`; the first is the default one.

    About half of them tell the style. Which synonyms and tags appear is drawn from a hash of
    name and style, so that it is the same on every machine.
    """
    thing = with_article(name)
    with_style = [
        f"{thing}, {style} style",
        f"{style} emoji of {thing}",
        f"{name} in {style} style",
        f"{style} {name}",
    ]
    without = [name, thing, f"an emoji of {thing}"]
    others = _pick([s for s in synonyms if s.lower() != name.lower()], f"{style}|{name}", 2)
    words = _pick([t for t in tags if t not in name.lower()], f"{name}|{style}", 4)
    if others:
        without.append(others[0])
        with_style.append(f"{with_article(others[-1])}, {style} style")
    if words:
        without.append(f"{name}, {', '.join(words[:2])}")
        with_style.append(f"{thing}, {words[-1]}, {style} style")
    return list(dict.fromkeys(with_style + without))


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
