"""Does a CLIP model find the caption in the picture? CLIP score and R-precision.

n pictures; m candidate captions; e embedding width
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ldm.conditioning.clip import Clip
from ldm.evaluation.figures import Figure, mean_figure
from ldm.evaluation.judge import without_skin_tone
from ldm.evaluation.pairs import derangement
from ldm.evaluation.real import SPLITS, RealPictures
from ldm.evaluation.retrieval import ranks
from ldm.evaluation.section import Bench, Drawn, Section

logger = logging.getLogger(__name__)

CANDIDATES = 100
POOL = 1000  # captions that others are drawn from: a large CLIP takes its time for each
OWN = (
    "The CLIP model is the model's own, which guided its training and gives the prior its target: "
    "its scores flatter the model. Name another one (clip_model) for an independent figure."
)
OTHER = "The CLIP model is not the one that the model was trained with."


class Captions(NamedTuple):
    """What one split is scored with: the asked captions [n e] and each one's candidates.

    candidates: [n m e], the asked caption first.
    """

    own: Tensor
    candidates: Tensor


def clip_score(image: Tensor, text: Tensor) -> Tensor:
    """100 max(cosine, 0) of unit-norm embeddings [n e], twice -> [n].

    Hessel et al. 2021 (arXiv 2104.08718), section 3, has the factor 2.5 where this has 100, the
    one that pictures are usually scored with.
    """
    return 100 * (image * text).sum(dim=1).clamp_min(0)


def found_first(image: Tensor, candidates: Tensor) -> Tensor:
    """Whether the first of the candidates [n m e] is nearest to its picture [n e]: bool [n].

    R-precision with R = 1: Xu et al. 2018 (arXiv 1711.10485), section 4; a tie counts as a miss.
    """
    similarity = torch.einsum("ne,nme->nm", image, candidates)
    right = torch.zeros_like(similarity, dtype=torch.bool)
    right[:, 0] = True
    return ranks(similarity, right) == 0


def others(real: RealPictures, split: str, places: Sequence[int], seed: int) -> list[list[int]]:
    """For each of `places` up to 99 pictures of the split that show another concept, by a seed.

    Concepts that differ in skin tone alone count as one; all places get equally many.
    """
    generator = torch.Generator().manual_seed(seed)
    all_places = real.of(split)
    order = torch.randperm(len(all_places), generator=generator)[:POOL].tolist()
    pool = [all_places[i] for i in order]
    plain = [without_skin_tone(real[i].concept) for i in pool]
    drawn = []
    for place in places:
        asked = without_skin_tone(real[place].concept)
        allowed = [i for i, concept in zip(pool, plain, strict=True) if concept != asked]
        shuffled = torch.randperm(len(allowed), generator=generator)[: CANDIDATES - 1]
        drawn.append([allowed[i] for i in shuffled.tolist()])
    fewest = min(len(d) for d in drawn)
    if fewest < 1:
        raise ValueError(f"{split} has captions of one concept alone: nothing to choose from")
    return [d[:fewest] for d in drawn]


def evaluate(bench: Bench) -> Section:
    """CLIP score and R-precision of drawn pictures, real ones, and of shuffled captions."""
    name = bench.options.clip_model
    clip = bench.pipe.clip if name is None else Clip.load(name, bench.pipe.device)
    own = clip.fingerprint() == bench.pipe.clip.fingerprint()
    rows: dict[str, dict[str, Figure]] = {}
    details: list[dict[str, Any]] = []
    counts, settings = {}, {}
    for split in SPLITS:
        drawn = bench.drawn(split)
        captions = _captions(bench, clip, split, drawn)
        embedded = _embedded(bench, clip, drawn)
        scores = {row: _scores(image, captions) for row, image in embedded.items()}
        rows |= {f"{split}: {row}": _row(values) for row, values in scores.items()}
        details += _details(bench, drawn, scores["generated"])
        counts[split], settings[split] = captions.candidates.shape[1], drawn.settings
    return Section(
        title="CLIP score and R-precision",
        notes=(
            OWN if own else OTHER,
            "CLIP score: 100 max(cosine, 0) of picture and caption; the caption as it is, without "
            "the words that Hessel et al. 2021 (arXiv 2104.08718) put before it, and their factor "
            "is 2.5. R-precision (Xu et al. 2018, arXiv 1711.10485): the own caption is nearer to "
            "the picture than those of the other candidates, which are drawn by the seed from the "
            f"captions of up to {POOL} pictures of the split that show another concept (skin tones "
            "not counted) in any style; ties are misses. " + _chance(counts),
            "Shuffled captions: the generated pictures, each with the caption and candidates of "
            "another pair. Real: the pictures whose captions are asked.",
        ),
        protocol={
            "clip": clip.fingerprint(),
            **bench.resize,
            "candidates": counts,
            "candidates drawn by seed": bench.options.seed,
            "pairs": {split: sum(d["split"] == split for d in details) for split in SPLITS},
            "seeds": f"picture i of a split has seed {bench.options.seed} + i",
            "settings": settings["heldout"],
        },
        rows=rows,
        details=tuple(details),
    )


def _captions(bench: Bench, clip: Clip, split: str, drawn: Drawn) -> Captions:
    """Embeddings of the asked captions and their candidates; each caption is read once."""
    chosen = [
        [place, *rest]
        for place, rest in zip(
            drawn.places,
            others(bench.real, split, drawn.places, bench.options.seed),
            strict=True,
        )
    ]
    if len(chosen[0]) < CANDIDATES:
        logger.warning(
            "%s: R-precision among %d candidates, not %d", split, len(chosen[0]), CANDIDATES
        )
    needed = sorted({i for row in chosen for i in row})
    place_of = {place: j for j, place in enumerate(needed)}
    text = bench.batched(
        needed,
        lambda run: clip.text([bench.real[i].caption for i in run]).pooled.cpu(),
        "captions",
    )
    candidates = text[torch.tensor([[place_of[i] for i in row] for row in chosen])]
    return Captions(candidates[:, 0], candidates)


def _embedded(bench: Bench, clip: Clip, drawn: Drawn) -> dict[str, Tensor]:
    """Embeddings [n e] of the pictures of each row."""

    def see(images: Tensor) -> Tensor:
        return bench.over(images, clip.image, "CLIP")

    made = see(drawn.images)
    return {
        "generated": made,
        "shuffled captions (floor)": made[derangement(len(made), bench.options.seed)],
        "real through the autoencoder": see(bench.reconstructed(drawn.places)),
        "real": see(bench.originals(drawn.places)),
    }


def _scores(image: Tensor, captions: Captions) -> dict[str, Tensor]:
    cosine = (image * captions.own).sum(dim=1)
    return {
        "CLIP score": clip_score(image, captions.own),
        "cosine": cosine,
        "R-precision": found_first(image, captions.candidates),
    }


def _row(scores: dict[str, Tensor]) -> dict[str, Figure]:
    return {
        name: mean_figure(values, "%" if name == "R-precision" else "")
        for name, values in scores.items()
    }


def _details(bench: Bench, drawn: Drawn, scores: dict[str, Tensor]) -> list[dict[str, Any]]:
    """One record a generated picture."""
    return [
        {
            "split": bench.real[place].split,
            "key": bench.real[place].key,
            "seed": seed,
            "cosine": round(scores["cosine"][j].item(), 4),
            "found first": bool(scores["R-precision"][j]),
        }
        for j, (place, seed) in enumerate(zip(drawn.places, drawn.seeds, strict=True))
    ]


def _chance(counts: dict[str, int]) -> str:
    told = ", ".join(f"{split} {n} ({100 / n:.1f} % by chance)" for split, n in counts.items())
    return f"Candidates: {told}."
