"""Does the model give back its training pictures? Held-out pictures are the yardstick.

Emoji have near relatives (skin tones, one concept in two sets), so held-out pictures are near to
training ones too. What counts is whether drawn pictures are nearer than they are, both having come
out of the same autoencoder, whose blur would otherwise hide a copy.

n drawn pictures; m held-out pictures; l training pictures; d dimensions
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.evaluation.cache import cached
from ldm.evaluation.diversity import content
from ldm.evaluation.features import NAME, Extractor
from ldm.evaluation.figures import Figure, known_figure, mean_figure
from ldm.evaluation.grids import sheet
from ldm.evaluation.neighbours import (
    Neighbours,
    exceedance_p,
    low_tail,
    mann_whitney_z,
    nearest,
    placements,
)
from ldm.evaluation.real import SPLITS
from ldm.evaluation.section import Bench, Drawn, Section

if TYPE_CHECKING:
    from PIL import Image

THUMB = 32  # pixels a side: what is left of a picture here, an autoencoder keeps
AROUND = 50
TAIL = 0.05
Z, P = -5.0, 1e-3
YARDSTICK, COPIER = "held-out through the autoencoder", "training pictures through the autoencoder"
CRITERION = (
    f"A row is flagged where Z is below {Z:g}, or where so many of its pictures are nearer to "
    f"training than all but the nearest {TAIL:.0%} of the held-out ones that this has a chance "
    f"below {P:g} if nothing is copied (number of exceedances, Gumbel and von Schelling 1950). The "
    f"model is flagged where one of its four rows is: by chance in {4 * P:.1%} of runs at most."
)
NOTES = (
    "For each picture its nearest training picture, by two rulers. Features: 1 - cosine of the "
    f"content features of {NAME} at {THUMB} px, where a picture and the same one through the "
    "autoencoder are alike: at full size its blur moves features farther than another picture "
    f"does. Pixels: root mean square difference at {THUMB} px over the mean "
    f"of that to the {AROUND} nearest training pictures (Carlini et al. 2023, arXiv 2301.13188, "
    "without their constant factor), so that plain pictures, which are near to everything, do not "
    "count as copies.",
    "Nearer than held-out: the chance that a picture of the row is nearer to training than a "
    "held-out one that went through the same autoencoder; 50 % if there is no difference. Z: the "
    "Mann-Whitney statistic of that (Meehan et al. 2020, arXiv 2004.05675), far below 0 for copies."
    " Near as a copy: not farther than 95 % of training pictures that went through the "
    "autoencoder are from theirs.",
    "A train prompt has a training picture that a model may give back; a held-out prompt has none, "
    "and what is near to training there is another prompt's picture.",
    CRITERION,
)


@dataclass(frozen=True)
class Verdict:
    """The two tests of one row by one ruler; `p` is that of the exceedances."""

    z: float
    p: float

    @property
    def flagged(self) -> bool:
        return self.z < Z or self.p < P


def judge(drawn: Tensor, heldout: Tensor) -> Verdict:
    """Are `drawn` distances [n] to training smaller than those of held-out pictures [m]?"""
    r, bound = low_tail(heldout, TAIL)
    count = int((drawn.double() < bound).sum())
    return Verdict(mann_whitney_z(drawn, heldout), exceedance_p(count, len(drawn), r, len(heldout)))


@dataclass(frozen=True)
class Ruler:
    """Distances to training by row [n], and which training picture is nearest [n]."""

    distance: dict[str, Tensor]
    place: dict[str, Tensor]

    def row(self, name: str) -> tuple[dict[str, Figure], Verdict]:
        """The figures of a row of pictures, and what the tests say."""
        mine, heldout = self.distance[name], self.distance[YARDSTICK]
        verdict, (_, bound) = judge(mine, heldout), low_tail(heldout, TAIL)
        copy = torch.quantile(self.distance[COPIER].double(), 0.95)
        n = len(mine)
        return {
            "distance": mean_figure(mine),
            "nearer than held-out": mean_figure(placements(mine, heldout), "%"),
            f"nearer than {TAIL:.0%} of held-out": mean_figure((mine < bound).double(), "%"),
            "near as a copy": mean_figure((mine <= copy).double(), "%"),
            "Z": known_figure(verdict.z, n),
            "flagged": known_figure(float(verdict.flagged), n, "count"),
        }, verdict


def evaluate(bench: Bench) -> Section:
    """Nearest training pictures of drawn ones, by features and by pixels, with a verdict."""
    drawn = {split: bench.drawn(split) for split in SPLITS}
    extractor = Extractor(device=bench.pipe.device)
    made = {f"generated, {split} prompts": d.images for split, d in drawn.items()}
    rulers = measure(bench, extractor, made)
    rows, verdicts = {}, {}
    for kind, ruler in rulers.items():
        for name in ruler.distance:
            rows[f"{kind}: {name}"], verdicts[f"{kind}: {name}"] = ruler.row(name)
    grids = {f"audit-{kind}": _grid(bench, drawn, ruler) for kind, ruler in rulers.items()}
    return Section(
        title="Memorisation",
        notes=(
            _told(verdicts),
            *NOTES,
            _reach(verdicts),
            "Grids: the drawn pictures nearest to training, each over its training picture.",
        ),
        protocol={
            "extractor": extractor.identity(),
            **bench.resize,
            "pixels": f"{THUMB} px, area averaged; {AROUND} nearest",
            "training pictures": len(bench.real.of("train")),
            "held-out pictures": len(bench.real.of("heldout")),
            "pairs": {split: len(d.places) for split, d in drawn.items()},
            "seeds": f"picture i of a split has seed {bench.options.seed} + i",
            "settings": drawn["heldout"].settings,
            "criterion": CRITERION,
        },
        rows=rows,
        details=tuple(_details(bench, drawn, rulers)),
        grids={name: image for name, (image, _) in grids.items()},
        shown={name: captions for name, (_, captions) in grids.items()},
    )


def measure(bench: Bench, extractor: Extractor, drawn: dict[str, Tensor]) -> dict[str, Ruler]:
    """Both rulers over drawn pictures (uint8 [n 3 s s] by row), the yardstick and a copier.

    The copier's pictures are training ones through the autoencoder: it tells what the audit would
    say of a model that has learned them by heart.
    """
    asked = bench.drawn("train").places
    queries = drawn | {
        YARDSTICK: bench.reconstructed(bench.real.of("heldout")),
        COPIER: bench.reconstructed(asked),
    }
    references = F.normalize(train_content(bench, extractor), dim=1)
    small = _flat(train_thumbs(bench))
    features, pixels = Ruler({}, {}), Ruler({}, {})
    for name, images in queries.items():
        seen = content(bench, extractor, thumbs(images))
        near = nearest(F.normalize(seen, dim=1), references, 1)
        features.distance[name] = near.distance[:, 0].square() / 2
        features.place[name] = near.place[:, 0]
        around = nearest(_flat(thumbs(images)), small, AROUND)
        pixels.distance[name], pixels.place[name] = relative(around), around.place[:, 0]
    return {"features": features, "pixels": pixels}


def relative(around: Neighbours) -> Tensor:
    """Distance to the nearest over the mean distance to all found: [n]; 0 where both are 0."""
    nearest_one, mean = around.distance[:, 0], around.distance.mean(dim=1)
    return nearest_one / mean.clamp_min(torch.finfo(mean.dtype).tiny)


def train_content(bench: Bench, extractor: Extractor) -> Tensor:
    """Content features [l c] of the thumbnails of all training pictures."""
    return content(bench, extractor, train_thumbs(bench))


def thumbs(images: Tensor) -> Tensor:
    """uint8 [n 3 s s] -> uint8 [n 3 32 32], area averaged."""
    small = [F.adaptive_avg_pool2d(run.float(), THUMB) for run in images.split(64)]
    return torch.cat(small).round().byte()


def train_thumbs(bench: Bench) -> Tensor:
    """Thumbnails of all training pictures, uint8 [l 3 32 32]."""
    identity = {"data": bench.real.digest, "from": bench.pipe.image_size, "to": THUMB}
    places = bench.real.of("train")
    return cached(
        bench.options.cache,
        "thumbnails",
        identity,
        lambda: bench.batched(places, lambda run: thumbs(bench.originals(run)), "thumbnails"),
    )


def _flat(small: Tensor) -> Tensor:
    """Thumbnails as vectors whose distance is the root mean square difference in [0, 1]."""
    x = small.flatten(1).float() / 255
    return x / x.shape[1] ** 0.5


def _told(verdicts: dict[str, Verdict]) -> str:
    """The verdict on the drawn pictures, in words."""
    made = {name: v for name, v in verdicts.items() if "generated" in name}
    found = [name for name, v in made.items() if v.flagged]
    word = "FLAGGED" if found else "not flagged"
    every = "; ".join(f"{name}: Z {v.z:.1f}, p {v.p:.2g}" for name, v in made.items())
    return f"Verdict: {word}" + (f" ({', '.join(found)})" if found else "") + f". {every}."


def _reach(verdicts: dict[str, Verdict]) -> str:
    """Whether the audit would have found a model that copies."""
    missed = [n for n, v in verdicts.items() if n.endswith(COPIER) and not v.flagged]
    if not missed:
        return (
            "The audit can tell: training pictures through the autoencoder, which are what a model "
            "would give that knows them by heart, are flagged by both rulers."
        )
    return (
        f"The audit cannot tell by some rulers: {', '.join(missed)} are not flagged, so that a "
        "model's not being flagged by them means nothing here."
    )


def _details(
    bench: Bench, drawn: dict[str, Drawn], rulers: dict[str, Ruler]
) -> list[dict[str, Any]]:
    """One record a drawn picture, with its nearest training pictures."""
    train, records = bench.real.of("train"), []
    for split, pictures in drawn.items():
        name = f"generated, {split} prompts"
        for j, (place, seed) in enumerate(zip(pictures.places, pictures.seeds, strict=True)):
            record: dict[str, Any] = {
                "split": split, "key": bench.real[place].key, "seed": seed
            }  # fmt: skip
            for kind, ruler in rulers.items():
                near = train[int(ruler.place[name][j])]
                record[kind] = round(ruler.distance[name][j].item(), 5)
                record[f"nearest by {kind}"] = bench.real[near].key
            records.append(record)
    return records


def _grid(
    bench: Bench, drawn: dict[str, Drawn], ruler: Ruler
) -> tuple[Image.Image, tuple[str, ...]]:
    """The drawn pictures of all rows that are nearest to training, over their neighbours."""
    names = [f"generated, {split} prompts" for split in drawn]
    distance = torch.cat([ruler.distance[name] for name in names])
    place = torch.cat([ruler.place[name] for name in names])
    images = torch.cat([d.images for d in drawn.values()])
    captions = [c for d in drawn.values() for c in d.captions]
    first = distance.argsort()[: bench.options.grid].tolist()
    train = bench.real.of("train")
    neighbours = bench.originals([train[i] for i in place[first].tolist()])
    shown = tuple(captions[i] for i in first)
    return sheet([images[first], neighbours], shown), shown
