"""ADM-G's claims: the guided score, the classifier, the sweep over the scale of guidance.

b batch; n samples
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from typing import Any

import torch
from torch import Tensor

from autoencoder.pixels import to_uint8
from ldm.classifier import NoisyClassifier
from ldm.data.digits import Digits
from ldm.data.toys import Mixture
from ldm.diffusion import (
    Ddim,
    LogSnrGrid,
    Noise,
    VPCosine,
    sample,
    start,
)
from ldm.diffusion import classifier as guide
from ldm.diffusion.denoiser import Denoise
from ldm.diffusion.guidance import LogProb
from ldm.papers.bench import Bench
from ldm.papers.exact import Exact
from ldm.papers.findings import Finding, Measured, Rows, Table
from ldm.papers.guided import (
    Judged,
    adm_g,
    chain,
    component,
    component_log_prob,
    digits_of,
    draw,
    judged,
    pixels,
)
from ldm.papers.measures import DigitJudge
from ldm.recipe import Recipe
from ldm.stage import Stage

SCALES = {"conditional": (0.0, 0.5, 1.0, 2.0, 4.0, 8.0), "unconditional": (0.0, 1.0, 8.0)}
LOW, HIGH = 0.0, 8.0
BY_DDIM = "conditional, DDIM"
TOY = Mixture(means=((1.5, 0.0), (-1.0, 0.8)), weights=(0.3, 0.7), std=0.5)
Sweep = dict[tuple[str, float], list[Judged]]
"""What each model gives at each scale, one entry a seed."""


def findings(bench: Bench, plans: Mapping[str, Recipe]) -> list[Finding]:
    """The score, the classifier, class-conditional against unconditional, the sweep."""
    models = {
        name: [bench.train(plans[name], name, seed) for seed in bench.seeds]
        for name in ("conditional", "unconditional", "classifier")
    }
    classifiers = [task.learner for task in models["classifier"]]
    stages = {
        name: [task.stage for task in models[name]] for name in ("conditional", "unconditional")
    }
    sweep = swept(bench, stages, classifiers)
    return [
        exact_score(bench),
        classifier_accuracy(bench, classifiers),
        labels_help(sweep),
        trade(bench, stages["conditional"][0], classifiers[0], sweep),
        unconditional_guided(bench, stages["unconditional"][0], classifiers[0], sweep),
    ]


# 1. The guided score


def exact_score(bench: Bench) -> Finding:
    """The guided score of a mixture against the score of one component."""
    process = VPCosine()
    part = Exact(component(TOY, 0), process)
    aware = component_log_prob(TOY, process, 0)

    def unaware(x: Tensor, t: Tensor) -> Tensor:
        return aware(x, torch.full_like(t, process.t_min))

    rows, gaps = [], []
    for t in torch.linspace(0.1, 0.9, 5, dtype=torch.float64).tolist():
        gap, blind = (relative_gap(part, process, log_prob, t) for log_prob in (aware, unaware))
        rows.append((f"t = {t:.1f}", f"{gap:.1e}", f"{blind:.1e}"))
        gaps.append((gap, blind))
    worst, blind = max(gap for gap, _ in gaps), min(blind for _, blind in gaps)
    share, mean = guided_points(process, aware, bench.count(2_000, 100))
    return Finding(
        claim="Adding the gradient of a classifier of noised data to the score gives the score "
        "of the class",
        published="the identity is derived in section 4.2; no figure",
        measured=f"on a mixture of two Gaussians the guided score differs from the analytic score "
        f"of the class by {worst:.1e} of its size at most; a classifier that takes noised points "
        f"for clean ones is wrong by {blind:.1e} of it at least. Of points drawn under guidance, "
        f"{share} lie nearer to their class (its prior weight is {TOY.weights[0]}), and the first "
        f"coordinate of their mean is {mean} (exactly: {TOY.means[0][0]})",
        holds=worst < 1e-9 and blind > 1e-3 and (share.mean - TOY.weights[0]) > 0.5,
        table=Table(("time", "classifier of noised points", "classifier of clean points"),
                    tuple(rows)),
        comment="Largest difference over 2,000 points of the noised mixture, relative to the root "
        "mean square of the score, float64.",
    )  # fmt: skip


def relative_gap(part: Exact, process: VPCosine, log_prob: LogProb, t: float) -> float:
    """Largest error of the guided score at time t, over the root mean square of the score."""
    points, _ = dataclasses.replace(TOY, n=2_000).draw()
    noise = torch.randn(points.shape, generator=torch.Generator().manual_seed(1)).double()
    at = torch.full((len(points),), t, dtype=torch.float64)
    x = process.perturb(points.double(), at, noise)
    guided = guide(Exact(TOY, process), process, log_prob, 1.0)(x, at)
    sigma, truth = process.at(at, x).sigma, part.score(x, at)
    return float((-guided.eps / sigma - truth).abs().max() / truth.square().mean().sqrt())


def guided_points(process: VPCosine, log_prob: LogProb, n: int) -> tuple[Measured, Measured]:
    """Of points drawn for component 0: the share nearer to it, and their first coordinate."""
    guided, noise = guide(Exact(TOY, process), process, log_prob, 1.0), Noise(range(n))
    times = LogSnrGrid()(process, 50)
    x = start(process, times, noise, (2,), torch.float64)
    x = sample(guided, process, Ddim(), times, x, noise)
    nearest = torch.cdist(x, x.new_tensor(TOY.means)).argmin(1)
    share = (nearest == 0).double()
    return Measured.over(share.tolist()), Measured.over(x[:, 0].tolist())


# 2. The classifier


def classifier_accuracy(bench: Bench, classifiers: Sequence[NoisyClassifier]) -> Finding:
    """Accuracy on unseen digits over the noise level."""
    levels = [0.001, *(i / 10 for i in range(1, 11))]
    found = {
        t: Measured.over([accuracy_at(c, t, seed) for seed, c in enumerate(classifiers)])
        for t in levels
    }
    first, last = found[levels[0]], found[levels[-1]]
    process = classifiers[0].process
    ratio = (-process.logsnr(torch.tensor(levels, dtype=torch.float64)) / 2).exp().tolist()
    falls = all(not found[a].below(found[b]) for a, b in pairwise(levels))
    chance = abs(last.mean - 0.1) < 0.05
    return Finding(
        claim="A classifier of noised pictures reads the class until the noise hides it",
        published="no figure; section 4 trains it on the noising distribution of the model",
        measured=f"accuracy on unseen digits falls from {first} at the first time to {last} at "
        "the last (chance: 0.1)",
        holds=first.mean > 0.8 and falls and chance,
        table=Table(
            ("t", "noise to signal", "accuracy"),
            tuple((f"{t:g}", r, found[t]) for t, r in zip(levels, ratio, strict=True)),
        ),
        figures=(bench.plot("accuracy", accuracy_plot(levels, found)),),
        comment="Held to hold where it is above 0.8 at the first time, within 0.05 of chance at "
        "the last and never rises by more than two standard errors between.",
    )


@torch.no_grad()
def accuracy_at(classifier: NoisyClassifier, t: float, seed: int) -> float:
    """Accuracy on the test digits noised to t."""
    whole = Digits(part="test").whole()
    x0, label = pixels(whole), whole.label
    generator = torch.Generator().manual_seed(seed)
    at = torch.full((len(x0),), t, dtype=torch.float64)
    x_t = classifier.process.perturb(x0, at, torch.randn(x0.shape, generator=generator))
    return float((classifier(x_t, at).argmax(1) == label).float().mean())


def accuracy_plot(levels: Sequence[float], found: Mapping[float, Measured]) -> Any:
    """Accuracy over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2))
    axes = figure.subplots()
    means, errors = [found[t].mean for t in levels], [found[t].error or 0.0 for t in levels]
    axes.errorbar(levels, means, errors, fmt="o-", capsize=3)
    axes.axhline(0.1, color="grey", linestyle=":")
    axes.set_xlabel("time of the chain")
    axes.set_ylabel("accuracy on unseen digits")
    return figure


# 3. The sweep


def swept(
    bench: Bench, stages: Mapping[str, Sequence[Stage]], classifiers: Sequence[NoisyClassifier]
) -> Sweep:
    """Both models under algorithm 1, and the conditional one by DDIM (algorithm 2) at scale 1."""
    judge, label = DigitJudge.fitted(), torch.arange(bench.count(100, 20)) % 10
    found: Sweep = {}
    for name, each in stages.items():
        for (stage, classifier), scale in product(
            zip(each, classifiers, strict=True), SCALES[name]
        ):
            x = draw(stage, digits_of(label), adm_g(classifier, label, scale))
            found.setdefault((name, scale), []).append(judged(x, label, judge))
    for stage, classifier in zip(stages["conditional"], classifiers, strict=True):
        x = drawn_by_ddim(stage, classifier, label, 1.0)
        found.setdefault((BY_DDIM, 1.0), []).append(judged(x, label, judge))
    return found


def drawn_by_ddim(stage: Stage, classifier: NoisyClassifier, label: Tensor, scale: float) -> Tensor:
    """Algorithm 2: the guided eps in DDIM; pictures [n 1 8 8]."""
    process, log_prob = stage.denoiser.process, classifier.log_prob(label)

    def guided(denoise: Denoise) -> Denoise:
        return guide(denoise, process, log_prob, scale)

    return draw(stage, digits_of(label), Ddim(), guidance=guided)


def over_seeds(sweep: Sweep, key: tuple[str, float], measure: str) -> Measured:
    """One measure of one row."""
    return Measured.over([getattr(found, measure) for found in sweep[key]])


def sweep_table(sweep: Sweep, name: str) -> Table:
    """All measures at every scale of one model."""
    measures = [field.name for field in dataclasses.fields(Judged)]
    rows: Rows = tuple(
        (f"{who}, s = {scale:g}", *(over_seeds(sweep, (who, scale), m) for m in measures))
        for who, scale in sweep
        if who.startswith(name)
    )
    return Table(("model and scale", *measures), rows)


def labels_help(sweep: Sweep) -> Finding:
    """Class-conditional against unconditional, both unguided."""
    told, untold = (
        over_seeds(sweep, (name, 0.0), "frechet") for name in ("conditional", "unconditional")
    )
    return Finding(
        claim="A class-conditional model draws nearer to the data than an unconditional one",
        published="unguided, class-conditional, ImageNet-256: FID 10.94, precision 0.69, recall "
        "0.63 (section 4.3); the figures of the unconditional model are not quoted here",
        measured=f"the Fréchet distance in pixels to unseen digits is {told} with labels and "
        f"{untold} without; a judge takes "
        f"{over_seeds(sweep, ('conditional', 0.0), 'agreement')} of the labelled samples for "
        "their label",
        holds=told.below(untold),
        if_not="With 100 samples a seed the distances are noisy, and a difference of "
        "less than two standard errors counts as none.",
        comment="Networks of the same width and training, 100 samples a seed by 25 ancestral "
        "steps with the learned variance.",
    )


def trade(bench: Bench, stage: Stage, classifier: NoisyClassifier, sweep: Sweep) -> Finding:
    """The sweep of the conditional model."""

    def at(scale: float, measure: str) -> Measured:
        return over_seeds(sweep, ("conditional", scale), measure)

    low, high = LOW, HIGH
    agrees = at(low, "agreement").below(at(high, "agreement"))
    narrows = at(high, "recall").below(at(low, "recall"))
    narrows = narrows and at(high, "spread").below(at(low, "spread"))
    return Finding(
        claim="A larger scale of guidance trades diversity for fidelity",
        published="ImageNet-256, class-conditional, s = 0 to 1: precision 0.69 to 0.82, recall "
        "0.63 to 0.52, FID 10.94 to 4.59 (section 4.3)",
        measured=f"from s = 0 to s = {high:g} the judge's agreement goes from "
        f"{at(low, 'agreement')} to {at(high, 'agreement')}, recall from {at(low, 'recall')} to "
        f"{at(high, 'recall')}, the spread within a class from {at(low, 'spread')} to "
        f"{at(high, 'spread')}; at s = 1 precision is {at(1.0, 'precision')} "
        f"(s = 0: {at(low, 'precision')}) and the Fréchet distance {at(1.0, 'frechet')} "
        f"(s = 0: {at(low, 'frechet')})",
        holds=agrees and narrows,
        if_not="With 100 samples a seed the fall of recall is no larger than twice its "
        "standard error; agreement and spread go as claimed.",
        table=sweep_table(sweep, "conditional"),
        figures=(
            bench.plot("sweep", sweep_plot(sweep)),
            bench.pictures("scales", sheet(stage, classifier, SCALES["conditional"]), 10, 4),
            bench.pictures("chain", filmed(stage, classifier), 9, 4),
        ),
        comment="Held to hold where agreement rises and both recall and spread fall by more than "
        "two standard errors. Pictures: one row a scale, one column a class, from the same "
        "noise; then two digits on their way from noise (s = 2), x_t above and the clipped x0 "
        "that the network finds below.",
    )


def unconditional_guided(
    bench: Bench, stage: Stage, classifier: NoisyClassifier, sweep: Sweep
) -> Finding:
    """The sweep of the unconditional model."""
    free, one, best = (
        over_seeds(sweep, ("unconditional", s), "agreement") for s in (LOW, 1.0, HIGH)
    )
    told = over_seeds(sweep, ("conditional", 0.0), "agreement")
    return Finding(
        claim="A classifier makes a conditional model of an unconditional one, at a larger scale",
        published="the released commands (guided-diffusion, README) guide the unconditional "
        "ImageNet-256 model with s = 10 and the conditional one with s = 1",
        measured=f"the judge's agreement is {free} unguided, where nothing tells "
        f"it the label, {one} at s = 1 and {best} at s = {HIGH:g}, against {told} of the "
        "unguided conditional model",
        holds=free.below(one) and one.below(best),
        table=sweep_table(sweep, "unconditional"),
        figures=(
            bench.pictures(
                "unconditional", sheet(stage, classifier, SCALES["unconditional"]), 10, 4
            ),
        ),
        comment="Rows of the picture as above.",
    )


def sheet(stage: Stage, classifier: NoisyClassifier, scales: Sequence[float]) -> Tensor:
    """Ten digits a scale, uint8 [10 len(scales) 1 8 8]."""
    label = torch.arange(10)
    rows = [draw(stage, digits_of(label), adm_g(classifier, label, s)) for s in scales]
    return to_uint8(torch.cat(rows))


def filmed(stage: Stage, classifier: NoisyClassifier) -> Tensor:
    """Nine moments of two guided chains: x_t, then x0, for each."""
    label = torch.tensor([3, 8])
    moments = list(chain(stage, digits_of(label), adm_g(classifier, label, 2.0)))[::3]
    x_t, x0 = (torch.stack([getattr(m, part) for m in moments], 1) for part in ("x", "x0"))
    return to_uint8(torch.stack([x_t, x0], 1).flatten(0, 2))


def sweep_plot(sweep: Sweep) -> Any:
    """Agreement, precision, recall and Fréchet distance over the scale, for both models."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.2), layout="constrained")
    for axes, measure in zip(
        figure.subplots(2, 2).flat, ("agreement", "precision", "recall", "frechet"), strict=True
    ):
        for name, scales in SCALES.items():
            found = [over_seeds(sweep, (name, s), measure) for s in scales]
            axes.errorbar(
                scales, [f.mean for f in found], [f.error or 0.0 for f in found], fmt="o-",
                capsize=3, label=name,
            )  # fmt: skip
        axes.set_ylabel(measure)
        axes.set_xlabel("scale of guidance s")
    axes.legend()
    return figure
