"""Other words for what a phrase names, from the noun files of WordNet.

Fellbaum (ed.), "WordNet: An Electronic Lexical Database", 1998; the files' format is that of
wndb(5WN), senseidx(5WN) and lexnames(5WN), https://wordnet.princeton.edu/documentation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ldm.data.wordnet_words import BLOCKED, GENERAL, heads, plural, singulars
from ldm.errors import DataError

# The lexicographer files of nouns, by their number: the broad field of each sense.
_FIELDS = """
adj.all adj.pert adv.all tops act animal artifact attribute body cognition communication event
feeling food group location motive object person phenomenon plant possession process quantity
relation shape state substance time
"""
FIELDS = tuple(_FIELDS.split())

_YOUNG = re.compile(r"^(?:an? |the )?young (?:domestic |female |male )?([a-z]+)(?=$|[;,(]| \()")
_COARSE = re.compile(r"\b(?:offensive|disparaging|derogatory|insulting|slang|obscene|vulgar)\b")
_COMMON = 12  # a word in at least so many definitions is an everyday one
_MOST = 4  # words of a kind that are kept


@dataclass(frozen=True)
class Synset:
    """A sense: the words that share it, its definition, and its place among the others."""

    offset: int
    field: str
    lemmas: tuple[str, ...]
    gloss: str
    hypernyms: tuple[int, ...] = ()
    hyponyms: tuple[int, ...] = ()


@dataclass(frozen=True)
class Words:
    """Words for one thing, the best of each sort first.

    `synonyms` and `hyponyms` may stand for its name, `nouns` are those of its tags that name it
    too, and `hypernyms` tell what it is a kind of.
    """

    synonyms: tuple[str, ...] = ()
    hyponyms: tuple[str, ...] = ()
    hypernyms: tuple[str, ...] = ()
    nouns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Named:
    """A phrase taken apart: the noun that WordNet knows, its sense, and what stands around it."""

    before: str
    noun: str
    after: str
    sense: Synset


@dataclass(frozen=True)
class WordNet:
    """The nouns of WordNet: `lines` by offset, senses by lemma, uses counted in tagged texts."""

    lines: dict[int, str]
    senses: dict[str, tuple[int, ...]]
    uses: dict[tuple[str, int], int] = field(default_factory=dict)
    _met: dict[int, Synset] = field(default_factory=dict)

    # 1. Reading

    @classmethod
    def load(cls, folder: Path) -> WordNet:
        """Read index.noun, data.noun and index.sense of a folder.

        Raises:
            DataError: one of the three is missing.
        """
        try:
            index, data, uses = (
                (folder / name).read_text("utf-8").splitlines()
                for name in ("index.noun", "data.noun", "index.sense")
            )
        except OSError as error:
            raise DataError(f"{folder} holds no WordNet: {error}") from error
        # The lines of the licence at the head of a file begin with two spaces.
        lines = {int(line[:8]): line for line in data if not line.startswith("  ")}
        senses = dict(_senses(line) for line in index if not line.startswith("  "))
        return cls(lines, senses, dict(_uses(uses)))

    def synset(self, offset: int) -> Synset:
        """The sense whose line begins with this offset."""
        if offset not in self._met:
            self._met[offset] = _synset(offset, self.lines[offset])
        return self._met[offset]

    def look_up(self, phrase: str) -> tuple[Synset, ...]:
        """The senses of a noun in singular or plural, the most frequent first; () if unknown."""
        for form in singulars(phrase.lower().replace(" ", "_")):
            if form in self.senses:
                found = (self.synset(o) for o in self.senses[form])
                return tuple(s for s in found if not _COARSE.search(s.gloss))
        return ()

    @cached_property
    def mentions(self) -> Counter[str]:
        """In how many definitions each word stands: a measure of how well it is known."""
        words: Counter[str] = Counter()
        for line in self.lines.values():
            words.update(set(re.findall(r"[a-z]+", line.partition(" | ")[2])))
        return words

    @cached_property
    def young(self) -> dict[str, tuple[int, ...]]:
        """Senses defined as a young one of some animal, by the animal: "cat" -> kitten."""
        found: dict[str, tuple[int, ...]] = {}
        for offset, line in self.lines.items():
            if FIELDS[int(line[9:11])] == "animal":
                met = _YOUNG.match(line.partition(" | ")[2].strip())
                if met:
                    found[met[1]] = (*found.get(met[1], ()), offset)
        return found

    # 2. Choosing a sense

    def name(
        self, phrase: str, *, tags: Sequence[str], fields: Sequence[str], fillers: Collection[str]
    ) -> Named | None:
        """The longest noun in a phrase with a sense in `fields`: the whole phrase, or its head.

        The head is the end of what stands before the first preposition; `fillers` are words that
        add nothing ("face" in "cat face") and do not count.
        """
        for before, noun, after in heads(phrase, fillers):
            sense = self.sense(noun, tags=[*tags, *phrase.split()], fields=fields)
            if sense is not None:
                return Named(before, noun, after, sense)
        return None

    def sense(self, noun: str, *, tags: Sequence[str], fields: Sequence[str]) -> Synset | None:
        """The sense whose definition shares most with the tags; ties to the first.

        Simplified Lesk algorithm (Kilgarriff and Rosenzweig, 2000), with the lemmas of the
        sense's hypernyms added to its definition. An earlier field goes before a later one; a
        rare sense that shares nothing is none.
        """
        wanted = {w for t in tags for w in re.findall(r"[a-z]+", t.lower())} - {noun.lower()}
        options, key = self.look_up(noun), noun.lower().replace(" ", "_")

        def shared(sense: Synset) -> int:
            # The bonus of a sense in use keeps a single chance word from deciding.
            return len(self._described(sense) & wanted) + (
                self.uses.get((key, sense.offset), 0) > 0
            )

        for kind in fields:
            here = [s for s in options if s.field == kind]
            best = max(here, key=shared, default=None)
            if best and (len(options) == 1 or shared(best) or self._is_usual(key, best.offset)):
                return best
        return None

    def _described(self, sense: Synset) -> set[str]:
        above = [self.synset(o) for o in self._above(sense)]
        text = " ".join([sense.gloss, *sense.lemmas, *(w for s in above for w in s.lemmas)])
        return {w for w in re.findall(r"[a-z]+", text.lower()) if len(w) > 2}

    def _above(self, sense: Synset) -> list[int]:
        """Offsets of all hypernyms, the nearest first."""
        found = list(sense.hypernyms)
        for offset in found:
            found.extend(o for o in self.synset(offset).hypernyms if o not in found)
        return found

    # 3. Words of a sense

    def words(
        self,
        phrase: str,
        *,
        tags: Sequence[str] = (),
        fields: Sequence[str] = FIELDS,
        fillers: Collection[str] = (),
        avoid: Collection[str] = (),
    ) -> Words:
        """What else the thing that a phrase names may be called.

        Args:
            phrase: such as "black cat with red collar"; what stands around the noun is kept.
            tags: words that describe the thing; they decide between the senses of the noun.
            fields: lexicographer fields that the noun and its tags may belong to, the best first.
            fillers: words of the phrase that add nothing.
            avoid: names of other things, in lower case; they are never given.
        """
        named = self.name(phrase, tags=tags, fields=fields, fillers=fillers)
        if named is None:
            return Words()
        sense, noun = named.sense, named.noun.lower()
        shunned = {*avoid, phrase.lower(), noun, *singulars(noun)}

        def kept(found: Iterator[str], most: int = _MOST) -> list[str]:
            fit = [w for w in dict.fromkeys(found) if shunned.isdisjoint([w, plural(w)])]
            return fit[:most]

        def framed(word: str) -> str:
            many = self._is_plural(named.noun) and not self._is_plural(word)
            return f"{named.before}{plural(word) if many else word}{named.after}"

        nouns = kept(self._related(sense, tags, fields))
        plain = GENERAL.isdisjoint([noun, *sense.lemmas])
        if named.before and plain and self._is_shown(named.noun, sense):
            nouns.insert(0, named.noun)
        kinds = kept(self._kinds(sense))
        # What the noun means with an adjective is less sure: the tags have to confirm it.
        sure = (
            not named.before
            or sense.field == "person"
            or bool(({*sense.lemmas} - {noun}) & {*tags})
        )
        alike = kept(self._usual(sense)) if sure and plain else []
        return Words(
            synonyms=tuple(map(framed, alike)),
            hyponyms=() if named.before or named.after else tuple(map(framed, kinds)),
            hypernyms=tuple(kept(self._general(sense), 2)),
            nouns=tuple(nouns),
        )

    def _is_plural(self, noun: str) -> bool:
        key = noun.lower().replace(" ", "_")
        return key not in self.senses and bool(self.look_up(noun))

    def _usual(self, sense: Synset) -> Iterator[str]:
        """The lemmas that mean this sense in everyday use, as words."""
        for lemma in sense.lemmas:
            if self._is_usual(lemma, sense.offset):
                yield lemma.replace("_", " ")

    def _is_usual(self, lemma: str, offset: int, phrase: bool = False) -> bool:
        parts = re.split("[_-]", lemma)
        # A capital letter marks a proper name or a Latin one.
        if not re.fullmatch("[a-z_-]+", lemma) or not BLOCKED.isdisjoint([lemma, *parts]):
            return False
        senses = self.senses.get(lemma, ())
        uses = self.uses.get((lemma, offset), 0)
        if uses:
            return 2 * uses >= max(self.uses.get((lemma, o), 0) for o in senses)
        known = all(self.mentions[p] >= _COMMON * len(parts) for p in parts)
        return (
            known and "-" not in lemma and senses[:1] == (offset,) and (phrase or len(parts) == 1)
        )

    def _is_shown(self, noun: str, sense: Synset) -> bool:
        """Nouns of people and bodies mean much else: they have to be usual in this sense."""
        return sense.field not in ("body", "person") or self._is_usual(noun, sense.offset)

    def _kinds(self, sense: Synset) -> Iterator[str]:
        """Young ones, then hyponyms of one and two steps that texts use, the most used first.

        Only of things that come in kinds: kinds of people are roles, or insults.
        """
        if sense.field not in ("animal", "artifact", "food", "plant"):
            return
        for offset in self._young_of(sense):
            for young in self.synset(offset).lemmas:
                known = self._is_usual(young, offset) or self.mentions[young] > 1
                if known and young.isalpha() and young not in BLOCKED:
                    yield young
        near = [self.synset(o) for o in sense.hyponyms]
        far = [self.synset(o) for s in near for o in s.hyponyms]
        used = [
            (self.uses[lemma, s.offset], lemma)
            for s in (*near, *far)
            for lemma in s.lemmas
            if self.uses.get((lemma, s.offset), 0) > 1 and self._is_usual(lemma, s.offset)
        ]
        yield from (w.replace("_", " ") for _, w in sorted(used, key=lambda u: -u[0]))

    def _young_of(self, sense: Synset) -> list[int]:
        """Offsets of the senses defined as a young one of this animal."""
        lemmas = sense.lemmas if sense.field == "animal" else ()
        return [offset for lemma in lemmas for offset in self.young.get(lemma, ())]

    def _general(self, sense: Synset) -> Iterator[str]:
        """One word for each of the nearest hypernyms that say something."""
        for offset in self._above(sense)[:4] if sense.field != "body" else ():
            above = self.synset(offset)
            if GENERAL.isdisjoint(above.lemmas):
                plain = [w for w in above.lemmas if self._is_usual(w, offset, phrase=True)]
                yield from (w.replace("_", " ") for w in plain[:1])

    def _related(self, sense: Synset, tags: Sequence[str], fields: Sequence[str]) -> Iterator[str]:
        """The tags that name the thing: of the same sense, one above or below, or a sister."""
        own = {sense.offset, *self._above(sense), *self._young_of(sense)}
        for tag in tags:
            plain = re.fullmatch("[a-z][a-z -]+", tag) and BLOCKED.isdisjoint(tag.split())
            if not plain or self._is_plural(tag):
                continue
            for other in self.look_up(tag):
                line = {other.offset, *self._above(other)}
                sisters = bool(set(other.hypernyms) & set(sense.hypernyms))
                near = other.offset in own or sense.offset in line
                near = near or (sisters and sense.field != "person")
                near = near and self._is_shown(tag, other)
                if other.field in fields and near and GENERAL.isdisjoint(other.lemmas):
                    yield tag
                    break


# 4. Lines of the files


def _synset(offset: int, line: str) -> Synset:
    head, _, gloss = line.partition(" | ")
    parts = head.split()
    count = int(parts[3], 16)
    lemmas = tuple(parts[4 : 4 + 2 * count : 2])
    pointers = parts[5 + 2 * count :]
    above, below = (
        tuple(
            int(pointers[i + 1])
            for i in range(0, len(pointers) - 3, 4)
            if pointers[i] in symbols and pointers[i + 2] == "n"
        )
        for symbols in (("@", "@i"), ("~",))
    )
    definition = gloss.partition('; "')[0].strip()
    return Synset(offset, FIELDS[int(parts[1])], lemmas, definition, above, below)


def _senses(line: str) -> tuple[str, tuple[int, ...]]:
    lemma, _, count, *rest = line.split()
    return lemma, tuple(int(o) for o in rest[-int(count) :])


def _uses(lines: Sequence[str]) -> Iterator[tuple[tuple[str, int], int]]:
    for line in lines:
        key, offset, _, count = line.split()
        lemma, _, place = key.partition("%")
        if place.startswith("1:") and count != "0":
            yield (lemma, int(offset)), int(count)
