"""GLIDE's two guidances on the coloured shapes: without a classifier, and by a CLIP's gradient.

b pictures; s side
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from autoencoder.pixels import from_uint8, to_uint8
from ldm.data.batch import Batch
from ldm.data.shapes import Shapes, captions, is_held_out, label_of, world
from ldm.diffusion import (
    Denoise,
    Process,
    VPCosine,
    autoguidance,
    cfg,
    clip_guidance,
    normal_like,
)
from ldm.diffusion.guidance import LogProb, gradient_of
from ldm.noisy_clip import NoisyClip
from ldm.papers.bench import Bench
from ldm.papers.coverage import spread_within
from ldm.papers.findings import Finding, Measured, Rows, Table
from ldm.papers.shape_exact import ExactShapes
from ldm.papers.shape_judge import judge
from ldm.papers.shape_samples import asked, combinations, moments, walk
from ldm.recipe import Recipe
from ldm.stage import Stage

SHOWN = Shapes(mistaken=0.1, usual=3, batch_size=32)
"""As on the web, one caption in ten is another picture's, and what a caption leaves open goes with
what it says: each colour has a grey of the background that is usual with it."""
SCALES = (1.0, 2.0, 4.0, 8.0)
"""Of classifier-free guidance."""
PULLS = (1.0, 3.0, 7.0)
"""Of CLIP's gradient: by the rule of Bayes, pull p beside the captioned model is scale 1 + p."""
TIMES = (0.3, 0.5, 0.7, 0.9)
CFG, CLIP = "without a classifier", "by CLIP"
AWARE, CLEAN = "noise-aware", "clean"
Way = tuple[str, float]


class Score(NamedTuple):
    """Share right of trained and of held-out combinations, diversity within a caption, distance to
    the nearest picture of the world."""

    trained: float
    held_out: float
    diversity: float
    distance: float


class Scores(NamedTuple):
    """`Score` over seeds."""

    trained: Measured
    held_out: Measured
    diversity: Measured
    distance: Measured


@dataclass(frozen=True)
class Seed:
    """What one set of trainings gave: scores by guidance, cosines by tower and time."""

    scores: dict[Way, Score]
    cosines: dict[tuple[str, float], float]
    sheet: Tensor
    chain: Tensor


def findings(bench: Bench, plans: Mapping[str, Recipe]) -> list[Finding]:
    """The sweep, the two guidances beside each other, and the two towers."""
    seeds = [measured(bench, plans, seed) for seed in bench.seeds]
    scores = {way: over([seed.scores[way] for seed in seeds]) for way in seeds[0].scores}
    sheets = (
        bench.pictures("sweep", seeds[0].sheet, columns=10, enlarge=3),
        bench.pictures("chain", seeds[0].chain, columns=10, enlarge=3),
    )
    return [
        sweep(bench, scores, sheets),
        alone(bench),
        beside(scores),
        towers(bench, seeds),
    ]


def over(scores: Sequence[Score]) -> Scores:
    """Means and standard errors over seeds."""
    return Scores(*(Measured.over(values) for values in zip(*scores, strict=True)))


def measured(bench: Bench, plans: Mapping[str, Recipe], seed: int) -> Seed:
    """Train the base model and the two CLIPs; draw under each guidance."""
    stage: Stage = bench.train(plans["base"], "base", seed).stage
    towers = {
        AWARE: bench.train(plans["noise_aware_clip"], "noise_aware_clip", seed).learner,
        CLEAN: bench.train(plans["clean_clip"], "clean_clip", seed).learner,
    }
    wanted = torch.cat(
        [combinations(False, copies=bench.count(3), every=2), combinations(True, copies=2)]
    )
    drawn = {
        way: walk(stage.denoiser.process, denoise, range(1000 * seed, 1000 * seed + len(wanted)))
        for way, denoise in guided(stage, towers[AWARE], asked(wanted)).items()
    }
    return Seed(
        scores={way: scored(x, wanted) for way, x in drawn.items()},
        cosines=cosines(towers, stage.denoiser.process, bench.count(80, 8), seed),
        sheet=torch.cat([to_uint8(drawn[CFG, s][-40::4]) for s in SCALES]),
        chain=chain_sheet(stage, wanted[-40::4]),
    )


@torch.no_grad()
def guided(stage: Stage, clip: NoisyClip, batch: Batch) -> dict[Way, Denoise]:
    """The denoiser under each guidance."""
    cond, null = stage.conditioner(batch), stage.conditioner.null(len(batch))
    process, words = stage.denoiser.process, clip.text(batch.caption or ())
    found: dict[Way, Denoise] = {
        (CFG, scale): cfg(stage.denoiser, cond, null, scale) for scale in SCALES
    }
    plain = stage.denoiser.bind(cond)
    for pull in PULLS:
        found[CLIP, pull] = clip_guidance(plain, process, clip.image, words, pull, clip.scale)
    return found


def scored(x: Tensor, wanted: Tensor) -> Score:
    """The judge's opinion of x [b 3 s s] drawn for attributes [b 3]."""
    held, seen = is_held_out(wanted), judge(x)
    right = seen.right(wanted).all(1).float()
    return Score(
        trained=float(right[~held].mean()),
        held_out=float(right[held].mean()),
        diversity=spread_within(x[~held], label_of(wanted[~held])),
        distance=float(seen.distance.mean()),
    )


def cosines(
    towers: Mapping[str, NoisyClip], process: Process, n: int, seed: int
) -> dict[tuple[str, float], float]:
    """Mean cosine of each tower's gradient to the exact gradient of log p(caption | x_t)."""
    generator = torch.Generator().manual_seed(seed)
    found = world()
    rows = (~is_held_out(found.attributes)).nonzero().squeeze(1)
    rows = rows[torch.randperm(len(rows), generator=generator)[:n]]
    x0, attributes = from_uint8(found.image[rows]), found.attributes[rows]
    truth = ExactShapes(process, SHOWN).log_prob(label_of(attributes))
    result = {}
    for time in TIMES:
        t = torch.full((len(rows),), time, dtype=torch.float64)
        x = process.perturb(x0, t, normal_like(x0, generator))
        exact = gradient_of(truth, x.double(), t).flatten(1).float()
        for name, clip in towers.items():
            found_gradient = gradient_of(similarity(clip, captions(attributes)), x, t)
            cosine = F.cosine_similarity(found_gradient.flatten(1), exact)
            result[name, time] = float(cosine.mean())
    return result


def similarity(clip: NoisyClip, texts: Sequence[str]) -> LogProb:
    """f(x_t, t) . g(c), whose direction alone matters here."""
    with torch.no_grad():
        words = clip.text(texts)
    return lambda x, t: (clip.image(x, t) * words).sum(-1)


def chain_sheet(stage: Stage, wanted: Tensor) -> Tensor:
    """x_t on the way to pictures of attributes [b 3], above what is made of it: [k*b 3 s s]."""
    with torch.no_grad():
        cond, null = stage.conditioner(asked(wanted)), stage.conditioner.null(len(wanted))
    way = list(
        moments(stage.denoiser.process, cfg(stage.denoiser, cond, null, 3.0), range(len(wanted)))
    )
    return torch.cat([to_uint8(x) for m in way[::3] for x in (m.x, m.x0)] + [to_uint8(way[-1].x)])


def sweep(bench: Bench, scores: Mapping[Way, Scores], sheets: tuple[str, ...]) -> Finding:
    """More guidance, more of the caption and less variety."""
    rows: Rows = tuple((f"{way} {s:g}", *score) for (way, s), score in scores.items())
    columns = ("guidance", "right", "right, held out", "diversity", "distance to the world")
    low, high = scores[CFG, 1.0], scores[CFG, 4.0]
    return Finding(
        claim="Classifier-free guidance trades diversity for the caption",
        published="figure 6 (2112.10741): over the guidance scale precision, inception and CLIP "
        "scores rise while recall falls and FID grows; samples are shown at scale 3",
        measured=f"from scale 1 to 4, right pictures go from {low.trained} to {high.trained} "
        f"and the diversity within a caption from {low.diversity} to {high.diversity}",
        holds=low.trained.below(high.trained) and high.diversity.below(low.diversity),
        if_not="The trainings are short: colour and place follow the caption, shapes are "
        "unfinished (see the pictures), and the error of such a network at strong guidance "
        "is a variety of its own.",
        table=Table(columns, rows),
        figures=(bench.plot("tradeoff", drawn(scores)), *sheets),
        comment="Right is all of colour, shape and place, as the nearest picture of the world has "
        "them; held out are combinations that no training picture shows. Diversity is the mean "
        "distance between pictures of one caption, distance that to the nearest picture of the "
        f"world. {SHOWN.mistaken:.0%} of the training captions belong to another picture, which a "
        "model without guidance copies; each colour has a grey of the background that is "
        f"{SHOWN.usual} times as frequent with it as each other one. The sheet has one row a scale "
        "(1, 2, 4, 8) for the same held-out captions and noise; below it the way to them at scale "
        "3, x_t above the x0 that the model makes of it.",
    )


def alone(bench: Bench) -> Finding:
    """The sweep without a network: what guidance does by itself."""
    found = {
        "a usual grey for each colour": exactly(bench, SHOWN),
        "greys by chance": exactly(bench, dataclasses.replace(SHOWN, usual=1)),
    }
    usual, even = found.values()
    low, high = usual[0], usual[2]
    rows: Rows = tuple(
        (f"{name}, scale {scale:g}", *values)
        for name, sweep in found.items()
        for scale, values in zip(SCALES, sweep, strict=True)
    )
    return Finding(
        claim="The trade is guidance's own: exact scores show it too",
        published="no figure: the paper guides networks alone",
        measured=f"with the exact scores of the world and its mistaken captions, from scale 1 to 4 "
        f"right pictures go from {low[0]} to {high[0]} and diversity from {low[1]} to {high[1]}; "
        f"in a world whose greys have nothing to do with the caption, diversity goes from "
        f"{even[0][1]} to {even[2][1]}",
        holds=low[0].below(high[0]) and high[1].below(low[1]),
        table=Table(("world", "right", "diversity"), rows),
        comment="The posterior means with and without the caption are sums over all trained "
        f"pictures. At scale 1 a share of {SHOWN.mistaken:.0%} is wrong, as the captions are. "
        "Guidance at scale s draws x with weight p(caption | x)^(s - 1) more: it moves to the "
        "pictures that say the caption most plainly, and has nothing to trade in what is "
        "independent of it.",
    )


def exactly(bench: Bench, data: Shapes) -> list[tuple[Measured, Measured]]:
    """Share right and diversity at each scale under the exact scores of `data`."""
    wanted = combinations(False, copies=bench.count(3))
    exact, label = ExactShapes(VPCosine(), data), label_of(wanted)
    strong, weak = exact.denoise(label), exact.denoise(None)
    found = []
    for scale in SCALES:
        guide, pairs = autoguidance(strong, weak, scale), []
        for seed in bench.seeds:
            x = walk(exact.process, guide, range(1000 * seed, 1000 * seed + len(wanted)))
            pairs.append((judge(x).accuracy(wanted), spread_within(x, label)))
        right, diversity = (Measured.over(values) for values in zip(*pairs, strict=True))
        found.append((right, diversity))
    return found


def beside(scores: Mapping[Way, Scores]) -> Finding:
    """The two guidances, each at its best."""
    best = {
        kind: max((way for way in scores if way[0] == kind), key=lambda w: scores[w].trained.mean)
        for kind in (CFG, CLIP)
    }
    free, clip = scores[best[CFG]], scores[best[CLIP]]
    return Finding(
        claim="Classifier-free guidance beats CLIP guidance, judged by neither",
        published="table 1 (2112.10741), Elo of human judges: 82.7 against -73.2 for realism, "
        "110.9 against 29.3 for the caption",
        measured=f"at the best scale of each, {free.trained} of the pictures are right without a "
        f"classifier (scale {best[CFG][1]:g}) and {clip.trained} by CLIP (pull {best[CLIP][1]:g}); "
        f"their distance to the world is {free.distance} and {clip.distance}",
        holds=clip.trained.below(free.trained) and not clip.distance.below(free.distance),
        if_not="At its best scale guidance without a classifier has the more right pictures, but "
        "these lie further from the world: a small network errs under strong guidance. CLIP's "
        "pull changes little: over the times of a sample its gradient points more beside the "
        "exact one than along it (the next table).",
        comment="Both act on the same captioned model from the same noise. CLIP's temperature is "
        "the one that it learned.",
    )


def towers(bench: Bench, seeds: Sequence[Seed]) -> Finding:
    """Why the tower has to know the noise."""

    def cosine(name: str, time: float) -> Measured:
        return Measured.over([seed.cosines[name, time] for seed in seeds])

    rows: Rows = tuple((f"t = {t:g}", cosine(AWARE, t), cosine(CLEAN, t)) for t in TIMES)
    high = [t for t in TIMES if t > 0.5]
    return Finding(
        claim="A CLIP must have learned on noised pictures to guide at high noise",
        published="section 2.4 (2112.10741): noised CLIP models give good samples where public "
        "ones need augmentations and further losses; no figure",
        measured=f"at t = 0.7 the cosine to the exact gradient is {cosine(AWARE, 0.7)} for the "
        f"noise-aware tower and {cosine(CLEAN, 0.7)} for the one of clean pictures",
        holds=all(cosine(CLEAN, t).below(cosine(AWARE, t)) for t in high),
        if_not="The trainings are short, and their three gradients differ.",
        table=Table(("time", AWARE, CLEAN), rows),
        comment="The shapes' world is finite, so log p(caption | x_t) and its gradient are sums "
        "over all pictures. The verdict asks for the times above 0.5, at which noise outweighs the "
        "picture.",
    )


def drawn(scores: Mapping[Way, Scores]) -> Any:
    """Share right over diversity, one line a guidance."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5))
    axes = figure.subplots()
    for kind in (CFG, CLIP):
        ways = [(CFG, 1.0), *(way for way in scores if way[0] == kind and way != (CFG, 1.0))]
        x = [scores[way].diversity.mean for way in ways]
        axes.plot(x, [scores[way].trained.mean for way in ways], "o-", label=kind)
        for way, place in zip(ways, x, strict=True):
            axes.annotate(f"{way[1]:g}", (place, scores[way].trained.mean))
    axes.set_xlabel("diversity within a caption")
    axes.set_ylabel("right pictures")
    axes.legend()
    return figure
