"""One name for one concept, whatever an icon set calls it.

Icon sets name the same emoji differently ("bear", "bear-face", "1f43b"). The code point decides
where a set gives one; elsewhere the name is looked up among all names known for a code point.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ldm.data.wordnet import WordNet, Words

# Sources of nicknames in emojibase-data, the most careful first.
_SHORTCODES = ("cldr", "emojibase", "joypixels", "iamcal", "github")
# The fields of WordNet in which a noun is looked for, by the first and the last subgroup of
# emojibase: the rest, such as faces, symbols and flags, are called by their names alone.
_FIELDS = {
    (12, 13): ("animal",),
    (16, 22): ("body",),
    (23, 30): ("person", "tops"),
    (34, 39): ("animal",),
    (40, 41): ("plant",),
    (42, 43): ("food", "plant"),
    (44, 46): ("food",),
    (47, 47): ("food", "artifact"),
    (48, 48): ("artifact",),
    (49, 50): ("object", "artifact"),
    (51, 57): ("artifact",),
    (58, 58): ("artifact",),
    (59, 59): ("object", "phenomenon"),
    (60, 61): ("artifact",),
    (62, 64): ("artifact", "act"),
    (65, 72): ("artifact", "communication"),
    (73, 76): ("artifact", "communication", "possession"),
    (77, 82): ("artifact", "substance"),
}
_FILLERS = ("face", "button", "symbol", "sign", "emoji")
_LINKS = {"family": "of", "flag": "of", "kiss": "between", "couple with heart": "between"}


@dataclass(frozen=True)
class Concept:
    """What a picture shows: a readable name, other names, words that describe it.

    `words` are those of WordNet: everyday words that no emoji has for a name.
    """

    name: str
    code: str | None = None
    synonyms: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    words: Words = Words()


@dataclass
class Dictionary:
    """All that is known about emoji: by code point, and code points by squeezed name."""

    concepts: dict[str, Concept] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    nicknames: dict[str, str] = field(default_factory=dict)
    words: set[str] = field(default_factory=set)

    def resolve(self, names: Iterable[str], code: str | None, coded: bool) -> Concept:
        """The concept of an icon with these names; `coded`: its set gives code points."""
        names = list(names)
        if code in self.concepts:
            return self._with_synonyms(self.concepts[code], names)
        # A set with code points uses private ones for pictures of its own: a nickname such as
        # "apple" would then be a company's sign taken for a fruit, so only full labels count.
        tables = (self.labels,) if coded else (self.labels, self.nicknames)
        for table in tables:
            for name in names:
                for key in _lookups(name):
                    if key in table:
                        return self._with_synonyms(self.concepts[table[key]], names)
        spaced = [n.replace("-", " ") if coded else self.spaced(n) for n in names]
        return Concept(spaced[0], None, tuple(spaced[1:]))

    def spaced(self, name: str) -> str:
        """An icon's name in words: hyphens to spaces, run-together words apart if known."""
        return " ".join(" ".join(split_words(word, self.words)) for word in name.split("-"))

    def _with_synonyms(self, concept: Concept, names: list[str]) -> Concept:
        # Names with a skin tone or a direction differ in spelling only; they teach nothing.
        extra = {n.replace("-", " ") for n in names if "-" in n and not n.startswith("flag")}
        if "skin tone" in concept.name:
            extra = set()
        known = {squeeze(s) for s in (concept.name, *concept.synonyms)}
        more = tuple(sorted(s for s in extra if squeeze(s) not in known))
        return replace(concept, synonyms=concept.synonyms + more)


def squeeze(name: str) -> str:
    """A name reduced to its letters and digits, for comparison."""
    plain = unicodedata.normalize("NFKD", name.lower().replace("&", "and"))
    return re.sub(r"[^a-z0-9#*]", "", plain)


def normal_code(code: str) -> str:
    """Code points in lower case, without the variation selector that sets use at will."""
    return "-".join(p for p in code.lower().split("-") if p != "fe0f")


def readable(label: str) -> str:
    """A label as a phrase: "man: dark skin tone, beard" -> "man with dark skin tone and beard"."""
    label = label.replace("“", "").replace("”", "").replace("’", "'")
    head, colon, rest = label.partition(": ")
    if not colon:
        return label
    if head == "keycap":
        return f"keycap {rest}"
    parts = rest.split(", ")
    listed = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    link = _LINKS.get(head, "with")
    if link == "between" and "skin tone" in parts[0]:
        link = "with"
    return f"{head} {link} {listed}"


def split_words(word: str, vocabulary: set[str]) -> list[str]:
    """A run-together word as the fewest known words; the word itself if that is impossible."""
    best: list[list[str] | None] = [[]]
    for end in range(1, len(word) + 1):
        options = [
            [*before, word[start:end]]
            for start in range(end)
            if (before := best[start]) is not None and word[start:end] in vocabulary
        ]
        best.append(min(options, key=len) if options else None)
    return best[-1] or [word]


def load_dictionary(
    emojibase: Path, charts: Iterable[Mapping[str, str]], wordnet: WordNet
) -> Dictionary:
    """Read emojibase-data (a package folder) and the sets' own name -> code point charts."""
    book, groups = Dictionary(), {}
    for entry in json.loads((emojibase / "en" / "data.json").read_text("utf-8")):
        for item in (entry, *entry.get("skins", ())):
            _add(book, item, tuple(entry.get("tags", ())))
            groups[normal_code(item["hexcode"])] = entry.get("subgroup", -1)
    _widen(book, groups, wordnet)
    for chart in charts:
        for name, code in chart.items():
            if normal_code(code) in book.concepts:
                book.labels.setdefault(squeeze(name), normal_code(code))
                book.words.update(w for w in name.split("-") if len(w) > 2 and w.isalpha())
    for source in _SHORTCODES:
        path = emojibase / "en" / "shortcodes" / f"{source}.json"
        for code, names in json.loads(path.read_text("utf-8")).items():
            if normal_code(code) in book.concepts:
                for name in [names] if isinstance(names, str) else names:
                    book.nicknames.setdefault(squeeze(name), normal_code(code))
    return book


def _add(book: Dictionary, item: Mapping[str, Any], tags: tuple[str, ...]) -> None:
    code, name = normal_code(item["hexcode"]), readable(item["label"])
    book.concepts[code] = Concept(name, code, (), tuple(t for t in tags if t != name))
    book.labels.setdefault(squeeze(item["label"]), code)
    words = [w for text in (item["label"], *tags) for w in re.findall(r"[a-z]+", text.lower())]
    book.words.update(w for w in words if len(w) > 2)


def _widen(book: Dictionary, groups: Mapping[str, int], wordnet: WordNet) -> None:
    """Give each concept its words of WordNet, none of them the name of another concept."""
    names = {c.name.lower() for c in book.concepts.values()}
    names |= {" ".join(w for w in n.split() if w not in _FILLERS) for n in names}
    for code, concept in book.concepts.items():
        fields = next((f for (a, b), f in _FIELDS.items() if a <= groups[code] <= b), ())
        found = wordnet.words(
            concept.name, tags=concept.tags, fields=fields, fillers=_FILLERS, avoid=names
        )
        # A noun alone would leave the skin tone open.
        tone = re.search(" with .*skin tone.*", concept.name)
        nouns = tuple(f"{n}{tone[0]}" for n in found.nouns) if tone else found.nouns
        book.concepts[code] = replace(concept, words=replace(found, nouns=nouns))


def _lookups(name: str) -> list[str]:
    key = squeeze(name)
    found = [key, key.replace("flagfor", "flag", 1), key.removeprefix("flagfor")]
    if re.search(r"-(light|medium|dark)$", name):
        found.append(key + "skintone")
    if key.endswith("flag"):
        found.append("flag" + key.removesuffix("flag"))
    return found
