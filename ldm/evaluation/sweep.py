"""One set of captions drawn again and again with other samplers, and what is measured each time.

n pictures; e embedding width; c channels of content features; z h w latent grid; s pixels
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ldm.data.batch import Batch
from ldm.diffusion.noise import Noise
from ldm.evaluation.cache import cached, digest
from ldm.evaluation.caption import clip_score
from ldm.evaluation.diversity import pairwise
from ldm.evaluation.features import Extractor, Seen
from ldm.evaluation.fidelity.extractors import load_network
from ldm.evaluation.fidelity.inputs import open_pictures
from ldm.evaluation.fidelity.metrics import Settings, measure
from ldm.evaluation.fidelity.table import features_of
from ldm.evaluation.figures import Figure, mean_figure
from ldm.evaluation.pairs import choose
from ldm.evaluation.samples import judged, look, make_judge, real_features
from ldm.evaluation.section import Bench
from ldm.requests import derived_seed
from ldm.samplers import Sampler, Sampling

MEASURED = (
    "KID: against all real held-out pictures, by the network in its name. Style and "
    "concept: the judge of the section on pictures; the share of pictures in the asked style, and "
    "that of pictures with one of the asked concept among the 5 nearest real ones. CLIP score: "
    "100 times the cosine to the caption by the model's own CLIP, which the prior has seen."
)


@dataclass(frozen=True)
class Asked:
    """n pictures to draw, `copies` of each caption one after another, each with its own seed.

    `embeddings` [n e] are the prior's, drawn once: only the decoder differs between two draws.
    """

    places: tuple[int, ...]
    captions: tuple[str, ...]
    styles: tuple[str, ...]
    seeds: tuple[int, ...]
    copies: int
    embeddings: Tensor


def ask(bench: Bench, captions: int, copies: int) -> Asked:
    """Held-out pairs, as many as `captions` at most, with the prior's embeddings for them."""
    options, pipe = bench.options, bench.pipe
    few = choose(bench.real, "heldout", min(captions, options.pairs), options.seed)
    places = [i for i in few for _ in range(copies)]
    told, seeds = [bench.real[i].caption for i in places], bench.seeds(len(places))
    identity = {
        **bench.made_by,
        "prior": pipe.samplers(**options.prior).prior.describe(),
        "asked": digest([told, seeds]),
    }
    embeddings = cached(
        options.cache,
        "imagined",
        identity,
        lambda: bench.batched(
            range(len(places)),
            lambda run: pipe.imagine(
                [told[j] for j in run], seed=[seeds[j] for j in run], **options.prior
            ).cpu(),
            "prior",
        ),
    )
    styles = tuple(bench.real[i].style for i in places)
    return Asked(tuple(places), tuple(told), styles, tuple(seeds), copies, embeddings)


def draw(
    bench: Bench,
    asked: Asked,
    sampler_of: Callable[[Sequence[int]], Sampling],
    identity: Mapping[str, object],
) -> Tensor:
    """x0 [n ...], kept under `identity` and all else that they depend on.

    `sampler_of` gives the sampler for a run of the pictures, by their places in `asked`.
    """
    pipe = bench.pipe
    shape = pipe.decoder.codec.shape(pipe.image_size, pipe.image_size)

    @torch.no_grad()
    def some(run: Sequence[int]) -> Tensor:
        rows = list(run)
        with torch.autocast(pipe.device.type, torch.bfloat16, enabled=pipe.bf16):
            batch = Batch(
                key=("",) * len(rows),
                text=pipe.clip.text([asked.captions[j] for j in rows]),
                image_embedding=asked.embeddings[rows].to(pipe.device),
            )
            noise = Noise([derived_seed(asked.seeds[j], "decoder") for j in rows], pipe.device)
            return pipe.decoder.sample(batch, sampler_of(rows), noise, shape).float().cpu()

    whole = {
        **bench.made_by,
        "asked": digest([asked.captions, asked.seeds, asked.embeddings.tolist()]),
        **identity,
    }
    return cached(
        bench.options.cache,
        "latents",
        whole,
        lambda: bench.batched(range(len(asked.places)), some, "latents"),
    )


def own_sampler(bench: Bench, steps: int) -> Sampler:
    """The decoder's sampler by the options; `steps` where they do not say how many."""
    options = bench.options
    return bench.pipe.samplers(
        **{**options.decoder, "num_inference_steps": options.steps or steps}
    ).decoder


def pictures(bench: Bench, latents: Tensor) -> Tensor:
    """Latents [n z h w] -> uint8 [n 3 s s]."""
    return bench.over(latents, bench.decoded, "autoencoder")


class Meter:
    """Measures pictures of what was asked; the features of the real ones are looked up once.

    `kid` is the name of the column with the KID, which says whose features it compares.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench, options = bench, bench.options
        self.extractor = Extractor(device=bench.pipe.device)
        self.judge = make_judge(bench.real, real_features(bench, self.extractor))
        self.network = load_network(options.extractor, options.extractor_weights, bench.pipe.device)
        self.kid = self.network.column("KID")
        heldout = open_pictures(bench.originals(bench.real.of("heldout")))
        self.reference = features_of(
            heldout, self.network, options.cache, options.batch_size, options.quiet
        )

    def __call__(self, asked: Asked, images: Tensor) -> dict[str, Figure]:
        """A row: uint8 [n 3 s s] for the n asked. Captions are the items that are resampled."""
        verdicts = judged(self.bench.real, self.judge, asked.places, self._seen(images))
        shares = {"style": verdicts.style, "concept top-5": verdicts.rank < 5}
        return {
            **measure(self.network, self._compared(images), self.reference, ["kid"], Settings()),
            **{name: mean_figure(_by_caption(v, asked), "%") for name, v in shares.items()},
            "CLIP score": mean_figure(_by_caption(self._clip(asked, images), asked)),
        }

    def distance(self, asked: Asked, images: Tensor) -> Figure:
        """How different pictures of one caption are: 1 - cosine of content, mean over pairs."""
        groups = self._seen(images).content.split(asked.copies)
        return mean_figure(torch.tensor([pairwise(group) for group in groups]))

    def _compared(self, images: Tensor) -> Tensor:
        """What the KID looks at, [n d]."""
        return self.bench.over(images, self.network, "features")

    def _seen(self, images: Tensor) -> Seen:
        return look(self.bench, self.extractor, images)

    def _clip(self, asked: Asked, images: Tensor) -> Tensor:
        """CLIP score [n] of the pictures and their captions."""
        clip = self.bench.pipe.clip
        return self.bench.batched(
            range(len(images)),
            lambda run: clip_score(
                clip.image(images[list(run)]), clip.text([asked.captions[j] for j in run]).pooled
            ).cpu(),
            "CLIP score",
        )


def about(bench: Bench, asked: Asked, meter: Meter) -> dict[str, Any]:
    """For protocols: what was asked and by what it is judged."""
    return {
        "split": "heldout",
        "captions": len(asked.places) // asked.copies,
        "pictures of each": asked.copies,
        "seeds": f"picture i has seed {bench.options.seed} + i in prior and decoder",
        "prior": bench.pipe.samplers(**bench.options.prior).prior.describe(),
        "extractor": meter.extractor.identity(),
        "KID": {
            **meter.network.identity(),
            **Settings().told(),
            "reference": f"{len(meter.reference)} real held-out pictures of {bench.real.digest}",
            **bench.resize,
        },
        "clip": bench.pipe.clip.fingerprint(),
    }


def _by_caption(values: Tensor, asked: Asked) -> Tensor:
    """[n] -> the mean of each caption's pictures."""
    return values.double().unflatten(0, (-1, asked.copies)).mean(dim=1)
