"""The decoder's bound on held-out latents, by what the decoder is told.

n pictures; c h w latent grid; s side in pixels
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldm.conditioning.cond import Cond
from ldm.data.batch import Batch
from ldm.diffusion.noise import Noise
from ldm.evaluation.cache import cached, digest
from ldm.evaluation.coding import Bound, FirstStep, held_logsnr, latent_bits_bound
from ldm.evaluation.pairs import choose
from ldm.evaluation.section import Bench
from ldm.requests import derived_seed

PICTURES = 24
"""Held-out pictures at most; as many train pictures set the first step's variance."""
LEVELS = 48
CAPTION, IMAGINED, NOTHING, TRUE = (
    "caption", "caption and the prior's embedding", "nothing", "caption and the true embedding",
)  # fmt: skip
TOLD = (CAPTION, IMAGINED, NOTHING, TRUE)


@dataclass(frozen=True)
class Pictures:
    """Pictures of a split as the parts of the model see them.

    images: uint8 [n 3 s s]; latents: x0 [n ...] drawn from the posterior; log_q:
    log density [n] of those draws and spread: root mean square of the posterior's standard
    deviations, both in units of x0.
    """

    places: list[int]
    captions: tuple[str, ...]
    images: Tensor
    latents: Tensor
    log_q: Tensor
    spread: float

    def first(self, count: int) -> Pictures:
        """The first of them."""
        return Pictures(
            self.places[:count], self.captions[:count], self.images[:count],
            self.latents[:count], self.log_q[:count], self.spread,
        )  # fmt: skip


def pictures_of(bench: Bench, split: str, count: int) -> Pictures:
    """The first `count` of the pairs that can be asked of a split, encoded."""
    places = choose(bench.real, split, count, bench.options.seed)
    images = bench.originals(places)
    moments = bench.over(images, bench.moments, "encoding")
    generator = torch.Generator().manual_seed(derived_seed(bench.options.seed, split))
    codec: Any = bench.pipe.decoder.codec
    drawn = codec.draw(moments, generator)
    return Pictures(
        places,
        tuple(bench.real[i].caption for i in places),
        images,
        drawn.x0.to(bench.pipe.device),
        drawn.log_q,
        drawn.spread,
    )


def decoded(bench: Bench, x0: Tensor) -> Tensor:
    """x0 [n ...] as images, uint8 [n 3 s s]."""
    return bench.over(x0, bench.decoded, "decoding")


def measured(bench: Bench) -> dict[str, Bound]:
    """The bound on held-out latents by what the decoder is told; kept in the cache."""
    held = pictures_of(bench, "heldout", min(bench.options.pairs, PICTURES))
    identity = {
        **bench.made_by,
        "data": bench.real.digest,
        "captions": digest(held.captions),
        "seed": bench.options.seed,
        "prior": bench.pipe.samplers(**bench.options.prior).prior.describe(),
        "levels": LEVELS,
    }

    def compute() -> Tensor:
        found = bounds(bench, pictures_of(bench, "train", len(held.places)), held)
        return torch.stack([bound.packed() for bound in found.values()])

    packed = cached(bench.options.cache, "bits", identity, compute)
    return {name: Bound.unpacked(row) for name, row in zip(TOLD, packed, strict=True)}


@torch.no_grad()
def bounds(bench: Bench, train: Pictures, held: Pictures) -> dict[str, Bound]:
    """The bound by what the decoder is told; `train` sets the variance of the first step."""
    denoiser = bench.pipe.decoder.denoiser
    known, asked = conditions(bench, train), conditions(bench, held)
    start = held_logsnr(denoiser.process, held.spread)
    found = {}
    for name in TOLD:
        first = FirstStep.fitted(
            denoiser.bind(known[name]), denoiser.process, train.latents, start,
            Noise(noise_seeds(bench, train), bench.pipe.device),
        )  # fmt: skip
        found[name] = latent_bits_bound(
            denoiser.bind(asked[name]), denoiser.process, held.latents,
            Noise(noise_seeds(bench, held), bench.pipe.device), num_levels=LEVELS, first=first,
        )  # fmt: skip
    return found


@torch.no_grad()
def conditions(bench: Bench, of: Pictures) -> dict[str, Cond]:
    """What the decoder can be told of these pictures."""
    pipe, count = bench.pipe, len(of.places)
    text = Batch(key=("",) * count, text=pipe.clip.text(list(of.captions)))
    imagined = pipe.imagine(
        list(of.captions), seed=bench.seeds(count), candidates=1, **bench.options.prior
    )
    tell: Any = pipe.decoder.conditioner
    return {
        CAPTION: tell(text),
        IMAGINED: tell(text.replace(image_embedding=imagined)),
        NOTHING: tell.null(count),
        TRUE: tell(text.replace(image_embedding=pipe.clip.image(of.images))),
    }


def noise_seeds(bench: Bench, of: Pictures) -> list[int]:
    """Seeds of the noise on these pictures' latents."""
    return [derived_seed(seed, "bits") for seed in bench.seeds(len(of.places))]
