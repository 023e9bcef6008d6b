"""The parts of the study of representations: probes, controls, what the noise decides.

n samples; d width of a code
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autoencoder.pixels import from_uint8, to_uint8
from ldm.data.batch import Batch
from ldm.data.digits import Digits
from ldm.diffusion.noise import Noise
from ldm.evaluation.probes import class_accuracy, explained
from ldm.papers.bench import Bench
from ldm.papers.findings import Finding, Measured, Rows, Table
from ldm.papers.probes import coarse_and_fine
from ldm.recipe import Recipe

LEVELS = (0.02, 0.2, 0.4, 0.6, 0.8, 0.98)
"""Times at which E(x0, t) is probed, from nearly clean to nearly noise."""
MIDDLE = 0.5
NAMES = {
    "constant": "E(x0), L1",
    "timed": f"E(x0, t) at t = {MIDDLE}, L1",
    "variational": "E(x0) Gaussian, KL (VDRL)",
    "coarse": "E(x0), much noise (t > 0.6)",
    "fine": "E(x0), little noise (t < 0.2)",
    "autoencoder": "plain autoencoder, equal size",
    "random": "untrained encoder",
    "pixels": "the 64 pixels themselves",
}

DRAWN_IN = {"constant": 20, "variational": 20, "coarse": 1, "autoencoder": 1}
"""Steps from noise: one where the model knows nothing of the way down to the picture."""


@dataclass(frozen=True)
class Probed:
    """What linear probes find in a representation, over the seeds."""

    digit: Measured
    coarse: Measured
    fine: Measured


Represent = Callable[[Batch], Tensor]


def parts() -> tuple[Batch, Batch]:
    """Digits to fit probes on, and others to score them on."""
    return Digits(part="train").whole(), Digits(part="test").whole()


def picture(batch: Batch) -> Tensor:
    """[n 1 8 8] in [-1, 1]."""
    assert batch.image is not None
    return from_uint8(batch.image)


@torch.no_grad()
def code(task: Any, batch: Batch, level: float = MIDDLE) -> Tensor:
    """z [n d] at this time, which only E(x0, t) hears."""
    denoiser = task.stage.denoiser
    t = torch.full((len(batch),), level, dtype=torch.float64)
    z: Tensor = denoiser.network.code(
        picture(batch), denoiser.time_embed(denoiser.process, t).float()
    )
    return z


def untrained(plan: Recipe, seed: int) -> Any:
    """The same model as it is drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        task: Any = plan.task.build(plan.data.open())
    task.module.eval()
    return task


def digit_score(represent: Represent) -> float:
    """Accuracy of a linear probe for the digit."""
    train, test = parts()
    assert train.label is not None and test.label is not None
    return class_accuracy(represent(train), train.label, represent(test), test.label)


def scores(represent: Represent) -> tuple[float, float, float]:
    """Digit (accuracy), coarse and fine structure (shares of variance explained)."""
    train, test = parts()
    z, z_test = represent(train), represent(test)
    seen, seen_test = coarse_and_fine(picture(train)), coarse_and_fine(picture(test))
    detail = [explained(z, a, z_test, b) for a, b in zip(seen, seen_test, strict=True)]
    return digit_score(represent), detail[0], detail[1]


def probe_all(tasks: Mapping[str, Sequence[Any]]) -> dict[str, Probed]:
    """Every model's code, probed."""
    return {
        name: over(
            [
                scores(lambda batch, task=task: code(task, batch))  # type: ignore[misc]
                for task in of_seed
            ]
        )
        for name, of_seed in tasks.items()
    }


def pixels_probed() -> Probed:
    """The same of the pixels themselves."""
    return over([scores(lambda batch: picture(batch).flatten(1))])


def over(found: Sequence[tuple[float, float, float]]) -> Probed:
    """Means and errors over the seeds."""
    return Probed(*(Measured.over(list(column)) for column in zip(*found, strict=True)))


def classes(probed: Mapping[str, Probed], pixels: Probed) -> Finding:
    """Does a code made by denoising tell the class, and how do the controls do?"""
    everything = {**probed, "pixels": pixels}
    rows: Rows = tuple((NAMES[name], p.digit, p.coarse, p.fine) for name, p in everything.items())
    learned, drawn = probed["constant"].digit, probed["random"].digit
    plain, variational = probed["autoencoder"].digit, probed["variational"].digit
    return Finding(
        claim="A code trained by denoising alone tells the class of a picture",
        published="no figure confirmed; the paper probes codes of CIFAR-10, mini-ImageNet and "
        "others against autoencoders and contrastive learning (arXiv 2105.14257, section 4)",
        measured=f"a linear probe of E(x0) names {learned} of test digits, of the Gaussian code "
        f"{variational}, of an untrained encoder {drawn}, of a plain autoencoder of equal size "
        f"{plain}, of all 64 pixels {pixels.digit}",
        holds=drawn.below(learned) and drawn.below(variational),
        if_not="The control keeps a random projection of every pixel, and a linear probe reads "
        "that well.",
        table=Table(
            ("representation", "digit", "coarse R2", "fine R2"),
            rows,
        ),
        comment="Accuracy for the digit, chance is 0.10. R2: share of the variance on test "
        "digits that a linear map of the code explains, of the means of 2 x 2 "
        "blocks and of what those leave. The verdict is about the untrained control; whether "
        f"denoising beats the autoencoder here: {'yes' if plain.below(learned) else 'no'}.",
    )


def by_time(bench: Bench, timed: Sequence[Any]) -> Finding:
    """Accuracy of a probe of E(x0, t) over t."""
    found = {
        level: Measured.over(
            [
                digit_score(lambda b, task=task, at=level: code(task, b, at))  # type: ignore[misc]
                for task in timed
            ]
        )
        for level in LEVELS
    }
    inner = max(LEVELS[1:-1], key=lambda level: found[level].mean)
    ends = found[LEVELS[0]], found[LEVELS[-1]]
    return Finding(
        claim="A timed code E(x0, t) says different things at different times, and tells the "
        "class best at a medium amount of noise",
        published="no figure confirmed; the paper shows accuracy over t with its best between "
        "the ends (arXiv 2105.14257, section 4)",
        measured=f"a probe names {ends[0]} at t = {LEVELS[0]}, {found[inner]} at t = {inner} and "
        f"{ends[1]} at t = {LEVELS[-1]}",
        holds=all(end.below(found[inner]) for end in ends),
        if_not="The encoder's answer changes little with t, and so the best time is told from the "
        "ends by less than two standard errors.",
        table=Table(("t", "digit"), tuple((level, found[level]) for level in LEVELS)),
        figures=(bench.plot("by_time", drawn_by_time(found)),),
        comment="The best inner time is chosen after looking at all, which favours it a little.",
    )


def drawn_by_time(found: Mapping[float, Measured]) -> Any:
    """Accuracy over t with error bars."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    values = list(found.values())
    axes.errorbar(list(found), [v.mean for v in values], [v.error or 0 for v in values], fmt="o-")
    axes.set_xlabel("t (0: picture, 1: noise)")
    axes.set_ylabel("accuracy of a linear probe")
    return figure


@torch.no_grad()
def denoising_loss(task: Any, batch: Batch, told: Batch, repeats: int) -> float:
    """The training's own mean squared error on `batch` when told the codes of `told`."""
    stage, generator, found = task.stage, torch.Generator().manual_seed(0), []
    x0, cond = stage.codec.encode(batch), stage.conditioner(told)
    for _ in range(repeats):
        terms = stage.config.objective(stage.denoiser, x0, cond, generator)
        found.append(float(terms["mse"].mean()))
    return sum(found) / repeats


def shuffled(bench: Bench, tasks: Mapping[str, Sequence[Any]]) -> Finding:
    """Denoising loss with each picture's own code and with another one's."""
    repeats = bench.count(10)
    rows, verdicts, said = [], [], ""
    for name in ("constant", "timed", "variational"):
        losses = []
        for task in tasks[name]:
            test = parts()[1]
            assert test.image is not None
            other = test.replace(image=test.image.roll(1, 0))
            losses.append([denoising_loss(task, test, told, repeats) for told in (test, other)])
        own, others = (Measured.over(list(column)) for column in zip(*losses, strict=True))
        rise = Measured.over([b - a for a, b in losses])
        rows.append((NAMES[name], own, others, rise))
        verdicts.append(Measured(0.0, 0.0, 1).below(rise))
        said = said or f"{own} with a picture's own code, {others} with another picture's"
    return Finding(
        claim="The denoiser uses the code: another picture's code raises its loss",
        published="no figure; a control of ours",
        measured=f"mean squared error of eps for E(x0) {said}",
        holds=all(verdicts),
        table=Table(("code", "own", "another's", "rise"), tuple(rows)),
        comment="Test digits, the same times and noise for both; the next digit's code is "
        "another picture's.",
    )


def ranges(
    bench: Bench, tasks: Mapping[str, Sequence[Any]], probed: Mapping[str, Probed]
) -> Finding:
    """Codes trained under much and under little noise."""
    much, little = probed["coarse"], probed["fine"]
    return Finding(
        claim="The range of noise decides the level of detail: much noise makes a code of coarse "
        "content, little noise one of details",
        published="no figure confirmed; shown by the paper's samples for different weightings of "
        "the times (arXiv 2105.14257, sections 2 and 4)",
        measured=f"of the coarse structure the code explains {much.coarse} after training with "
        f"much noise and {little.coarse} with little; of the fine structure {much.fine} and "
        f"{little.fine}; the digit is named in {much.digit} and {little.digit}",
        holds=little.coarse.below(much.coarse) and much.fine.below(little.fine),
        if_not="The coarse half of the claim holds. At little noise x_t says nearly everything "
        "itself, so that the code need hold little, fine or coarse: the fine is the larger part "
        "of what it holds, as claimed, but not more than with much noise.",
        figures=(
            bench.pictures("drawn_from_codes", drawn_from_codes(bench, tasks), 10, enlarge=5),
        ),
        comment="Linear probes of the two codes, as in the first table. The picture: ten test "
        "digits, then what is drawn from noise when told the code of E(x0) and the Gaussian code "
        "(20 steps), then the mean picture given the code of much noise and the autoencoder's.",
    )


@torch.no_grad()
def drawn_from_codes(bench: Bench, tasks: Mapping[str, Sequence[Any]]) -> Tensor:
    """Originals, then samples that were told their codes: uint8 [10 k 1 8 8]."""
    test = parts()[1].take(10)
    rows = [picture(test)]
    for name, steps in DRAWN_IN.items():
        stage, config = tasks[name][0].stage, tasks[name][0].config
        sampler = dataclasses.replace(config.preview, steps=steps)
        rows.append(stage.sample(test, sampler, Noise(range(10)), config.shape))
    return to_uint8(torch.cat(rows).clamp(-1, 1))
