"""Words of WordNet: senses, other names, and what captions make of them; on a tiny WordNet."""

from __future__ import annotations

from pathlib import Path

import pytest

from ldm.data.captions import captions
from ldm.data.concepts import load_dictionary
from ldm.data.wordnet import WordNet, Words
from ldm.errors import DataError

# Offset: field, lemmas, hypernyms, definition.
SYNSETS = {
    100: (3, "entity", (), "that which exists"),
    200: (5, "feline", (100,), "a cat-like mammal"),
    300: (5, "cat true_cat", (200,), 'feline kept as a pet; "a cat sleeps"'),
    310: (5, "kitten kitty", (100,), "young domestic cat"),
    320: (5, "tabby", (300,), "a grey one with stripes"),
    330: (5, "alley_cat Siamese", (300,), "a homeless one"),
    340: (5, "mouser pussy tiger", (300,), "a good hunter"),
    350: (5, "tom", (320,), "a male one with stripes"),
    400: (6, "vehicle", (100,), "a conveyance that moves"),
    410: (6, "car auto automobile", (400,), "a vehicle with four wheels"),
    420: (6, "car elevator_car", (100,), "where passengers ride up and down in an elevator shaft"),
    430: (18, "gossip cat", (100,), "a spiteful person"),
    500: (20, "tree", (100,), "a tall plant"),
}
ORDER = {"cat": (430, 300), "car": (410, 420)}
USES = {
    "kitten": 1,
    "tabby": 5,
    "alley_cat": 9,
    "mouser": 3,
    "tiger": 50,
    "pussy": 60,
    "tom": 7,
    "auto": 2,
}
LICENCE = "  1 This software and database is being provided to you\n"


def write_wordnet(folder: Path) -> Path:
    """The three files in their real form: synset lines, index lines, sense keys."""
    data, senses, keys = LICENCE, {}, ""
    for offset, (number, text, above, gloss) in SYNSETS.items():
        lemmas = text.split()
        below = [o for o, s in SYNSETS.items() if offset in s[2]]
        links = [f"@ {o:08d} n 0000" for o in above] + [f"~ {o:08d} n 0000" for o in below]
        words = " ".join(f"{w} 0" for w in lemmas)
        data += f"{offset:08d} {number:02d} n {len(lemmas):02x} {words} {len(links):03d} "
        data += " ".join([*links, f"| {gloss}  \n"])
        for lemma in lemmas:
            senses.setdefault(lemma.lower(), []).append(offset)
            count = USES.get(lemma, 0)
            keys += f"{lemma.lower()}%1:{number:02d}:00:: {offset:08d} 1 {count}\n"
    index = LICENCE
    for lemma in sorted(senses):
        offsets = ORDER.get(lemma, tuple(senses[lemma]))
        places = " ".join(f"{o:08d}" for o in offsets)
        index += f"{lemma} n {len(offsets)} 2 @ ~ {len(offsets)} 0 {places}  \n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.noun").write_text(data)
    (folder / "index.noun").write_text(index)
    (folder / "index.sense").write_text(keys + "car%2:38:00:: 00000410 1 99\n")
    return folder


@pytest.fixture
def wordnet(tmp_path: Path) -> WordNet:
    return WordNet.load(write_wordnet(tmp_path / "dict"))


def test_lines_are_read(wordnet: WordNet) -> None:
    cat = wordnet.synset(300)
    assert (cat.field, cat.lemmas, cat.gloss) == (
        "animal",
        ("cat", "true_cat"),
        "feline kept as a pet",
    )
    assert (cat.hypernyms, cat.hyponyms) == ((200,), (320, 330, 340))
    assert [s.offset for s in wordnet.look_up("cats")] == [430, 300]
    assert wordnet.look_up("zebra") == ()
    assert ("car", 410) not in wordnet.uses  # a verb's count is not a noun's


def test_a_folder_without_the_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no WordNet"):
        WordNet.load(tmp_path)


def test_tags_and_fields_choose_the_sense(wordnet: WordNet) -> None:
    def chosen(noun: str, tags: list[str], fields: list[str]) -> int | None:
        sense = wordnet.sense(noun, tags=tags, fields=fields)
        return sense and sense.offset

    assert chosen("car", ["vehicle", "wheels"], ["artifact"]) == 410
    assert chosen("car", ["elevator", "shaft"], ["artifact"]) == 420
    assert chosen("cat", ["feline"], ["animal"]) == 300
    assert chosen("cat", ["feline"], ["plant"]) is None


def test_the_head_of_a_phrase_is_found(wordnet: WordNet) -> None:
    def taken(phrase: str) -> tuple[str, str, str] | None:
        named = wordnet.name(phrase, tags=["feline"], fields=["animal"], fillers=["face"])
        return named and (named.before, named.noun, named.after)

    assert taken("true cat") == ("", "true cat", "")
    assert taken("cat face") == ("", "cat", "")
    assert taken("black cat with red collar") == ("black ", "cat", " with red collar")
    assert taken("cat chasing wool") == ("", "cat", " chasing wool")
    assert taken("tree") is None


def test_young_ones_come_first_then_hyponyms_by_use(wordnet: WordNet) -> None:
    words = wordnet.words("cat", tags=["feline"], fields=["animal"], avoid=["tiger"])
    tagged = wordnet.words("cat", tags=["feline", "kitten"], fields=["animal"])
    assert tagged.nouns == ("feline", "kitten")
    # Left out: a blocked word, another thing's name, a proper name, a word that no text uses.
    assert words.hyponyms == ("kitten", "alley cat", "tom", "tabby")


def test_synonyms_keep_what_stands_around_the_noun(wordnet: WordNet) -> None:
    words = wordnet.words("old car with flag", tags=["auto", "vehicle"], fields=["artifact"])
    assert words.synonyms == ("old auto with flag",)
    assert words.hyponyms == ()
    assert words.nouns == ("car", "auto", "vehicle")
    # The noun itself among the tags does not confirm what it means with an adjective.
    assert wordnet.words("old car", tags=["car", "wheels"], fields=["artifact"]).synonyms == ()
    assert wordnet.words("old cars", tags=["auto"], fields=["artifact"]).synonyms == ("old autos",)


def test_general_words_are_no_hypernyms(wordnet: WordNet) -> None:
    wordnet.mentions.update({"vehicle": 99, "entity": 99})
    assert wordnet.words("car", tags=["wheels"], fields=["artifact"]).hypernyms == ("vehicle",)
    assert wordnet.words("vehicle", tags=["moves"], fields=["artifact"]).hypernyms == ()
    assert wordnet.words("unheard of") == Words()


def test_captions_of_words_alone_and_with_style() -> None:
    words = Words(("auto",), ("jeep",), ("vehicle",), ("car",))
    forms = captions(
        "automobile", "noto", synonyms=("red car",), tags=("drive", "road"), words=words
    )
    assert forms[0] == "an automobile, noto style"
    assert {"a car", "a car, noto style", "an automobile, vehicle"} <= set(forms)
    alone = {"an auto", "a jeep"}
    assert alone & set(forms) and {f"{a}, noto style" for a in alone} & set(forms)
    assert len(forms) <= 14 and sum("noto" in f for f in forms) == 7


def test_concepts_get_words_but_no_other_concepts_name(tmp_path: Path) -> None:
    codes = tmp_path / "en" / "shortcodes"
    codes.mkdir(parents=True)
    (codes.parent / "data.json").write_text(
        '[{"label": "cat face", "hexcode": "1F431", "tags": ["feline"], "subgroup": 34,'
        ' "skins": [{"label": "cat: dark skin tone", "hexcode": "1F431-1F3FF"}]},'
        '{"label": "tabby", "hexcode": "1", "subgroup": 34}, {"label": "tree", "hexcode": "2"}]'
    )
    for name in ("cldr", "emojibase", "joypixels", "iamcal", "github"):
        (codes / f"{name}.json").write_text("{}")
    wordnet = WordNet.load(write_wordnet(tmp_path / "dict"))
    book = load_dictionary(tmp_path, (), wordnet)
    assert book.concepts["1f431"].words.hyponyms == ("kitten", "tiger", "alley cat", "tom")
    assert book.concepts["1f431-1f3ff"].words.nouns == ("feline with dark skin tone",)
    assert book.concepts["2"].words == Words()
