"""A small classifier of drawing styles from noised latents, to guide with.

It is fitted where it is needed, within a minute, on latents of train pictures: no part of the
model. n pictures; b batch; z h w latent grid
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ldm import codec
from ldm.classifier import ClassifierConfig, NoisyClassifier
from ldm.data.batch import Batch
from ldm.diffusion.guidance import LogProb
from ldm.errors import RequestError, suggest
from ldm.evaluation.cache import cached
from ldm.evaluation.section import Bench
from ldm.networks.flat import FlatEncoderConfig


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How the classifier is made: train pictures, steps, batch, rate, widths of its two levels."""

    pictures: int = 2048
    steps: int = 240
    batch: int = 96
    rate: float = 1e-3
    width: int = 512
    depth: int = 3
    seed: int = 0


@dataclass(frozen=True)
class _Given:
    """The codec of a model, for a classifier that is never saved."""

    given: codec.Codec

    def build(self, latents: codec.Latents | None) -> codec.Codec:
        return self.given


class NoisedStyles:
    """p(style | x_t) for the styles of the train pictures."""

    def __init__(
        self, network: NoisyClassifier, styles: Sequence[str], fit: Fit, accuracy: float
    ) -> None:
        self.network, self.styles, self.fit, self.accuracy = network, tuple(styles), fit, accuracy

    @classmethod
    def fitted(cls, bench: Bench, fit: Fit | None = None) -> NoisedStyles:
        """Fit it, or take the weights that were fitted before."""
        fit = fit or Fit()
        styles = bench.real.styles
        network = _untrained(bench, len(styles), fit)
        train = _chosen(bench, "train", fit.pictures, fit.seed)
        weights = cached(
            bench.options.cache,
            "noised-styles",
            {"model": bench.pipe.fingerprint, "data": bench.real.digest, **asdict(fit)},
            lambda: _trained(network, _moments(bench, train), _labels(bench, train), fit),
        )
        vector_to_parameters(weights.to(bench.pipe.device), network.parameters())
        network.eval().requires_grad_(False)
        few = _chosen(bench, "heldout", fit.pictures // 4, fit.seed)
        accuracy = _accuracy(network, _moments(bench, few), _labels(bench, few))
        return cls(network, styles, fit, accuracy)

    def log_prob(self, styles: Sequence[str]) -> LogProb:
        """log p(style | x_t) [b] for b asked styles, as a function of (x_t [b ...], t [b]).

        Raises:
            RequestError: a style that no train picture has.
        """
        for style in styles:
            if style not in self.styles:
                raise RequestError(
                    f"no style {style!r}.{suggest(style, self.styles)} There are: "
                    + ", ".join(self.styles)
                )
        label = torch.tensor([self.styles.index(style) for style in styles])
        return self.network.log_prob(label.to(next(self.network.parameters()).device))

    def describe(self) -> dict[str, Any]:
        """For protocols: how it was made."""
        return asdict(self.fit)


def _untrained(bench: Bench, classes: int, fit: Fit) -> NoisyClassifier:
    stage, side = bench.pipe.decoder, bench.pipe.image_size
    network = FlatEncoderConfig(
        shape=stage.codec.shape(side, side),
        out_dim=classes,
        width=fit.width,
        depth=fit.depth,
        timed=True,
    )
    settings = ClassifierConfig(
        codec=_Given(stage.codec),
        network=network,
        process=stage.denoiser.process,
        input_scale=stage.config.input_scale,
        time_embed=stage.config.time_embed,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fit.seed)
        return settings.build().to(bench.pipe.device)


def _chosen(bench: Bench, split: str, count: int, seed: int) -> list[int]:
    """The places of `count` pictures of a split at most, drawn by the seed."""

    def drawn(place: int) -> bytes:
        return hashlib.sha256(f"{seed}|{bench.real[place].key}".encode()).digest()

    return sorted(bench.real.of(split), key=drawn)[:count]


def _labels(bench: Bench, places: Sequence[int]) -> Tensor:
    """The styles of pictures [n], numbered in their order."""
    styles = bench.real.styles
    return torch.tensor([styles.index(bench.real[i].style) for i in places])


def _moments(bench: Bench, places: Sequence[int]) -> Tensor:
    """The autoencoder's moments of real pictures, [n 2z h w]."""
    return bench.batched(
        places, lambda run: bench.moments(bench.originals(run)), "latents of real pictures"
    )


@torch.enable_grad()
def _trained(network: NoisyClassifier, moments: Tensor, labels: Tensor, fit: Fit) -> Tensor:
    """The weights in one vector, after Adam with a rate that falls to zero."""
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(fit.seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=fit.rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, fit.rate, total_steps=fit.steps)
    network.train()
    for _ in range(fit.steps):
        rows = torch.randint(len(labels), (fit.batch,), generator=generator)
        batch = Batch(key=("",) * fit.batch, latent=moments[rows], label=labels[rows])
        loss = network.loss(batch.to(device), generator)["loss"].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return parameters_to_vector(network.parameters()).detach()


@torch.no_grad()
def _accuracy(network: NoisyClassifier, moments: Tensor, labels: Tensor) -> float:
    """Share of latents that are taken for their style, at times drawn as in training."""
    generator = torch.Generator().manual_seed(1)
    device = next(network.parameters()).device
    batch = Batch(key=("",) * len(labels), latent=moments, label=labels).to(device)
    return float(network.loss(batch, generator)["accuracy"].mean())
