"""The trained parts of the DALL-E 2 study, and how its pictures are drawn.

b pictures; e width of an embedding; s side
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from autoencoder.pixels import from_uint8
from ldm.ar_prior import ArPrior
from ldm.conditioning.clip import Clip
from ldm.data.batch import Batch
from ldm.data.shapes import captions, is_held_out, world
from ldm.described import Described
from ldm.diffusion import Ddim, Denoise, LogSnrGrid, Noise, invert, sample
from ldm.papers.bench import Bench
from ldm.papers.shape_samples import walk
from ldm.recipe import Recipe
from ldm.samplers import Sampler
from ldm.stage import Stage

WIDTH = 32
"""e"""
STEPS = 24
"""Of the deterministic sampler and its inversion."""


@dataclass(frozen=True)
class Parts:
    """What one seed has trained, around the one CLIP."""

    seed: int
    clip: Clip
    prior: Stage
    ar_prior: ArPrior
    decoder: Stage

    def text(self, attributes: Tensor) -> Batch:
        """What the priors read for attributes [b 3]."""
        said = captions(attributes)
        return Batch(key=("",) * len(said), caption=said, text=self.clip.text(said))

    def seeds(self, n: int, number: int = 0) -> range:
        """Seeds of n pictures; another number gives others."""
        first = 100_000 * self.seed + 10_000 * number
        return range(first, first + n)

    @torch.no_grad()
    def imagined(self, batch: Batch, number: int = 0) -> Tensor:
        """The diffusion prior's embeddings for texts: unit norm [b e]."""
        noise = Noise(self.seeds(len(batch), number))
        return self.prior.codec.decode(self.prior.sample(batch, Sampler(steps=16), noise, (WIDTH,)))

    @torch.no_grad()
    def decoded(self, embedding: Tensor | None, text: Batch | None, n: int) -> Tensor:
        """Pictures [n 3 s s] from an embedding, a text, both or neither."""
        cond = self.decoder.conditioner(told(embedding, text, n))
        return walk(
            self.decoder.denoiser.process, self.decoder.denoiser.bind(cond), self.seeds(n, 9)
        )

    @torch.no_grad()
    def bound(self, embedding: Tensor) -> Denoise:
        """The decoder under embeddings [b e] alone."""
        cond = self.decoder.conditioner(told(embedding, None, len(embedding)))
        return self.decoder.denoiser.bind(cond)

    def noise_of(self, x0: Tensor, embedding: Tensor) -> Tensor:
        """The noise x_T [b 3 s s] from which pictures x0 come back under their embeddings."""
        process, noise = self.decoder.denoiser.process, Noise(self.seeds(len(x0)))
        times = LogSnrGrid()(process, STEPS)
        return invert(self.bound(embedding), process, Ddim(), times, x0, noise)

    def from_noise(self, noised: Tensor, embedding: Tensor) -> Tensor:
        """Pictures from (embedding, x_T) by the deterministic sampler, in [-1, 1]."""
        process, noise = self.decoder.denoiser.process, Noise(self.seeds(len(noised)))
        times = LogSnrGrid()(process, STEPS)
        drawn = sample(self.bound(embedding), process, Ddim(), times, noised, noise)
        return drawn.clamp(-1, 1)


def told(embedding: Tensor | None, text: Batch | None, n: int) -> Batch:
    """What the decoder reads; what is None gives its learned null."""
    return Batch(key=("",) * n, image_embedding=embedding, text=None if text is None else text.text)


def trained(bench: Bench, plans: Mapping[str, Recipe], seed: int) -> Parts:
    """Train what one seed needs; the CLIP is the recipes' own."""
    data = plans["decoder"].data
    assert isinstance(data, Described)
    return Parts(
        seed=seed,
        clip=data.clip.load(),
        prior=bench.train(plans["diffusion_prior"], "diffusion_prior", seed).stage,
        ar_prior=bench.train(plans["autoregressive_prior"], "autoregressive_prior", seed).learner,
        decoder=bench.train(plans["decoder"], "decoder", seed).stage,
    )


@dataclass(frozen=True)
class Shown:
    """Pictures of the world with their true embeddings.

    image: uint8 [b 3 s s]; x0: in [-1, 1]; attributes [b 3], details [b 2]; z: [b e].
    """

    image: Tensor
    x0: Tensor
    attributes: Tensor
    details: Tensor
    z: Tensor


def shown(clip: Clip, n: int, seed: int, *, held_out: bool) -> Shown:
    """n pictures, drawn under a seed from the trained or the held-out combinations."""
    found = world()
    rows = (is_held_out(found.attributes) == held_out).nonzero().squeeze(1)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:n]]
    image = found.image[rows]
    return Shown(
        image, from_uint8(image), found.attributes[rows], found.details[rows], clip.image(image)
    )
