"""For ldm.data.wordnet: lemmas that do not belong in a caption, and the forms of English nouns."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

_GENERAL = """
absorbent abstract_entity abstraction act activity adult adventurer alcohol angiosperm animal
animal_material animate_being animate_thing apparel applicator aquatic_vertebrate area artefact
arthropod article artifact atmospheric_phenomenon attribute bacteria being belief beverage
beverages blow blue_blood body_covering body_part booze business capitalist causal_agency
causal_agent cause chemical chordate clothes clothing cognitive_content collection commodity
common_carrier commoner communication communicator construction consumer_goods container
contestant conveyance copy covering craniate creation creativity creator credit curve cutlery
database dead_person decoration deed defender device domestic_animal drug drug_of_abuse
duplication durables electrical_phenomenon electromagnetic_radiation emblem employee end
enrollee enterprise entity equipment event excretory_product extent extremity facility
false_fruit female flat_solid flora fluid food foodstuff formulation game_equipment
geographical_area geological_formation grain groom ground group imagination implement indication
individual instrument instrumentality instrumentation intellectual invertebrate knowledge
laborer leader left lever line liquid list living_thing location makeup male mammal mammalian
manse material matter measure mechanical_device mechanism medium memory_device mercenary message
mute natural_elevation natural_object natural_phenomenon nutrient nutriment object obstruction
offspring oldster organism orifice paper part passage passageway perceiver percipient percoid
person phenomenon physical_entity physical_object physical_phenomenon piece place_of_business
placental plant plant_organ plant_part plate point produce product professional property
psychological_feature radiation region relation relative repository representation
reproductive_structure rice right room round_shape shape share-out sheath simple_machine
skilled_worker solid source_of_illumination spermatophyte spiritual_being square_block standard
stimulant strip structure substance supernatural_being support surface system tableware thing
tracheophyte tract transducer transmission transport traveler traveller unit vascular_plant
vertebrate voltage volume way weather white whole woody_plant work worker workman
written_language
"""

_BLOCKED = """
arse ass asshole babe backside bastard bimbo bitch bitch_goddess blackamoor bloomer bobby boob
bosom breast broad bugger bull_dyke butt buttocks chick chit cock colored coloured coolie coon
cripple crone cunt cur dago dame darkey darky dick dike douche dumbass dummy dyke fag faggot
fairy fanny fille flesh floozy freak fuzz gal gay gipsy gook graybeard greaser gringo gypsy hag
half-breed harlot hoe honky hooker hottie hunk hussy idiot imbecile injun jackass jap jerk jew
jezebel john kike lesbian loony lunatic manhood midget minx missy mistress moll mongol moor
moron mulatto naked negress negro nigga nigger nip nude nymphet octoroon paki pansy papist
pecker peeler peeress pickaninny pimp privy pussy queer raghead redneck redskin retard sex shrew
sissy slag slant-eye slave slut sodomite spastic spic squaw strumpet stud tart tec thong tit
tits tomboy toots tramp tranny trollop twat vixen wanker wench wetback whitey whore wog
womanhood wop yid
"""

# Senses so general, or so technical, that they say nothing of an image.
GENERAL = frozenset(_GENERAL.split())

# Slang, slurs and words with a second, coarse meaning.
BLOCKED = frozenset(_BLOCKED.split())
_LINK = re.compile(r" (?:with|of|in|on|without|between|and|holding|from|over|behind) ")


def heads(phrase: str, fillers: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """(what stands before, noun, what follows) by which a phrase may be known, longest first."""
    yield "", phrase, ""
    link = _LINK.search(phrase)
    body, after = (phrase[: link.start()], phrase[link.start() :]) if link else (phrase, "")
    words = [w for w in body.split() if w.lower() not in fillers]
    # "man raising hand" is a man, "deer crossing" has to be looked up first.
    inner = [i for i in range(1, len(words) - 1) if words[i].endswith("ing")]
    for end in inner[:1]:
        rest = "".join(f" {w}" for w in words[end:]) + after
        yield "".join(f"{w} " for w in words[: end - 1]), words[end - 1], rest
    for end in range(len(words), 0, -1):
        if end < len(words) and not words[end].endswith("ing"):
            return
        rest = "".join(f" {w}" for w in words[end:]) + after
        for start in range(end):
            before = "".join(f"{w} " for w in words[:start])
            yield before, " ".join(words[start:end]), rest


def singulars(word: str) -> Iterator[str]:
    """The word itself, then what it may be the plural of."""
    yield word
    for ending, single in (("ies", "y"), ("ves", "f"), ("es", ""), ("s", ""), ("men", "man")):
        if word.endswith(ending) and len(word) > len(ending) + 1 and not word.endswith("ss"):
            yield word.removesuffix(ending) + single


def plural(word: str) -> str:
    """A regular plural."""
    if re.search("[^aeiou]y$", word):
        return f"{word[:-1]}ies"
    return f"{word}es" if re.search("(s|x|ch|sh)$", word) else f"{word}s"
