"""The four stages of a course: each with its samples and one measured criterion.

n samples; s side in pixels
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from autoencoder.pixels import from_uint8, to_uint8
from ldm.conditioning.edges import outlines
from ldm.data.batch import Batch
from ldm.diffusion.noise import Noise
from ldm.papers.bench import Bench
from ldm.papers.findings import Finding, Measured, Table
from ldm.papers.measures import DigitJudge, energy_distance, rms

TITLES = {
    "pixel": "Stage 1, pixels",
    "pixel_from_edges": "Stage 2, pixels from outlines",
    "latent": "Stage 3, latents",
    "latent_from_edges": "Stage 4, latents from outlines",
}
NO_FIGURE = "no figure; a criterion of ours"


def eights(x: Tensor) -> Tensor:
    """Pictures [n 1 s s] reduced to [n 1 8 8]."""
    return F.avg_pool2d(x, x.shape[-1] // 8)


@torch.no_grad()
def sampled(task: Any, batch: Batch, *, chain: bool = False) -> Tensor:
    """Pictures [n 1 s s] from seeds 0 to n - 1; with `chain`, every fifth state and the last."""
    stage, config, kept = task.stage, task.config, []

    def keep(step: int, t: float, x: Tensor) -> None:
        if step % 5 == 0 or step == config.preview.steps - 1:
            kept.append(stage.codec.decode(x))

    noise = Noise(range(len(batch)))
    x0 = stage.sample(batch, config.preview, noise, config.shape, on_step=keep if chain else None)
    decoded: Tensor = torch.cat(kept) if chain else stage.codec.decode(x0)
    return decoded


def gaussian_like(x: Tensor, seed: int) -> Tensor:
    """As many samples of the Gaussian with the mean and covariance of x [n ...]."""
    flat = x.flatten(1).double()
    values, vectors = torch.linalg.eigh(torch.cov(flat.T))
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(flat.shape, generator=generator, dtype=torch.float64)
    drawn = flat.mean(0) + (z * values.clamp_min(0).sqrt()) @ vectors.T
    return drawn.clamp(-1, 1).to(x.dtype).view_as(x)


def drawn(bench: Bench, tasks: Sequence[Any], train: Batch, test: Batch, name: str) -> Finding:
    """Samples against a Gaussian that has seen the same digits."""
    assert test.image is not None and train.image is not None
    real, known = eights(from_uint8(test.image)), eights(from_uint8(train.image))
    nothing = Batch(key=("",) * bench.count(360, 20))
    drawn_by: dict[str, list[Tensor]] = {
        "samples": [eights(sampled(task, nothing)) for task in tasks],
        "Gaussian of the training digits": [gaussian_like(known, s) for s in bench.seeds],
        "Gaussian of the very test digits": [gaussian_like(real, s) for s in bench.seeds],
        "training digits": [known],
    }
    found = {
        name: Measured.over([energy_distance(x, real) for x in clouds])
        for name, clouds in drawn_by.items()
    }
    ours, gaussian = found["samples"], found["Gaussian of the training digits"]
    chain = sampled(tasks[0], nothing.take(10), chain=True)
    return Finding(
        claim=f"{TITLES[name]}: samples are closer to unseen digits than a Gaussian's",
        published=NO_FIGURE,
        measured=f"energy distance to test digits {ours}, of a Gaussian with the mean and "
        f"covariance of the training digits {gaussian}",
        holds=ours.below(gaussian),
        if_not="The trainings are short, and what an autoencoder of latents blurs counts as "
        "distance.",
        table=Table(("pictures", "energy distance to test digits"), tuple(found.items())),
        figures=(bench.pictures(name, to_uint8(chain), 10, enlarge=48 // chain.shape[-1]),),
        comment="Ten samples on their way from noise, every fifth step. The distance is between "
        "pictures of 8 x 8 pixels and 0 for equal laws. Gaussians are cut to the range of pixels; "
        "the one of the test digits has seen what it is judged by, which no model has.",
    )


def translated(bench: Bench, tasks: Sequence[Any], test: Batch, name: str) -> Finding:
    """Digits drawn from outlines: are they those digits?"""
    assert test.image is not None and test.label is not None
    judge, few = DigitJudge.fitted(), test.take(bench.count(360, 20))
    assert few.image is not None and few.label is not None
    x, label = from_uint8(few.image), few.label
    rows = []
    for task in tasks:
        y = sampled(task, few)
        apart = [rms(y - v) for v in (x, x.roll(1, 0))]
        rows.append((*apart, judge.accuracy(eights(y), label)))
    right, other, accuracy = (Measured.over(list(v)) for v in zip(*rows, strict=True))
    shown = few.take(10)
    assert shown.image is not None
    edges = 2 * outlines(shown.image.float() / 255) - 1
    sheet = torch.cat([edges, sampled(tasks[0], shown), from_uint8(shown.image)])
    return Finding(
        claim=f"{TITLES[name]}: the digit that is drawn is the one whose outlines were given",
        published=NO_FIGURE,
        measured=f"{accuracy} of the drawn digits are taken for the class of the digit that the "
        f"outlines are of (chance 0.10); root mean square distance {right} to that digit and "
        f"{other} to another one",
        holds=right.below(other) and Measured(0.5, 0.0, 1).below(accuracy),
        table=Table(
            ("distance to its digit", "to another digit", "taken for its class"),
            ((right, other, accuracy),),
        ),
        figures=(bench.pictures(name, to_uint8(sheet), 10, enlarge=48 // x.shape[-1]),),
        comment="Outlines, what is drawn from them, the digits. Test digits, on which nothing "
        "but the judge was fitted, so its accuracy is a little too kind to digits drawn exactly.",
    )
