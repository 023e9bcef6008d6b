"""A dozen plain prompts and some new combinations, four images of each, for people to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ldm.errors import RequestError
from ldm.evaluation.caption import clip_score
from ldm.evaluation.figures import Figure, mean_figure
from ldm.evaluation.grids import sheet
from ldm.evaluation.section import Bench, Section

PLAIN = (
    "a red apple",
    "a cat",
    "a car",
    "a pizza",
    "an octopus",
    "a house",
    "a smiling face",
    "a guitar",
    "a tree",
    "a snowman",
    "the flag of France",
    "a bicycle",
)
NEW = (
    "a blue apple",
    "a green cat, openmoji style",
    "a pink octopus, noto style",
    "a black snowman, twemoji style",
    "a pizza with a smiling face, fluent style",
    "a purple banana, emojione style",
)
"""What no training image shows."""
PROMPTS = {"prompts": PLAIN, "prompts-new": NEW}
"""By the names of their grids."""
SEEDS = 4
OTHERS = "pictures of the other prompts"


def evaluate(bench: Bench, groups: Mapping[str, Sequence[str]] = PROMPTS) -> Section:
    """A sheet of each group of prompts, and how well CLIP finds each prompt in its images.

    Raises:
        RequestError: fewer than two prompts, or one twice.
    """
    prompts = [prompt for group in groups.values() for prompt in group]
    if len(prompts) < 2 or len(set(prompts)) < len(prompts):
        raise RequestError(f"{len(prompts)} prompts: give two or more, each of them once")
    options, n = bench.options, len(prompts)
    asked, seeds = [p for p in prompts for _ in range(SEEDS)], bench.seeds(SEEDS) * n
    drawn, settings = bench.pictures(asked, seeds, **options.prior, **options.decoder)
    images = drawn.unflatten(0, (n, SEEDS))
    scores = _scores(bench, prompts, images)
    others = torch.tensor([float(_without(row, i).mean()) for i, row in enumerate(scores)])
    rows: dict[str, dict[str, Figure]] = {
        prompt: {"CLIP score": mean_figure(scores[i, i])} for i, prompt in enumerate(prompts)
    }
    rows[OTHERS] = {"CLIP score": mean_figure(others)}
    parts = images.split([len(group) for group in groups.values()])
    return Section(
        title="Prompts to look at",
        notes=(
            f"Each prompt with seeds {bench.options.seed} to {bench.options.seed + SEEDS - 1}, in "
            "the rows of its grid from above; none was chosen. CLIP score: 100 times the cosine to "
            "the prompt by the model's own CLIP, over the images; the intervals are those of "
            f"{SEEDS} images. The last row gives each prompt the images of all others.",
        ),
        protocol={
            "prompts": len(prompts),
            "seeds": bench.seeds(SEEDS),
            "clip": bench.pipe.clip.fingerprint(),
            "settings": settings,
        },
        rows=rows,
        grids={
            name: sheet(list(part.transpose(0, 1)), group, columns=6, largest=None)
            for (name, group), part in zip(groups.items(), parts, strict=True)
        },
        shown={name: tuple(group) for name, group in groups.items()},
    )


def _scores(bench: Bench, prompts: Sequence[str], images: Tensor) -> Tensor:
    """CLIP score of every prompt with every picture: [prompts prompts seeds]."""
    clip, flat = bench.pipe.clip, images.flatten(0, 1)
    text = clip.text(list(prompts)).pooled.cpu()
    image = bench.over(flat, clip.image, "CLIP images")
    every = [clip_score(image, t.expand_as(image)) for t in text]
    return torch.stack(every).unflatten(1, (len(prompts), SEEDS))


def _without(row: Tensor, i: int) -> Tensor:
    """All of [m k] but [i]."""
    return torch.cat([row[:i], row[i + 1 :]])
