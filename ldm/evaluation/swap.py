"""What does the decoder make of the true, the prior's, the text's and no image embedding at all?

If pictures from the prior's embeddings are as good as those from the true ones, the decoder is what
is to be improved, and the other way round. n pairs; e embedding width
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ldm.evaluation.features import Extractor
from ldm.evaluation.figures import Figure, mean_figure
from ldm.evaluation.grids import sheet
from ldm.evaluation.judge import Verdicts
from ldm.evaluation.pairs import choose
from ldm.evaluation.samples import judged, look, make_judge, real_features
from ldm.evaluation.section import Bench, Drawn, Section

MOST_PAIRS = 64
TRUE, PRIOR, TEXT, NULL = "true embedding", "prior's embedding", "text embedding", "no embedding"


def evaluate(bench: Bench) -> Section:
    """Style, concept and CLIP score of pictures drawn from four kinds of image embeddings."""
    count = min(bench.options.pairs, MOST_PAIRS)
    places = choose(bench.real, "heldout", count, bench.options.seed)
    rows_of = {place: row for row, place in enumerate(bench.real.of("heldout"))}
    mine = [rows_of[place] for place in places]
    truth, text = (
        e[mine] for e in (bench.image_embeddings("heldout"), bench.text_embeddings("heldout"))
    )
    extractor = Extractor(device=bench.pipe.device)
    judge = make_judge(bench.real, real_features(bench, extractor))
    drawn = drawings(bench, places, {TRUE: truth, TEXT: text, NULL: null_embedding(bench, count)})
    rows = {}
    for name, images in drawn.items():
        verdicts = judged(bench.real, judge, places, look(bench, extractor, images))
        rows[name] = _row(bench, images, verdicts, truth, text)
    first = min(count, bench.options.grid)
    captions = tuple(bench.real[i].caption for i in places[:first])
    shown = [bench.originals(places[:first]), *(x[:first] for x in drawn.values())]
    return Section(
        title="Decoder, embeddings exchanged",
        notes=(
            "The decoder reads the caption in every row and an image embedding: that of the true "
            "picture, the prior's (best of 2), CLIP's of the caption, or none (its learned null). "
            "Noise and settings are the same. Style and concept as in the table of pictures.",
            "CLIP score: cosine between a picture and its caption, and between a picture and the "
            "true picture, by the model's own CLIP, which is no independent judge.",
            f"Grid: real, then {', '.join(drawn)}, from above.",
        ),
        protocol={
            "split": "heldout",
            "pairs": count,
            "seeds": f"picture i has seed {bench.options.seed} + i",
            "extractor": extractor.identity(),
            "settings": bench.drawn("heldout").settings,
            "clip": bench.pipe.clip.fingerprint(),
            **bench.resize,
        },
        rows=rows,
        grids={"decoder-swap": sheet(shown, captions)},
        shown={"decoder-swap": captions},
    )


def null_embedding(bench: Bench, count: int) -> Tensor:
    """What, given as an image embedding [count e], the decoder's conditioner turns into its null.

    The conditioner multiplies embeddings by the root of their width (see `unit_variance`); its
    learned null replaces the product.
    """
    vector = bench.pipe.decoder.conditioner.null(count).vector
    assert vector is not None
    return (vector / vector.shape[-1] ** 0.5).detach().cpu()


def drawings(bench: Bench, places: list[int], embeddings: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pictures uint8 [n 3 s s] by kind of embedding; those of the prior are the report's own."""

    def draw(embedding: Tensor) -> Drawn:
        seeds = bench.seeds(len(places))
        return bench.draw(places, seeds, embeddings=embedding, **bench.options.decoder)

    given = {name: draw(embedding).images for name, embedding in embeddings.items()}
    own = {PRIOR: bench.drawn("heldout").images[: len(places)]}
    return {TRUE: given.pop(TRUE), **own, **given}


def _row(
    bench: Bench, images: Tensor, verdicts: Verdicts, truth: Tensor, text: Tensor
) -> dict[str, Figure]:
    made = bench.over(images, bench.pipe.clip.image, "CLIP of drawn")
    return {
        "style": mean_figure(verdicts.style, "%"),
        "concept top-5": mean_figure(verdicts.rank < 5, "%"),
        "top-5, any skin tone": mean_figure(verdicts.plain_rank < 5, "%"),
        "CLIP score": mean_figure(F.cosine_similarity(made, text)),
        "CLIP, to the true picture": mean_figure(F.cosine_similarity(made, truth)),
    }
