"""How different are the pictures of a model, of all prompts and of one?

n pictures; c channels of content features
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.evaluation.cache import cached
from ldm.evaluation.features import NAME, Extractor, Seen
from ldm.evaluation.figures import Figure, mean_figure
from ldm.evaluation.grids import sheet
from ldm.evaluation.pairs import choose
from ldm.evaluation.real import SPLITS
from ldm.evaluation.section import Bench, Section

PROMPTS, SEEDS, BLOCKS = 8, 8, 20
MEASURED = (
    f"Content features of {NAME}, scaled to unit norm. Vendi score (Friedman and Dieng 2022, arXiv "
    "2210.02410, definition 3.1) with the cosine as kernel: the effective number of different "
    "pictures, from 1 to N; it grows with N, so only equal N compare. Feature distance: 1 - cosine "
    "of two pictures, averaged over all pairs."
)


def vendi(features: Tensor) -> float:
    """exp(-sum l_i log l_i) over the eigenvalues l_i of K / n, K the cosines of [n c].

    Friedman and Dieng 2022 (arXiv 2210.02410), definition 3.1: 1 for equal pictures, n for
    orthogonal ones.
    """
    x = F.normalize(features.double(), dim=1)
    values = torch.linalg.eigvalsh(x @ x.T / len(x)).clamp_min(0)
    return float(torch.special.entr(values).sum().exp())


def pairwise(features: Tensor) -> float:
    """Mean of 1 - cosine over all pairs of different rows of [n c], n at least 2.

    The sum of all cosines is |sum of the unit vectors|^2, and n of them are of a row with itself.
    """
    n = len(features)
    total = F.normalize(features.double(), dim=1).sum(dim=0).square().sum()
    return float(1 - (total - n) / (n * (n - 1)))


def jackknife_figure(features: Tensor, statistic: Callable[[Tensor], float]) -> Figure:
    """`statistic` of [n c] with the 95 % interval of the jackknife over at most 20 blocks.

    Tukey 1958, "Bias and confidence in not-quite large samples". The bootstrap draws pictures
    twice, and a picture that is there twice is just what such a statistic counts as less diverse.
    """
    n, value = len(features), statistic(features)
    blocks = min(BLOCKS, n)
    if n < 3:
        return Figure(value, None, None, n)
    block = torch.arange(n) % blocks
    without = torch.tensor([statistic(features[block != b]) for b in range(blocks)])
    variance = (blocks - 1) * without.double().var(correction=0)
    half = 1.96 * float(variance.sqrt())
    return Figure(value, value - half, value + half, n)


def evaluate(bench: Bench) -> Section:
    """Diversity of the drawn pictures of both splits, beside as many real ones."""
    extractor = Extractor(device=bench.pipe.device)
    rows, settings = {}, {}
    for split in SPLITS:
        drawn = bench.drawn(split)
        settings[split] = drawn.settings
        beside = {
            "generated": drawn.images,
            "real through the autoencoder": bench.reconstructed(drawn.places),
            "real": bench.originals(drawn.places),
        }
        for name, images in beside.items():
            rows[f"{split}: {name}"] = _row(content(bench, extractor, images))
    return Section(
        title="Diversity",
        notes=(
            f"{MEASURED} Intervals: jackknife over {BLOCKS} blocks.",
            "All rows of a split show the same captions, one picture each.",
        ),
        protocol={
            "extractor": extractor.identity(),
            **bench.resize,
            "seeds": f"picture i of a split has seed {bench.options.seed} + i",
            "settings": settings["heldout"],
        },
        rows=rows,
    )


def evaluate_prompts(bench: Bench) -> Section:
    """How different the pictures of one prompt are when only the seed changes."""
    extractor = Extractor(device=bench.pipe.device)
    places = choose(bench.real, "heldout", PROMPTS, bench.options.seed)
    prompts, seeds = len(places), bench.seeds(SEEDS)
    drawn = bench.draw(
        [i for i in places for _ in seeds],
        seeds * prompts,
        **bench.options.prior,
        **bench.options.decoder,
    )
    seen = content(bench, extractor, drawn.images).unflatten(0, (prompts, SEEDS))
    real = content(bench, extractor, bench.originals(places))
    captions = tuple(bench.real[i].caption for i in places)
    images = drawn.images.unflatten(0, (prompts, SEEDS)).transpose(0, 1)
    return Section(
        title="Diversity of one prompt",
        notes=(
            MEASURED,
            f"Each of {prompts} held-out prompts is drawn with the same {SEEDS} seeds. One prompt: "
            "the mean over prompts of what its pictures give; one seed: the mean over seeds. The "
            "seed feeds prior and decoder. Every group has as many pictures as the table's N of "
            "the real row where prompts and seeds are equally many.",
            "Grid: a column is a prompt, a row is a seed.",
        ),
        protocol={
            "extractor": extractor.identity(),
            **bench.resize,
            "split": "heldout",
            "prompts": prompts,
            "seeds": seeds,
            "settings": drawn.settings,
        },
        rows={
            f"one prompt, {SEEDS} seeds": _mean_row(list(seen)),
            f"{prompts} prompts, one seed": _mean_row(list(seen.transpose(0, 1))),
            f"{prompts} real pictures of the prompts": _row(real),
        },
        grids={"diversity": sheet(list(images), captions, columns=prompts)},
        shown={"diversity": captions},
    )


def content(bench: Bench, extractor: Extractor, images: Tensor) -> Tensor:
    """Content features [n c] of pictures, uint8 [n 3 s s], kept under the pictures' bytes."""
    digest = hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()
    return cached(
        bench.options.cache,
        "content",
        {"images": digest, "shape": list(images.shape), **extractor.identity()},
        lambda: Seen.parted(bench.over(images, extractor, "features")).content,
    )


def _row(features: Tensor) -> dict[str, Figure]:
    return {
        "Vendi score": jackknife_figure(features, vendi),
        "feature distance": jackknife_figure(features, pairwise),
    }


def _mean_row(groups: Sequence[Tensor]) -> dict[str, Figure]:
    """The columns of `_row`, averaged over groups of pictures [n c]."""
    return {
        "Vendi score": mean_figure(torch.tensor([vendi(g) for g in groups])),
        "feature distance": mean_figure(torch.tensor([pairwise(g) for g in groups])),
    }
