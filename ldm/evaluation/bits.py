"""How many bits does the model need for a held-out picture, given its caption?

The decoder's bits a latent dimension, the whole model's a pixel dimension with their terms, and
what each noise level costs. n pictures; d latent dimensions
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ldm.diffusion.bounds import bits_per_dim, latent_bound
from ldm.diffusion.denoiser import Denoised
from ldm.diffusion.likelihood import FlowLikelihood, RademacherTrace
from ldm.diffusion.noise import Noise
from ldm.evaluation.coding import Bound, ByteTable, GaussianFit
from ldm.evaluation.figures import Figure, mean_figure
from ldm.evaluation.latent_bounds import (
    IMAGINED,
    LEVELS,
    PICTURES,
    Pictures,
    conditions,
    decoded,
    measured,
    noise_seeds,
    pictures_of,
)
from ldm.evaluation.prior import DEPENDS
from ldm.evaluation.section import Bench, Section

if TYPE_CHECKING:
    from PIL import Image

FLOW_PICTURES = 8
TOLERANCE = 1e-3
TABLE_PICTURES = 192
GAUSSIAN_PICTURES = 1024
GAUSSIAN = "Gaussian fitted to train latents"


def evaluate(bench: Bench) -> Section:
    """Bits a latent dimension and a pixel dimension, the decoder beside a Gaussian."""
    held, bounds = _held(bench), measured(bench)
    gaussian = GaussianFit.fitted(pictures_of(bench, "train", GAUSSIAN_PICTURES).latents.cpu())
    nats = {f"bound, told {name}": bound.total for name, bound in bounds.items()}
    nats[GAUSSIAN] = gaussian(held.latents.cpu())
    rec = reconstruction_nats(bench, held)
    rows = {name: whole_row(rec, held, latent) for name, latent in nats.items()}
    few = held.first(FLOW_PICTURES)
    flowing, evaluations = flow_nats(bench, few)
    same = {"bound": bounds[IMAGINED].total[: len(few.places)], "flow": flowing}
    for kind, latent in same.items():
        name = f"{kind}, told {IMAGINED}, {len(few.places)} pictures"
        rows[name] = whole_row(rec[: len(few.places)], few, latent)
    gain = mean_figure(
        bits_per_dim(nats[GAUSSIAN] - bounds[IMAGINED].total, held.latents[0].numel())
    )
    return Section(
        title="Bits per dimension",
        notes=(beaten(gain), *_notes(bench, held)),
        protocol={
            **_protocol(bench, held),
            "flow": f"Hutchinson, 1 Rademacher probe a picture, Runge-Kutta 5(4) with rtol = atol "
            f"= {TOLERANCE:g}, {len(few.places)} pictures",
            "byte table": f"{TABLE_PICTURES} train pictures at most",
            "Gaussian": f"{GAUSSIAN_PICTURES} train pictures at most",
        },
        subject={
            "decoder": bench.pipe.decoder.fingerprint(),
            "autoencoder": bench.pipe.space.model.fingerprint(),
            "flow evaluations": evaluations,
            "Gaussian's shrinkage": gaussian.shrinkage,
        },
        depends=DEPENDS,
        rows=rows,
    )


def evaluate_levels(bench: Bench) -> Section:
    """The terms of the decoder's bound, by what it is told, and what each noise level costs."""
    held, bounds = _held(bench), measured(bench)
    d = held.latents[0].numel()
    return Section(
        title="Bits by noise level",
        notes=(
            "Terms of the bound in bits a latent dimension: KL of the noisiest level to the prior, "
            "the integral over the noise levels, and the first step, -log2 of a density, which is "
            "negative where a latent is known to less than its unit.",
            "Plots: what one unit of log-SNR costs; and the root mean squared error of the "
            "denoised latent against the bits spent from the noise down to that level (Ho et al., "
            "arXiv 2006.11239, section 4.3).",
        ),
        protocol=_protocol(bench, held),
        subject={"decoder": bench.pipe.decoder.fingerprint()},
        depends=DEPENDS,
        rows={f"told {name}": term_row(bound, d) for name, bound in bounds.items()},
        grids={"bits-by-level": _by_level(bounds, d), "rate-distortion": _rate(bounds, d)},
        shown={"bits-by-level": (), "rate-distortion": ()},
    )


def term_row(bound: Bound, d: int) -> dict[str, Figure]:
    """The bound and its terms in bits a latent dimension."""
    terms = {
        "prior": bound.prior,
        "diffusion": bound.diffusion,
        "first step": bound.first,
        "sum": bound.total,
    }
    return {name: mean_figure(bits_per_dim(nats, d)) for name, nats in terms.items()}


def whole_row(rec: Tensor, held: Pictures, latent: Tensor) -> dict[str, Figure]:
    """Bits of the latent and of the whole model, from nats [n] of bytes given it and of it.

    Both log q and the latent's nats are those of normalised latents, whose scale cancels.
    """
    bound = latent_bound(rec.double(), held.log_q, latent.double().cpu(), 0.0)
    d, pixels = held.latents[0].numel(), held.images[0].numel()
    return {
        "latent, per latent dim": mean_figure(bits_per_dim(bound.latent, d)),
        "latent": mean_figure(bits_per_dim(bound.latent, pixels)),
        "less posterior entropy": mean_figure(bits_per_dim(bound.negative_entropy, pixels)),
        "reconstruction": mean_figure(bits_per_dim(bound.reconstruction, pixels)),
        "sum, per pixel dim": mean_figure(bits_per_dim(bound.total, pixels)),
    }


def reconstruction_nats(bench: Bench, held: Pictures) -> Tensor:
    """-log p of held-out bytes given their latents [n], by a table counted on train pictures."""
    train = pictures_of(bench, "train", TABLE_PICTURES)
    table = ByteTable.fitted(train.images, decoded(bench, train.latents))
    return table(held.images, decoded(bench, held.latents))


def flow_nats(bench: Bench, few: Pictures) -> tuple[Tensor, int]:
    """-log p of latents by the probability flow, [n] nats, and how often the decoder was asked."""
    denoiser, calls = bench.pipe.decoder.denoiser, 0
    bound = denoiser.bind(conditions(bench, few)[IMAGINED])

    def counted(x: Tensor, t: Tensor) -> Denoised:
        nonlocal calls
        calls += 1
        return bound(x, t)

    flow = FlowLikelihood(trace=RademacherTrace(), rtol=TOLERANCE, atol=TOLERANCE)
    noise = Noise(noise_seeds(bench, few), bench.pipe.device)
    return -flow(counted, denoiser.process, few.latents, noise), calls


def beaten(gain: Figure) -> str:
    """Whether the decoder beats the Gaussian, from its gain in bits a latent dimension."""
    assert gain.low is not None and gain.high is not None
    said = "beats" if gain.low > 0 else "loses to" if gain.high < 0 else "is not told apart from"
    return (
        f"Told {IMAGINED}, the decoder's bound {said} the Gaussian, which is told nothing: its "
        f"gain is {gain} bits a latent dimension, pairwise over the pictures."
    )


def _held(bench: Bench) -> Pictures:
    return pictures_of(bench, "heldout", min(bench.options.pairs, PICTURES))


def _protocol(bench: Bench, held: Pictures) -> dict[str, Any]:
    return {
        "split": "heldout",
        "pictures": len(held.places),
        "latent": "one draw from the posterior a picture",
        "bound": f"midpoints of {LEVELS} equal steps of log-SNR, one draw of the noise at each, "
        "the same for every row",
        "first step": "at the level of the posterior's noise; variance from as many train pictures",
        "precision of the bits": "float32",
        "seed": bench.options.seed,
        "prior": bench.pipe.samplers(**bench.options.prior).prior.describe(),
        **bench.resize,
    }


def _notes(bench: Bench, held: Pictures) -> tuple[str, ...]:
    stored = [len(bench.real[i].data) * 8 for i in held.places]
    files = sum(stored) / len(stored) / held.images[0].numel()
    return (
        "Sum: -log2 p(x) of the bytes from above, the negative evidence bound of the autoencoder "
        "(Vahdat et al., arXiv 2106.05931, eq. 1): bits of a latent drawn from the posterior, "
        "less the posterior's entropy, plus the bytes given the latent. Bytes are independent "
        "given what the autoencoder gives back, by a table of 256 x 256 counted on train "
        "pictures. Latent bits are those of a density of normalised latents and can be negative. "
        "The autoencoder was not trained for this sum.",
        "Bound: the variational bound in continuous time, estimated with one draw of the noise "
        "a level. With the prior's embedding it is a bound still, by Jensen's inequality, since "
        "the prior draws it without the picture. The row with the true embedding is told of the "
        "picture and is no likelihood of it given the caption. Flow: an estimate, unbiased up "
        "to the integration, of the exact likelihood of another model, the probability-flow ODE "
        "of the decoder, from its least noise on. Gaussian: closed form. Without guidance.",
        f"For comparison, the pictures' own files, without loss: {files:.3f} bits a pixel "
        "dimension.",
    )


def _by_level(bounds: Mapping[str, Bound], d: int) -> Image.Image:
    from ldm.evaluation.plots import Point, lines

    series = {}
    for name, bound in bounds.items():
        width = float(bound.logsnr[0] - bound.logsnr[1])
        cost = bound.levels / (width * d * math.log(2))
        at = zip(bound.logsnr.tolist(), cost.T, strict=True)
        series[f"told {name}"] = [Point(x, mean_figure(y)) for x, y in at]
    return lines(series, "log-SNR", "bits a latent dimension and unit of log-SNR", logy=True)


def _rate(bounds: Mapping[str, Bound], d: int) -> Image.Image:
    """From a thousandth of all bits on: before it, the error is that of the noisiest level."""
    from ldm.evaluation.plots import Point, lines

    series = {}
    for name, bound in bounds.items():
        rate = bound.rate.mean(0) / (d * math.log(2))
        at = zip(rate.tolist(), bound.error.sqrt().T, strict=True)
        shown = [(x, y) for x, y in at if x >= 1e-3 * float(rate.max())]
        series[f"told {name}"] = [Point(x, mean_figure(y)) for x, y in shown]
    x, y = "bits a latent dimension", "error of the denoised latent (RMS)"
    return lines(series, x, y, logx=True, ticks=(0.003, 0.01, 0.03, 0.1, 0.3, 1, 3))
