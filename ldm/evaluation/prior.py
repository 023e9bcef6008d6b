"""How near does the prior come to the true image embedding, beside what needs no prior?

b pairs; k answers to each; m training pictures; e embedding width
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.evaluation.figures import mean_figure
from ldm.evaluation.pairs import choose, derangement
from ldm.evaluation.retrieval import chance, ranks
from ldm.evaluation.section import Bench, Section
from ldm.pipeline import nearest

BEST, ONE = "prior, best of 2", "prior, 1 sample"


def evaluate(bench: Bench) -> Section:
    """Cosine to the true embedding and share of pictures found, prior against four baselines."""
    real, options = bench.real, bench.options
    places = choose(real, "heldout", options.pairs, options.seed)
    heldout = real.of("heldout")
    row_of = {place: row for row, place in enumerate(heldout)}
    mine = [row_of[place] for place in places]
    truth, text = bench.image_embeddings("heldout"), bench.text_embeddings("heldout")[mine]
    drawn = _imagined(bench, places)
    answers = {BEST: nearest(drawn, text), ONE: drawn[:, 0]}
    answers |= baselines(
        text, bench.text_embeddings("train"), bench.image_embeddings("train"), answers[ONE],
        derangement(len(places), options.seed),
    )  # fmt: skip
    same_style = torch.tensor([[real[i].style == real[j].style for j in heldout] for i in places])
    right = F.one_hot(torch.tensor(mine), len(heldout)).bool()
    rows = {}
    for name, answer in answers.items():
        rows[name] = {
            "cosine": mean_figure(F.cosine_similarity(answer, truth[mine])),
            "found first": mean_figure(found_first(answer, truth, right, same_style), "%"),
        }
    level = sum(
        chance(right[i : i + 1, same_style[i]], 1).item() for i in range(len(places))
    ) / len(places)
    given = {"steps": options.prior_steps, "guidance": options.prior_guidance}
    asked = {k: v for k, v in given.items() if v is not None}
    return Section(
        title="Prior",
        notes=(
            "Cosine between an answer and the CLIP embedding of the true held-out picture. Found "
            "first: the true picture is the nearest among all held-out pictures of the asked "
            f"style; chance is {100 * level:.1f} %.",
            "Of 2 samples the one nearer to the text embedding is kept. Shuffled: the prior's "
            "answer to another pair's caption. Nearest training caption: the embedding of the "
            "training picture whose caption is nearest to the asked one.",
        ),
        protocol={
            "split": "heldout",
            "pairs": len(places),
            "seeds": _span(bench.seeds(len(places))),
            "training pictures": len(real.of("train")),
            "prior": {**bench.pipe.index.samplers["prior"].describe(), **asked},
        },
        rows=rows,
    )


def baselines(
    text: Tensor, train_text: Tensor, train_image: Tensor, answers: Tensor, other: Sequence[int]
) -> dict[str, Tensor]:
    """What the prior must beat: embeddings [b e], unit norm.

    Args:
        text: [b e] of the asked captions; train_text, train_image: [m e] of the training pairs.
        answers: [b e] of the prior; other: for each pair, the pair whose answer it gets instead.
    """
    mean = F.normalize(train_image.mean(dim=0), dim=0).expand_as(text)
    return {
        "text embedding": text,
        "mean training embedding": mean,
        "shuffled captions": answers[list(other)],
        "nearest training caption": train_image[(text @ train_text.T).argmax(dim=1)],
    }


def found_first(answer: Tensor, truth: Tensor, right: Tensor, allowed: Tensor) -> Tensor:
    """Whether no allowed candidate is as near to an answer as the right one, [b] bool.

    Args:
        answer: [b e]; truth: [m e] embeddings of the candidates.
        right, allowed: [b m] bool.
    """
    return ranks((answer @ truth.T).masked_fill(~allowed, -torch.inf), right) == 0


def _imagined(bench: Bench, places: Sequence[int]) -> Tensor:
    """Two answers [b 2 e] of the prior to each caption at `places`, pair i with seed i."""
    captions = [bench.real[i].caption for i in places]
    seeds = bench.seeds(len(places))

    def compute(run: Sequence[int]) -> Tensor:
        return bench.pipe.imagine(
            [captions[j] for j in run],
            seed=[seeds[j] for j in run],
            candidates=2,
            all_candidates=True,
            **bench.options.prior,
        ).cpu()

    return bench.batched(range(len(places)), compute, "prior")


def _span(seeds: Sequence[int]) -> str:
    return f"{seeds[0]} to {seeds[-1]}"
