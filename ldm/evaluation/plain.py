"""Forty plain prompts without a style, each drawn once: does the judge see what was asked?

An image is right where one of the five concepts nearest to it counts as the asked one. A concept is
as near as its nearest real image, in whatever style. n prompts; k concepts
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ldm.errors import DataError
from ldm.evaluation.features import Seen
from ldm.evaluation.figures import Figure, known_figure, mean_figure
from ldm.evaluation.grids import sheet
from ldm.evaluation.judge import Judge, without_skin_tone
from ldm.evaluation.pairs import some_of
from ldm.evaluation.retrieval import chance, ranks
from ldm.evaluation.samples import Critic, about, look, make_critics
from ldm.evaluation.section import Bench, Section

PROMPTS: dict[str, tuple[str, ...]] = {
    "a cat": ("cat", "cat face", "cat side", "black cat"),
    "a dog": ("dog", "dog face", "dog side", "guide dog", "service dog"),
    "a horse": ("horse", "horse face"),
    "a pig": ("pig", "pig face", "pig side"),
    "an elephant": ("elephant",),
    "a turtle": ("turtle",),
    "a butterfly": ("butterfly", "monarch butterfly"),
    "a frog": ("frog",),
    "a penguin": ("penguin",),
    "a fish": ("fish", "tropical fish", "goldfish"),
    "a bird": ("bird", "black bird"),
    "an octopus": ("octopus",),
    "an apple": ("apple", "red apple", "green apple"),
    "a banana": ("banana",),
    "a strawberry": ("strawberry",),
    "a pizza": ("pizza",),
    "a hamburger": ("hamburger",),
    "a cake": ("cake", "birthday cake", "shortcake"),
    "a mushroom": ("mushroom", "brown mushroom"),
    "a car": ("automobile", "oncoming automobile", "sport utility vehicle"),
    "a bicycle": ("bicycle",),
    "a bus": ("bus", "oncoming bus"),
    "a train": ("train", "locomotive", "high-speed train", "bullet train"),
    "a boat": ("sailboat", "speedboat", "motor boat", "canoe"),
    "an airplane": ("airplane", "small airplane", "airplane departure", "airplane arrival"),
    "a rocket": ("rocket",),
    "a house": ("house", "house with garden", "house building"),
    "a tree": ("deciduous tree", "evergreen tree", "palm tree", "leafless tree", "christmas tree"),
    "a flower": (
        "blossom", "cherry blossom", "hibiscus", "hyacinth", "rose", "sunflower", "tulip",
    ),
    "the sun": ("sun", "sun with face"),
    "a star": ("star", "glowing star"),
    "a red heart": ("red heart", "heart suit"),
    "a snowman": ("snowman", "snowman without snow"),
    "a guitar": ("guitar",),
    "a book": ("closed book", "open book", "blue book", "green book", "orange book", "books"),
    "a key": ("key", "old key"),
    "an umbrella": ("umbrella", "closed umbrella", "umbrella with rain drops"),
    "a camera": ("camera", "camera with flash"),
    "a crown": ("crown",),
    "a robot": ("robot",),
}  # fmt: skip
"""Each with the names of the emoji that count as what it asks for."""
FIRST, FIVE = "concept top-1", "concept top-5"
REAL = 4
"""Real images of a prompt that the ceiling is measured on, at most."""


def evaluate(bench: Bench, prompts: Mapping[str, Sequence[str]] = PROMPTS) -> Section:
    """How often the nearest concepts hold one that counts, beside real images as a ceiling.

    Raises:
        DataError: no real image shows what a prompt asks for.
    """
    options, real = bench.options, bench.real
    places = places_of(bench, prompts)
    asked = list(places)
    seeds = bench.seeds(len(asked))
    drawn, settings = bench.pictures(asked, seeds, **options.prior, **options.decoder)
    shown = {p: some_of(real, places[p], REAL, options.seed) for p in asked}
    through = bench.reconstructed([i for some in shown.values() for i in some])
    sizes = [len(some) for some in shown.values()]
    rows: dict[str, dict[str, Figure]] = {}
    details: list[dict[str, Any]] = [
        {"prompt": prompt, "seed": seed, "accepted": list(prompts[prompt])}
        for prompt, seed in zip(asked, seeds, strict=True)
    ]
    critics = make_critics(bench)
    for critic in critics:
        right = accepted(critic.judge, [prompts[p] for p in asked])
        near = _near(bench, critic, drawn)
        rank = ranks(near, right)
        rows[f"generated{critic.label}"] = _row(rank, [1] * len(asked))
        repeated = right.repeat_interleave(torch.tensor(sizes), dim=0)
        rows[f"real through the autoencoder (ceiling){critic.label}"] = _row(
            ranks(_near(bench, critic, through), repeated), sizes
        )
        for record, five, place in zip(
            details, near.topk(min(5, near.shape[1])).indices.tolist(), rank.tolist(), strict=True
        ):
            record[f"rank{critic.label}"] = place
            record[f"nearest{critic.label}"] = [critic.judge.names[j] for j in five]
    rows["chance"] = {
        name: known_figure(chance(right, k).mean().item(), len(asked), "%")
        for name, k in ((FIRST, 1), (FIVE, 5))
    }
    first = [sum(sizes[:i]) for i in range(len(sizes))]
    return Section(
        title="Plain prompts, judged",
        notes=(
            "Each prompt names an everyday thing and no style, and is drawn once. Concept top-k: "
            "of the k concepts nearest to the image one counts as the asked thing (the records in "
            "the JSON file say which do). All real images, train and held-out together and of "
            "whatever style, are compared by the features that judge the pictures of pairs; a "
            "concept is as near as the nearest of its images and has one vote, its skin tones "
            "share one.",
            f"Ceiling: up to {REAL} real images of the accepted concepts through the autoencoder, "
            "averaged by prompt; they are among those compared with. Chance: a random order of "
            "all concepts.",
            *_left_out(prompts, asked),
            "Grid: drawn over a real image through the autoencoder.",
        ),
        protocol={
            **about(critics),
            "prompts": len(asked),
            "concepts": len(critics[0].judge.names),
            "seeds": f"image i has seed {options.seed} + i",
            "settings": settings,
            **bench.resize,
        },
        rows=rows,
        details=tuple(details),
        grids={"plain-prompts": sheet([drawn, through[first]], asked)},
        shown={"plain-prompts": tuple(asked)},
    )


def places_of(bench: Bench, prompts: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """The places of the real images that show what a prompt asks for, where there are any.

    Raises:
        DataError: there are none at all.
    """
    by_name: dict[str, list[int]] = {}
    for i, p in enumerate(bench.real):
        by_name.setdefault(without_skin_tone(p.concept), []).append(i)
    found = {
        prompt: [i for name in map(without_skin_tone, names) for i in by_name.get(name, ())]
        for prompt, names in prompts.items()
    }
    kept = {prompt: places for prompt, places in found.items() if places}
    if not kept:
        raise DataError(
            f"no real image shows what one of the {len(prompts)} plain prompts asks for: give the "
            "emoji data set, or other parts of the evaluation (--only)"
        )
    return kept


def accepted(judge: Judge, names: Sequence[Sequence[str]]) -> Tensor:
    """Which of the judge's concepts count for each of the prompts: bool [n k]."""
    plain = [set(map(without_skin_tone, some)) for some in names]
    return torch.tensor([[concept in some for concept in judge.names] for some in plain])


def _near(bench: Bench, critic: Critic, images: Tensor) -> Tensor:
    """Cosine [n k] of images uint8 [n 3 s s] to the judge's concepts."""
    seen: Seen = look(bench, critic.extractor, images)
    return critic.judge.by_concept(seen.content)


def _row(rank: Tensor, sizes: Sequence[int]) -> dict[str, Figure]:
    """Shares of images with a rank below 1 and 5, the prompts (of so many images) being items."""

    def share(k: int) -> Figure:
        groups = (rank < k).double().split(list(sizes))
        return mean_figure(torch.stack([group.mean() for group in groups]), "%")

    return {FIRST: share(1), FIVE: share(5)}


def _left_out(prompts: Mapping[str, Sequence[str]], asked: Sequence[str]) -> list[str]:
    """A note on the prompts that no real image can answer, if there are any."""
    missing = [prompt for prompt in prompts if prompt not in asked]
    return [f"Not asked, the data has no image of it: {', '.join(missing)}."] if missing else []
