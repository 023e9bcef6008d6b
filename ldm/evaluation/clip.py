"""Does CLIP pair held-out pictures with their captions, among those of the same style?"""

from __future__ import annotations

import torch
from torch import Tensor

from ldm.evaluation.figures import Figure, known_figure, mean_figure
from ldm.evaluation.retrieval import chance, ranks
from ldm.evaluation.section import Bench, Section

_KS = (1, 5)


def evaluate(bench: Bench) -> Section:
    """Recall at 1 and 5, picture to caption and caption to picture, by style and over all."""
    places = bench.real.of("heldout")
    image, text = bench.image_embeddings("heldout"), bench.text_embeddings("heldout")
    found: dict[str, dict[str, Tensor]] = {}
    for style in bench.real.styles:
        mine = [j for j, i in enumerate(places) if bench.real[i].style == style]
        if mine:
            captions = [bench.real[places[j]].caption for j in mine]
            found[style] = _recalls(image[mine], text[mine], captions)
    columns = next(iter(found.values())).keys()
    every = {c: torch.cat([values[c] for values in found.values()]) for c in columns}
    rows = {"all": _row(every), **{style: _row(values) for style, values in found.items()}}
    return Section(
        title="CLIP",
        notes=(
            "Recall in percent. The candidates of a picture are the captions of all held-out "
            "pictures of its style, and the other way round; equal captions are equally right, "
            "ties count as misses. `all` is the mean over pictures; chance is a random order.",
        ),
        protocol={
            "split": "heldout",
            "pictures": len(places),
            "caption": "the first of each sample",
            **bench.resize,
        },
        subject={"clip": bench.pipe.clip.fingerprint()},
        depends=(),
        rows=rows,
    )


def _recalls(image: Tensor, text: Tensor, captions: list[str]) -> dict[str, Tensor]:
    """Hits [n] by column for the pairs of one style."""
    same = torch.tensor([[a == b for b in captions] for a in captions])
    similarity = image @ text.T
    columns = {"candidates": torch.full((len(captions),), float(len(captions)))}
    for way, s in (("picture → caption", similarity), ("caption → picture", similarity.T)):
        rank = ranks(s, same)
        columns |= {f"{way} @{k}": (rank < k).double() for k in _KS}
    return columns | {f"chance @{k}": chance(same, k) for k in _KS}


def _row(values: dict[str, Tensor]) -> dict[str, Figure]:
    row = {}
    for name, v in values.items():
        if name == "candidates":
            row[name] = known_figure(v.mean().item(), len(v), "count")
        elif name.startswith("chance"):
            row[name] = known_figure(v.mean().item(), len(v), "%")
        else:
            row[name] = mean_figure(v, "%")
    return row
