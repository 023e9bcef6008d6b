"""Samples of a digit model under a classifier's gradient, and what is measured of them.

b batch
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autoencoder.pixels import from_uint8
from ldm.classifier import NoisyClassifier
from ldm.data.batch import Batch
from ldm.data.digits import Digits
from ldm.data.toys import Mixture
from ldm.diffusion import (
    GuidedAncestral,
    LearnedRange,
    LinspaceGrid,
    Noise,
    Process,
    Solver,
    clip_x0,
    start,
    trajectory,
)
from ldm.diffusion.denoiser import Denoise
from ldm.diffusion.guidance import LogProb
from ldm.diffusion.sample import Snapshot
from ldm.papers.coverage import precision_recall, spread_within
from ldm.papers.exact import Exact
from ldm.papers.measures import DigitJudge, frechet_distance
from ldm.stage import Stage

SHAPE = (1, 8, 8)
STEPS = 25


def digits_of(label: Tensor) -> Batch:
    """A batch of labels [b] with nothing else."""
    return Batch(key=("",) * len(label), label=label)


def adm_g(classifier: NoisyClassifier, label: Tensor, scale: float) -> Solver:
    """Algorithm 1 of 2105.05233 with the learned variance."""
    return GuidedAncestral(
        log_prob=classifier.log_prob(label), scale=scale, variance=LearnedRange()
    )


def chain(
    stage: Stage,
    batch: Batch,
    solver: Solver,
    *,
    seeds: Sequence[int] | None = None,
    guidance: Callable[[Denoise], Denoise] = lambda denoise: denoise,
) -> Iterator[Snapshot]:
    """The moments of drawing 8 x 8 pictures for a batch, x0 held in [-1, 1] as ADM's code does."""
    process = stage.denoiser.process
    with torch.no_grad():
        cond = stage.conditioner(batch)
    denoise = guidance(clip_x0(stage.denoiser.bind(cond), process))
    noise = Noise(range(len(batch)) if seeds is None else seeds)
    times = LinspaceGrid()(process, STEPS)
    x = start(process, times, noise, SHAPE)
    yield from trajectory(denoise, process, solver, times, x, noise)


def draw(stage: Stage, batch: Batch, solver: Solver, **settings: Any) -> Tensor:
    """Pictures [b 1 8 8] in [-1, 1]; item i from seed i, or as the settings of `chain` say."""
    *_, last = chain(stage, batch, solver, **settings)
    return last.x.clamp(-1, 1)


@dataclass(frozen=True)
class Judged:
    """What was measured of labelled samples.

    agreement: share that an independent classifier takes for their label; precision, recall: by
    nearest neighbours in pixels, k = 3; spread: mean distance of samples of one class; frechet:
    distance in pixels to digits that no model has seen.
    """

    agreement: float
    precision: float
    recall: float
    spread: float
    frechet: float


def judged(x: Tensor, label: Tensor, judge: DigitJudge) -> Judged:
    """Samples [n 1 8 8] for labels [n] against the test digits."""
    real = pixels(Digits(part="test").whole())
    precision, recall = precision_recall(real, x)
    return Judged(
        agreement=judge.accuracy(x, label),
        precision=precision,
        recall=recall,
        spread=spread_within(x, label),
        frechet=frechet_distance(real, x),
    )


def pixels(batch: Batch) -> Tensor:
    """A batch's pictures as float [b c h w] in [-1, 1]."""
    assert batch.image is not None
    return from_uint8(batch.image)


def component_log_prob(data: Mixture, process: Process, k: int) -> LogProb:
    """The exact log p(k | x_t) of a mixture: log w_k + log p_t(x | k) - log p_t(x)."""
    whole, part = Exact(data, process), Exact(component(data, k), process)
    log_weight = torch.tensor(data.weights[k]).log()

    def log_prob(x: Tensor, t: Tensor) -> Tensor:
        return log_weight + part.log_prob(x, t) - whole.log_prob(x, t)

    return log_prob


def component(data: Mixture, k: int) -> Mixture:
    """Component k alone."""
    return Mixture(means=(data.means[k],), weights=(1.0,), std=data.std)
