"""How near does the prior come to the true image embedding, beside what needs no prior?

b pairs; k answers to each; m candidates or training pictures; e embedding width
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.evaluation.cache import cached, digest
from ldm.evaluation.figures import Figure, mean_figure, median_figure
from ldm.evaluation.pairs import choose, derangement
from ldm.evaluation.retrieval import chance, ranks
from ldm.evaluation.section import Bench, Section
from ldm.pipeline import nearest

BEST, ONE, SHUFFLED = "prior, best of 2", "prior, 1 sample", "shuffled captions"
COUNTS = (1, 2, 4)
"""Answers of which the one nearest to the text is kept."""
MOST_PAIRS = 64
"""Pairs at most for which four answers are drawn."""
DEPENDS = ("pairs", "seed", "prior_steps", "prior_guidance")


class Verdict(NamedTuple):
    """Does the prior tell captions apart, and by which difference of cosines."""

    apart: bool
    difference: Figure

    def __str__(self) -> str:
        if self.apart:
            return f"The prior tells captions apart: {self._measured}"
        return f"FLAGGED: the prior does not tell captions apart: {self._measured}"

    @property
    def _measured(self) -> str:
        return (
            "the cosine of its answer with the picture of its own caption, less that of another "
            f"pair's answer, is {self.difference}; it counts if the whole interval is above 0."
        )


def verdict(own: Tensor, shuffled: Tensor) -> Verdict:
    """From cosines [b] with the true embedding: of the answer, and of another pair's answer."""
    difference = mean_figure(own - shuffled)
    assert difference.low is not None
    return Verdict(difference.low > 0, difference)


def evaluate(bench: Bench) -> Section:
    """Cosines, rank and share of pictures found, prior against four baselines; the verdict."""
    real, options = bench.real, bench.options
    answers, truth = answered(bench)
    places = choose(real, "heldout", options.pairs, options.seed)
    heldout, every = real.of("heldout"), bench.image_embeddings("heldout")
    text = bench.text_embeddings("heldout")[_rows(bench, places)]
    same_style = torch.tensor([[real[i].style == real[j].style for j in heldout] for i in places])
    right = F.one_hot(torch.tensor(_rows(bench, places)), len(heldout)).bool()
    rows = {}
    for name, answer in answers.items():
        rank = rank_within(answer, every, right, same_style)
        rows[name] = {
            "cosine": mean_figure(F.cosine_similarity(answer, truth)),
            "cosine to the text": mean_figure(F.cosine_similarity(answer, text)),
            "found first": mean_figure(rank == 0, "%"),
            "median rank": median_figure(rank + 1, "count"),
        }
    told = verdict(*(F.cosine_similarity(answers[n], truth) for n in (ONE, SHUFFLED)))
    return Section(
        title="Prior",
        notes=(str(told), *_notes(right, same_style)),
        protocol={
            **_protocol(bench, len(places)),
            "training pictures": len(real.of("train")),
            # Cosines of two CLIPs are not on one scale: here it is the ruler, not the thing judged.
            "clip": bench.pipe.clip.fingerprint(),
            **bench.resize,
        },
        depends=DEPENDS,
        rows=rows,
        details=({"tells captions apart": told.apart, **told.difference.to_json()},),
    )


def evaluate_best(bench: Bench) -> Section:
    """What is gained by keeping the answer nearest to the text, of 1, 2 and 4."""
    count = min(bench.options.pairs, MOST_PAIRS)
    places = choose(bench.real, "heldout", count, bench.options.seed)
    mine = _rows(bench, places)
    truth, text = (
        e[mine] for e in (bench.image_embeddings("heldout"), bench.text_embeddings("heldout"))
    )
    return Section(
        title="Prior, best of N",
        notes=(
            "Of N answers to a caption the one nearest to its text embedding is kept. Gains are "
            "paired: the difference to the first answer, caption by caption.",
        ),
        protocol={
            **_protocol(bench, len(places)),
            "clip": bench.pipe.clip.fingerprint(),
            **bench.resize,
        },
        depends=DEPENDS,
        rows=best_rows(imagined(bench, places, max(COUNTS)), truth, text),
    )


def best_rows(drawn: Tensor, truth: Tensor, text: Tensor) -> dict[str, dict[str, Figure]]:
    """Cosines of the best of the first N answers [b k e], and what they gain over the first."""
    ways = {"cosine": truth, "cosine to the text": text}
    found = {
        n: {w: F.cosine_similarity(nearest(drawn[:, :n], text), to) for w, to in ways.items()}
        for n in COUNTS
    }
    rows = {f"best of {n}": {w: mean_figure(v) for w, v in found[n].items()} for n in COUNTS}
    for n in COUNTS[1:]:
        rows[f"gain of {n} over 1"] = {w: mean_figure(found[n][w] - found[1][w]) for w in ways}
    return rows


def answered(bench: Bench) -> tuple[dict[str, Tensor], Tensor]:
    """Answers [b e] to the asked held-out captions by way, and the true embeddings [b e]."""
    places = choose(bench.real, "heldout", bench.options.pairs, bench.options.seed)
    mine = _rows(bench, places)
    text = bench.text_embeddings("heldout")[mine]
    drawn = imagined(bench, places, 2)
    answers = {BEST: nearest(drawn, text), ONE: drawn[:, 0]}
    answers |= baselines(
        text, bench.text_embeddings("train"), bench.image_embeddings("train"), answers[ONE],
        derangement(len(places), bench.options.seed),
    )  # fmt: skip
    return answers, bench.image_embeddings("heldout")[mine]


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
        SHUFFLED: answers[list(other)],
        "nearest training caption": train_image[(text @ train_text.T).argmax(dim=1)],
    }


def rank_within(answer: Tensor, truth: Tensor, right: Tensor, allowed: Tensor) -> Tensor:
    """How many wrong allowed candidates are at least as near to an answer as the right one, [b].

    Args:
        answer: [b e]; truth: [m e] embeddings of the candidates.
        right, allowed: [b m] bool.
    """
    return ranks((answer @ truth.T).masked_fill(~allowed, -torch.inf), right)


def imagined(bench: Bench, places: Sequence[int], count: int) -> Tensor:
    """`count` answers [b count e] of the prior to each caption at `places`, pair i with seed i."""
    captions = [bench.real[i].caption for i in places]
    seeds = bench.seeds(len(places))

    def compute(run: Sequence[int]) -> Tensor:
        return bench.pipe.imagine(
            [captions[j] for j in run],
            seed=[seeds[j] for j in run],
            candidates=count,
            all_candidates=True,
            **bench.options.prior,
        ).cpu()

    identity = {
        **bench.made_by,
        "asked": digest([captions, seeds, count]),
        "prior": bench.pipe.samplers(**bench.options.prior).prior.describe(),
    }
    return cached(
        bench.options.cache,
        "imagined",
        identity,
        lambda: bench.batched(range(len(places)), compute, "prior"),
    )


def _rows(bench: Bench, places: Sequence[int]) -> list[int]:
    """Where places are among the held-out pictures."""
    row_of = {place: row for row, place in enumerate(bench.real.of("heldout"))}
    return [row_of[place] for place in places]


def _protocol(bench: Bench, pairs: int) -> dict[str, Any]:
    given = {"steps": bench.options.prior_steps, "guidance": bench.options.prior_guidance}
    asked = {k: v for k, v in given.items() if v is not None}
    seeds = bench.seeds(pairs)
    return {
        "split": "heldout",
        "pairs": pairs,
        "seeds": f"{seeds[0]} to {seeds[-1]}",
        "prior": {**bench.pipe.index.samplers["prior"].describe(), **asked},
    }


def _notes(right: Tensor, allowed: Tensor) -> tuple[str, ...]:
    """What the columns mean; [b m] bool as `rank_within` takes them."""
    b = len(right)
    level = sum(chance(right[i : i + 1, allowed[i]], 1).item() for i in range(b)) / b
    middle = (allowed.sum(dim=1).double().median().item() + 1) / 2
    return (
        "Cosine between an answer and the CLIP embedding of the true held-out picture, and that "
        "of its caption. Rank of the true picture among all held-out pictures of the asked "
        f"style, 1 is the nearest; in random order the median is about {middle:.0f}. Found first: "
        f"rank 1; chance is {100 * level:.1f} %.",
        "Of 2 samples the one nearer to the text embedding is kept. Shuffled: the prior's "
        "answer to another pair's caption. Nearest training caption: the embedding of the "
        "training picture whose caption is nearest to the asked one.",
    )
