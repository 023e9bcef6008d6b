"""A dozen plain prompts, four pictures of each: what the model does, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ldm.errors import RequestError
from ldm.evaluation.caption import clip_score
from ldm.evaluation.figures import Figure, mean_figure
from ldm.evaluation.grids import sheet
from ldm.evaluation.section import Bench, Section

PROMPTS = (
    "a red apple, noto style",
    "a red apple, openmoji style",
    "a grinning face, twemoji style",
    "a grinning face, fluent style",
    "a crying cat, noto style",
    "a red heart, emojione style",
    "a green leaf, twemoji style",
    "a sailboat, fluent style",
    "a yellow star, fxemoji style",
    "a house with a garden, noto style",
    "a police car, openmoji style",
    "the flag of Japan, twemoji style",
)
SEEDS = 4
OTHERS = "pictures of the other prompts"


def evaluate(bench: Bench, prompts: Sequence[str] = PROMPTS) -> Section:
    """A sheet of the prompts, and how well CLIP finds each in its pictures.

    Raises:
        RequestError: fewer than two prompts, or one twice.
    """
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
    return Section(
        title="Plain prompts",
        notes=(
            f"Each prompt with seeds {bench.options.seed} to {bench.options.seed + SEEDS - 1}, in "
            "the rows of the grid from above; none was chosen. CLIP score: 100 times the cosine to "
            "the prompt by the model's own CLIP, over the pictures; the intervals are those of "
            f"{SEEDS} pictures. The last row gives each prompt the pictures of all others.",
        ),
        protocol={
            "prompts": len(prompts),
            "seeds": bench.seeds(SEEDS),
            "clip": bench.pipe.clip.fingerprint(),
            "settings": settings,
        },
        rows=rows,
        grids={"prompts": sheet(list(images.transpose(0, 1)), prompts, columns=6)},
        shown={"prompts": tuple(prompts)},
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
