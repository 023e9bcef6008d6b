"""Do the prior's answers vary as true image embeddings do, in every direction?

Answers that are all near the mean, or that follow the few strongest directions alone, have a fair
cosine to the truth and little variety. b embeddings; e width; k resamples
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ldm.evaluation.figures import Figure, resampled_figure
from ldm.evaluation.pairs import choose
from ldm.evaluation.prior import DEPENDS, ONE, answered
from ldm.evaluation.section import Bench, Section
from ldm.pca import principal

if TYPE_CHECKING:
    from PIL import Image

OTHERS = "other true pictures (floor)"
STRONG = 10
"""How many of the strongest directions have a column of their own."""


def variances(embeddings: Tensor, directions: Tensor) -> Tensor:
    """Variance of embeddings [b e] (or of resamples [k b e]) along the columns of [e e]: [.. e].

    The diagonal of the covariance in that basis.
    """
    return (embeddings.double() @ directions).var(dim=-2)


def coverage(truth: Tensor, answer: Tensor) -> Tensor:
    """sum_i min(v_i, l_i) / sum_i l_i of variances along the directions i, [.. e] each -> [..].

    l_i is that of true embeddings, v_i that of answers. 1 where answers vary as much as the truth
    or more in every direction; what is too much in one makes up for nothing in another.
    """
    return torch.minimum(answer, truth).sum(-1) / truth.sum(-1)


def spectrum_row(truth: Tensor, answer: Tensor, directions: Tensor) -> dict[str, Figure]:
    """Figures of answers [b e] beside the true embeddings [b e] of the same pairs."""
    true_at, answer_at = (v.double() @ directions for v in (truth, answer))

    def both(picks: Tensor) -> tuple[Tensor, Tensor]:
        return true_at[picks].var(dim=1), answer_at[picks].var(dim=1)

    def strong(picks: Tensor) -> Tensor:
        return coverage(*(v[:, :STRONG] for v in both(picks)))

    def total(picks: Tensor) -> Tensor:
        of_truth, of_answer = both(picks)
        return of_answer.sum(1) / of_truth.sum(1)

    n = len(truth)
    return {
        "coverage": resampled_figure(lambda p: coverage(*both(p)), n, "%"),
        f"coverage, {STRONG} strongest": resampled_figure(strong, n, "%"),
        "total variance": resampled_figure(total, n, "%"),
    }


def evaluate(bench: Bench) -> Section:
    """Coverage of the true spectrum by the prior's answers and by what needs no prior."""
    answers, truth = answered(bench)
    directions = principal(bench.image_embeddings("train")).directions
    answers = {name: a for name, a in answers.items() if len(a.unique(dim=0)) > 1}
    del answers["shuffled captions"]  # the same answers in another order
    answers[OTHERS] = _others(bench, len(truth))
    rows = {name: spectrum_row(truth, answer, directions) for name, answer in answers.items()}
    plot = _plot({"true pictures": truth, **answers}, directions)
    return Section(
        title="Spectrum of the prior",
        notes=(
            "Coverage: the sum over directions i of min(v_i, l_i) divided by the sum of l_i; l_i "
            "and v_i are the variances of true embeddings and of answers along the principal "
            "directions of the training pictures' embeddings. Total variance: sum of v_i over sum "
            "of l_i. One answer to each caption, so v_i holds what differs between captions and "
            "what differs between draws.",
            "Floor: as many other held-out pictures, which fall short by chance alone.",
            f"Plot: variances by direction, strongest first, for the truth, {ONE}, the text "
            "embedding and the floor.",
        ),
        protocol={
            "split": "heldout",
            "pairs": len(truth),
            "directions": f"{directions.shape[1]}, of {len(bench.real.of('train'))} train pictures",
            "clip": bench.pipe.clip.fingerprint(),
            **bench.resize,
        },
        depends=DEPENDS,
        rows=rows,
        grids={"prior-spectrum": plot},
        shown={"prior-spectrum": ()},
    )


def _others(bench: Bench, count: int) -> Tensor:
    """True embeddings [count e] of held-out pictures that were not asked, as far as there are."""
    asked = set(choose(bench.real, "heldout", bench.options.pairs, bench.options.seed))
    rest = [row for row, place in enumerate(bench.real.of("heldout")) if place not in asked]
    rest = rest or list(range(len(bench.real.of("heldout"))))
    order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(bench.options.seed))
    # Repeated where the split is small: spectrum_row wants as many as there are pairs.
    picks = [rest[int(order[i % len(rest)])] for i in range(count)]
    return bench.image_embeddings("heldout")[picks]


def _plot(embeddings: Mapping[str, Tensor], directions: Tensor) -> Image.Image:
    from ldm.evaluation.plots import Point, lines

    shown = ("true pictures", ONE, "text embedding", OTHERS)
    series = {
        name: [
            Point(i + 1, max(float(v), 1e-7))
            for i, v in enumerate(variances(embeddings[name], directions))
        ]
        for name in shown
    }
    return lines(series, "principal direction", "variance", logx=True, logy=True)
