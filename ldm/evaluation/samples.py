"""Are the pictures what was asked for? Generated ones beside real ones, a ceiling and a floor."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from ldm.evaluation.cache import cached
from ldm.evaluation.features import COARSE, NAME, SHARP, VIEWS, Extractor, Seen, View
from ldm.evaluation.figures import Figure, known_figure, mean_figure
from ldm.evaluation.grids import sheet
from ldm.evaluation.judge import Judge, Verdicts, fit_probe
from ldm.evaluation.pairs import in_another_style
from ldm.evaluation.real import SPLITS, RealPictures
from ldm.evaluation.section import Bench, Section

if TYPE_CHECKING:
    from PIL import Image

COLUMNS = (
    "style",
    "concept top-1",
    "concept top-5",
    "top-1, any skin tone",
    "top-5, any skin tone",
)
NOTES = (
    f"Judged by features of {NAME}. Style: a linear probe, trained on real train pictures, sees "
    "the asked style. Concept top-k: a picture of the asked concept is among the k nearest "
    "(cosine) of all real pictures of the asked style, train and held-out together; `any skin "
    "tone` counts concepts that differ in skin tone alone as one.",
    f"Rows{COARSE.label}: every image, drawn and real, is reduced to that side and enlarged again "
    "before the judge sees it, so that it is judged by what it shows and not by how crisp it is; "
    "the difference between the two rows is what the autoencoder and the last details owe.",
    "Ceiling: the real picture of the pair through the autoencoder. Floor: a real picture of the "
    "same concept in another style. Pairs are of concepts that exist in three styles or more.",
    "The row of all real held-out pictures tells how far the judge can be trusted: its probe "
    "has not seen them, its gallery has.",
    "Grids: real, through the autoencoder, generated, from above.",
)


@dataclass(frozen=True)
class Critic:
    """The judge of one view, with the network that it sees by and what that saw in real images."""

    extractor: Extractor
    features: Seen
    judge: Judge

    @property
    def label(self) -> str:
        """What rows have behind their names."""
        return self.extractor.view.label

    def __call__(self, images: Tensor, concepts: Sequence[str], styles: Sequence[str]) -> Verdicts:
        """Judge images uint8 [n 3 s s] that should show `concepts` in `styles`."""
        return self.judge(Seen.parted(self.extractor(images)), concepts, styles)


class _Asked(NamedTuple):
    """What asking for the pairs of one split gave."""

    rows: dict[str, dict[str, Figure]]
    details: list[dict[str, Any]]
    grid: Image.Image
    captions: tuple[str, ...]
    settings: dict[str, Any]


def evaluate(bench: Bench) -> Section:
    """Style and concept accuracy on asked pairs of both splits."""
    critics = make_critics(bench)
    heldout = bench.real.of("heldout")
    rows = {
        f"heldout: all real pictures{critic.label}": row_of(
            judged(bench.real, critic.judge, heldout, critic.features.take(heldout))
        )
        for critic in critics
    }
    asked = {split: _ask(bench, critics, split) for split in SPLITS}
    for part in asked.values():
        rows |= part.rows
    return Section(
        title="Pictures",
        notes=(*NOTES, _about_reals(bench.real)),
        protocol={
            **about(critics),
            "pairs": {split: len(part.details) for split, part in asked.items()},
            "seeds": f"picture i of a split has seed {bench.options.seed} + i",
            "settings": asked["heldout"].settings,
            **bench.resize,
        },
        rows=rows,
        details=tuple(record for part in asked.values() for record in part.details),
        grids={f"pictures-{split}": part.grid for split, part in asked.items()},
        shown={f"pictures-{split}": part.captions for split, part in asked.items()},
    )


def _ask(bench: Bench, critics: Sequence[Critic], split: str) -> _Asked:
    """Draw and judge the pairs of a split; beside them the ceiling, the floor, the real ones."""
    real, options = bench.real, bench.options
    drawn = bench.drawn(split)
    places, made = drawn.places, drawn.images
    ceiling = bench.reconstructed(places)
    floor = in_another_style(real, places, options.seed)
    seen = {
        "generated": [look(bench, c.extractor, made) for c in critics],
        "real through the autoencoder (ceiling)": [
            look(bench, c.extractor, ceiling) for c in critics
        ],
        "same concept in another style (floor)": [c.features.take(floor) for c in critics],
        "real": [c.features.take(places) for c in critics],
    }
    verdicts = {
        f"{name}{critic.label}": judged(real, critic.judge, places, found)
        for name, views in seen.items()
        for critic, found in zip(critics, views, strict=True)
    }
    first = places[: options.grid]
    captions = tuple(real[i].caption for i in first)
    k = len(first)
    rows = {name: row_of(v) for name, v in verdicts.items()} | {
        "chance": _chance(real, critics[0].judge, places)
    }
    mine = {critic.label: verdicts[f"generated{critic.label}"] for critic in critics}
    return _Asked(
        {f"{split}: {name}": row for name, row in rows.items()},
        _details(bench, places, mine),
        sheet([bench.originals(first), ceiling[:k], made[:k]], captions),
        captions,
        drawn.settings,
    )


def make_critics(bench: Bench, views: Sequence[View] = VIEWS) -> list[Critic]:
    """A critic a view, all of the same real images."""
    critics = []
    for view in views:
        extractor = Extractor(device=bench.pipe.device, view=view)
        features = real_features(bench, extractor)
        critics.append(Critic(extractor, features, make_judge(bench.real, features, view)))
    return critics


def about(critics: Sequence[Critic]) -> dict[str, Any]:
    """For protocols: the network and every view that it has."""
    views = {c.extractor.view.name: c.extractor.view.told() for c in critics}
    return {"extractor": critics[0].extractor.identity(), "views": views}


def judge_images(
    critics: Sequence[Critic], images: Tensor, concepts: Sequence[str], styles: Sequence[str]
) -> dict[str, dict[str, Figure]]:
    """The figures of images uint8 [n 3 s s] that should show `concepts` in `styles`, by view."""
    return {
        f"generated{critic.label}": row_of(critic(images, concepts, styles)) for critic in critics
    }


def real_features(bench: Bench, extractor: Extractor) -> Seen:
    """Features of all real pictures, which come to the network at the size of drawn ones."""
    identity = {"data": bench.real.digest, **bench.resize, **extractor.identity()}
    features = cached(
        bench.options.cache,
        "features",
        identity,
        lambda: bench.batched(
            range(len(bench.real)),
            lambda run: extractor(bench.originals(run)),
            "real pictures",
        ),
    )
    return Seen.parted(features)


def make_judge(real: RealPictures, features: Seen, view: View = SHARP) -> Judge:
    """The judge: its probe knows train pictures only, its gallery all."""
    train = real.of("train")
    probe = fit_probe(features.take(train).style, [real[i].style for i in train])
    concepts, styles = [p.concept for p in real], [p.style for p in real]
    return Judge(probe, features.content, concepts, styles, view.origin(features.content))


def look(bench: Bench, extractor: Extractor, images: Tensor) -> Seen:
    """What the judge sees in pictures, uint8 [n 3 s s]."""
    return Seen.parted(bench.over(images, extractor, "judging"))


def judged(real: RealPictures, judge: Judge, places: Sequence[int], seen: Seen) -> Verdicts:
    """What the judge says of pictures that should show what is at `places`."""
    return judge(seen, [real[i].concept for i in places], [real[i].style for i in places])


def row_of(verdicts: Verdicts) -> dict[str, Figure]:
    """The figures of a row of the table."""
    rank, plain = verdicts.rank, verdicts.plain_rank
    hits = [verdicts.style, rank < 1, rank < 5, plain < 1, plain < 5]
    return {c: mean_figure(hit, "%") for c, hit in zip(COLUMNS, hits, strict=True)}


def _chance(real: RealPictures, judge: Judge, places: Sequence[int]) -> dict[str, Figure]:
    """The row of a model that knows nothing; the columns of `row_of`."""
    concepts, styles = [real[i].concept for i in places], [real[i].style for i in places]
    values = [1 / len(judge.probe.classes)]
    values += [judge.chance(concepts, styles, k, tones=t) for t in (True, False) for k in (1, 5)]
    return {c: known_figure(v, len(places), "%") for c, v in zip(COLUMNS, values, strict=True)}


def _details(
    bench: Bench, places: Sequence[int], verdicts: Mapping[str, Verdicts]
) -> list[dict[str, Any]]:
    """One record a drawn image, with the verdict of each view by its label."""
    return [
        {
            "split": bench.real[i].split,
            "key": bench.real[i].key,
            "caption": bench.real[i].caption,
            "seed": bench.options.seed + j,
        }
        | {
            f"{name}{label}": value
            for label, found in verdicts.items()
            for name, value in _told(found, j).items()
        }
        for j, i in enumerate(places)
    ]


def _told(verdicts: Verdicts, j: int) -> dict[str, Any]:
    """The verdict on one image."""
    return {
        "style": bool(verdicts.style[j]),
        "rank": int(verdicts.rank[j]),
        "rank, any skin tone": int(verdicts.plain_rank[j]),
    }


def _about_reals(real: RealPictures) -> str:
    """How many real pictures cannot be told apart, from their bytes."""
    shown: dict[bytes, set[tuple[str, str]]] = defaultdict(set)
    for p in real:
        shown[p.data].add((p.concept, p.style))
    inside = sum(max(Counter(style for _, style in pairs).values()) > 1 for pairs in shown.values())
    across = sum(len({style for _, style in pairs}) > 1 for pairs in shown.values())
    return (
        f"{len(real)} real pictures. With the very same pixels, {inside} of them show several "
        f"concepts of one style, and {across} are in several styles."
    )
