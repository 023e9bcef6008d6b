"""What DALL-E 2's decoder makes of embeddings: swapped, varied, mixed, changed by words, inverted.

b pictures; e width of an embedding; s side
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from autoencoder.pixels import to_uint8
from ldm.data.batch import Batch
from ldm.data.shapes import COLOURS, is_held_out
from ldm.diffusion import Noise
from ldm.diffusion.slerp import slerp
from ldm.papers.bench import Bench
from ldm.papers.findings import Finding, Measured, Rows, Table
from ldm.papers.measures import rms
from ldm.papers.shape_judge import judge
from ldm.papers.shape_samples import SHAPE, varied
from ldm.papers.unclip_parts import Parts, shown

TRUE, PRIOR, TEXT, NULL = "true picture", "prior", "text embedding", "null"
THETAS = (0.25, 0.375, 0.5)
AGAIN = "drawn again for the new caption"


def findings(bench: Bench, parts: Sequence[Parts]) -> list[Finding]:
    """Swap table, text difference, inversion, variations, interpolation."""
    n = bench.count(100, 8)
    return [
        swap(bench, parts, n),
        difference(bench, parts, n),
        inversion(parts, n),
        variations(bench, parts, n),
        interpolation(bench, parts, n),
    ]


def swap(bench: Bench, parts: Sequence[Parts], n: int) -> Finding:
    """One decoder, four embeddings, with and without the caption."""
    seeds = [swapped(part, n, held_out=False) for part in parts]
    others = [swapped(part, n, held_out=True) for part in parts]
    columns = [
        {way: Measured.over([seed[way][i] for seed in found]) for way in seeds[0]}
        for found in (seeds, others)
        for i in (0, 1)
    ]
    alone = columns[0]
    rows: Rows = tuple((way, *(column[way] for column in columns)) for way in seeds[0])
    return Finding(
        claim="The decoder needs an image embedding: a text embedding in its place does worse",
        published="section 5.1 and figure 8 (2204.06125): samples of one decoder under the caption "
        "alone, the text embedding and a prior's embedding; shown, not measured",
        measured=f"right pictures without the caption: {alone[PRIOR]} with the prior's embedding, "
        f"{alone[TEXT]} with the text embedding, {alone[TRUE]} with the true one",
        holds=alone[TEXT].below(alone[PRIOR]),
        if_not="The decoder's training is short: colour and place come out, shapes are "
        "unfinished (see the pictures), so that few pictures count as right under "
        "any embedding.",
        table=Table(
            (
                "embedding",
                "right, embedding alone",
                "right, with the caption",
                "held out, embedding alone",
                "held out, with the caption",
            ),
            rows,
        ),
        figures=(bench.pictures("swap", swap_sheet(parts[0]), columns=12, enlarge=3),),
        comment="Right is colour, shape and place at once. The verdict is of captions like those "
        "of the training, as the paper's are; held out are combinations that no training picture "
        "shows, of which a small decoder makes little under any embedding. The sheet: pictures of "
        "the training, then embedding alone by true, prior, text and null.",
    )


def swapped(part: Parts, n: int, *, held_out: bool) -> dict[str, tuple[float, float]]:
    """Accuracy under each embedding, alone and with the caption."""
    true = shown(part.clip, n, part.seed, held_out=held_out)
    text = part.text(true.attributes)
    return {
        way: (
            judge(part.decoded(z, None, n)).accuracy(true.attributes),
            judge(part.decoded(z, text, n)).accuracy(true.attributes),
        )
        for way, z in embeddings(part, true.z, text).items()
    }


def embeddings(part: Parts, z: Tensor, text: Batch) -> dict[str, Tensor | None]:
    """What the decoder is told [b e]: the true embedding z, the prior's, the text's, none."""
    assert text.text is not None
    return {TRUE: z, PRIOR: part.imagined(text), TEXT: text.text.pooled, NULL: None}


def swap_sheet(part: Parts) -> Tensor:
    """Twelve pictures and what the decoder makes of four embeddings: [60 3 s s]."""
    true = shown(part.clip, 12, 0, held_out=False)
    ways = embeddings(part, true.z, part.text(true.attributes))
    drawn = [part.decoded(z, None, len(true.z)) for z in ways.values()]
    return torch.cat([true.image, *map(to_uint8, drawn)])


class Changed(NamedTuple):
    """Shares: colour as asked, shape kept, place kept, grey kept, and all four."""

    colour: float
    shape: float
    place: float
    grey: float
    all: float


def difference(bench: Bench, parts: Sequence[Parts], n: int) -> Finding:
    """Another colour by the difference of two captions."""
    seeds, sheets = zip(*(recoloured(part, n) for part in parts), strict=True)
    found = {
        way: tuple(Measured.over(v) for v in zip(*(seed[way] for seed in seeds), strict=True))
        for way in seeds[0]
    }
    rows: Rows = tuple((way, *values) for way, values in found.items())
    best = max((way for way in found if way != AGAIN), key=lambda way: found[way][4].mean)
    edited, again = found[best], found[AGAIN]
    return Finding(
        claim="A text difference changes what the words say and keeps the rest",
        published="section 3.3 and figure 5 (2204.06125): slerp from z_i towards the difference of "
        "two captions, theta in [0.25, 0.5]; shown, not measured",
        measured=f"colour as asked with shape, place and grey kept: {edited[4]} by text difference "
        f"({best}), {again[4]} when drawn again from the new caption; the colour alone: "
        f"{edited[0]} and {again[0]}",
        holds=again[4].below(edited[4]),
        if_not="The difference keeps the grey, which no caption names, where drawing again loses "
        "it; but the colour comes with it by degrees, and the shape suffers on the way.",
        table=Table(("edit", "colour", "shape", "place", "grey", "all four"), rows),
        figures=(bench.pictures("difference", sheets[0], columns=min(12, n), enlarge=3),),
        comment="z_d = norm(z_t - z_t0) of the captions with the new and the old colour; the noise "
        "x_T is that of the picture's inversion, the decoder reads no caption. No caption names "
        "the grey. The sheet: the pictures, then one row a theta, then drawn again.",
    )


def recoloured(part: Parts, n: int) -> tuple[dict[str, Changed], Tensor]:
    """The next colour for n trained pictures, by text difference and by drawing again."""
    old = shown(part.clip, n, part.seed, held_out=False)
    new = old.attributes.clone()
    new[:, 0] = (new[:, 0] + 2) % len(COLOURS)
    before, after = part.text(old.attributes), part.text(new)
    assert before.text is not None and after.text is not None
    direction = F.normalize(after.text.pooled - before.text.pooled, dim=-1)
    noised = part.noise_of(old.x0, old.z)
    drawn = {
        f"theta {theta:g}": part.from_noise(noised, slerp(old.z, direction, theta).float())
        for theta in THETAS
    }
    drawn[AGAIN] = part.decoded(part.imagined(after), None, n)
    sheet = torch.cat([old.image[:12], *(to_uint8(x[:12]) for x in drawn.values())])
    return {way: changed(x, new, old.details[:, 1]) for way, x in drawn.items()}, sheet


def changed(x: Tensor, wanted: Tensor, grey: Tensor) -> Changed:
    """What the judge sees of attributes [b 3] and greys [b]."""
    seen = judge(x)
    right = torch.cat([seen.right(wanted), (seen.details[:, 1] == grey)[:, None]], dim=1)
    every = torch.cat([right, right.all(1, keepdim=True)], dim=1)
    return Changed(*every.float().mean(0).tolist())


def inversion(parts: Sequence[Parts], n: int) -> Finding:
    """A picture as (embedding, x_T), and back."""
    rows = [returned(part, n) for part in parts]
    back, other, lost = (Measured.over(values) for values in zip(*rows, strict=True))
    table: Rows = (
        ("its embedding, its x_T", back),
        ("its embedding, other noise", other),
        ("another's embedding, its x_T", lost),
    )
    return Finding(
        claim="A picture is its embedding and a noise x_T together: inverted, it comes back",
        published="section 3 (2204.06125): (z_i, x_T) by DDIM inversion gives near-perfect "
        "reconstruction; no figure",
        measured=f"root mean square difference {back} from (z_i, x_T), {other} from z_i with other "
        f"noise, {lost} from another picture's embedding with x_T",
        holds=back.below(other) and back.below(lost),
        table=Table(("decoded from", "difference to the picture"), table),
        comment="Held-out combinations, pixels in [-1, 1], 24 evaluations each way.",
    )


def returned(part: Parts, n: int) -> tuple[float, float, float]:
    """Differences: by (z, x_T), by z with other noise, by another's z with x_T."""
    true = shown(part.clip, n, part.seed, held_out=True)
    noised = part.noise_of(true.x0, true.z)
    other = Noise(part.seeds(n, 5)).normal(SHAPE)
    drawn = (
        part.from_noise(noised, true.z),
        part.from_noise(other, true.z),
        part.from_noise(noised, true.z.roll(1, dims=0)),
    )
    first, second, third = (rms(x - true.x0) for x in drawn)
    return first, second, third


def variations(bench: Bench, parts: Sequence[Parts], n: int) -> Finding:
    """Same embedding, fresh noise: what stays is what the embedding holds."""
    kept, spared = zip(*(varying(part, n) for part in parts), strict=True)
    attributes, details = Measured.over(kept), Measured.over(spared)
    true = shown(parts[0].clip, 12, 0, held_out=True)
    sheets = [
        varied(parts[0].decoder.denoiser.process, parts[0].bound(true.z), parts[0].seeds(12, k))
        for k in (1, 2, 3)
    ]
    sheet = torch.cat([true.image, *map(to_uint8, sheets)])
    return Finding(
        claim="Variations keep what the embedding holds and vary what it does not",
        published="section 3.1 and figure 3 (2204.06125): same z_i, eta > 0; shown, not measured",
        measured=f"colour, shape and place are kept in {attributes} of the variations, shift and "
        f"grey, which no caption names, in {details}",
        holds=details.below(attributes),
        if_not="The decoder's training is short: a picture whose shape is unfinished is "
        "read as another one, so that what was kept is not seen to be.",
        figures=(bench.pictures("variations", sheet, columns=12, enlarge=3),),
        comment="Held-out combinations, eta = 1, no caption. By chance all three are kept in 1% "
        "and both details in 4%. The sheet: the pictures, then three variations of each.",
    )


def varying(part: Parts, n: int) -> tuple[float, float]:
    """Shares of variations that keep all attributes, and both details."""
    true = shown(part.clip, n, part.seed, held_out=True)
    seen = judge(varied(part.decoder.denoiser.process, part.bound(true.z), part.seeds(n, 2)))
    details = (seen.details == true.details).all(1).float().mean()
    return seen.accuracy(true.attributes), float(details)


def interpolation(bench: Bench, parts: Sequence[Parts], n: int) -> Finding:
    """The way from one embedding to another."""
    fractions = (0.0, 0.25, 0.5, 0.75, 1.0)
    seeds, sheets = zip(*(between(part, n, fractions) for part in parts), strict=True)
    first = [Measured.over([seed[i][0] for seed in seeds]) for i in range(len(fractions))]
    last = [Measured.over([seed[i][1] for seed in seeds]) for i in range(len(fractions))]
    rows: Rows = tuple((f"{f:g}", a, b) for f, a, b in zip(fractions, first, last, strict=True))
    return Finding(
        claim="Pictures between two embeddings pass from the one's attributes to the other's",
        published="section 3.2 and figure 4 (2204.06125): slerp of z_i and of x_T; shown, not "
        "measured",
        measured=f"attributes that are the first picture's go from {first[0]} to {first[-1]}, the "
        f"second's from {last[0]} to {last[-1]}",
        holds=first[-1].below(first[0])
        and last[0].below(last[-1])
        and not any(a.below(b) for a, b in pairwise(first))
        and not any(b.below(a) for a, b in pairwise(last)),
        table=Table(("fraction", "the first's", "the second's"), rows),
        figures=(bench.pictures("interpolation", sheets[0], columns=7, enlarge=3),),
        comment="Share of colour, shape and place that agree. The verdict asks for a way without "
        "a step back beyond two standard errors. The sheet: the pair around the five fractions.",
    )


def between(
    part: Parts, n: int, fractions: Sequence[float]
) -> tuple[list[tuple[float, float]], Tensor]:
    """Agreement with either end along the way, and six pairs as rows of a sheet."""
    true = shown(part.clip, n, part.seed, held_out=False)
    assert not is_held_out(true.attributes).any()
    other, noised = true.z.roll(1, dims=0), part.noise_of(true.x0, true.z)
    drawn = [
        part.from_noise(
            slerp(noised, noised.roll(1, dims=0), f).float(), slerp(true.z, other, f).float()
        )
        for f in fractions
    ]
    ends = true.attributes, true.attributes.roll(1, dims=0)
    agree = [tuple(float(judge(x).right(end).float().mean()) for end in ends) for x in drawn]
    sheet = torch.stack([true.image, *map(to_uint8, drawn), true.image.roll(1, dims=0)], dim=1)
    return [(a, b) for a, b in agree], sheet[:6].flatten(0, 1)
