"""What every part of the evaluation works with, and what it hands in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from autoencoder.pixels import from_uint8
from ldm.evaluation.cache import cached
from ldm.evaluation.features import in_batches
from ldm.evaluation.figures import Figure
from ldm.evaluation.real import RealPictures

if TYPE_CHECKING:
    from PIL import Image

    from ldm.pipeline import TextToImage


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to evaluate.

    Attributes:
        pairs: concept-style pairs asked of each split.
        seed: draws the pairs; picture i is drawn with seed `seed` + i.
        batch_size: pictures computed at once.
        cache: folder for features of real pictures; None keeps nothing.
        grid: pictures shown on a grid.
        steps, guidance, solver, prior_steps, prior_guidance: in place of the model's own.
        quiet: no progress bars.
    """

    pairs: int = 256
    seed: int = 0
    batch_size: int = 32
    cache: Path | None = None
    grid: int = 48
    steps: int | None = None
    guidance: float | None = None
    solver: str | None = None
    prior_steps: int | None = None
    prior_guidance: float | None = None
    quiet: bool = False

    @property
    def prior(self) -> dict[str, Any]:
        """The prior's settings as the pipeline's call takes them."""
        return {
            "prior_num_inference_steps": self.prior_steps,
            "prior_guidance_scale": self.prior_guidance,
        }

    @property
    def decoder(self) -> dict[str, Any]:
        """The decoder's settings as the pipeline's call takes them."""
        return {
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
            "solver": self.solver,
        }


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of the report.

    Attributes:
        title: heading.
        notes: what a reader needs to know to read the table.
        protocol: how it was made, beside what the whole report has in common.
        rows: figures by row and column; every row has the same columns.
        details: one record a picture, for the JSON only.
        grids: pictures by name, to be written beside the report.
        shown: what the grids show, in their order.
    """

    title: str
    notes: tuple[str, ...]
    protocol: dict[str, Any]
    rows: dict[str, dict[str, Figure]]
    details: tuple[dict[str, Any], ...] = ()
    grids: dict[str, Image.Image] = field(default_factory=dict)
    shown: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """The model, the real pictures and the options, with what several parts compute."""

    pipe: TextToImage
    real: RealPictures
    options: Options

    def reconstructed(self, places: Sequence[int]) -> Tensor:
        """Real pictures through the autoencoder (mean latent), uint8 [n 3 s s]."""

        @torch.inference_mode()
        def through(run: Sequence[int]) -> Tensor:
            x = from_uint8(self.originals(run).to(self.pipe.device))
            return to_uint8(self.pipe.space.decode(self.pipe.space.encode(x)) / 2 + 0.5)

        return self.batched(places, through, "autoencoder")

    def originals(self, places: Sequence[int]) -> Tensor:
        """Real pictures at the model's size, uint8 [n 3 s s]."""
        return self.real.images(places, self.pipe.image_size)

    def image_embeddings(self, split: str) -> Tensor:
        """CLIP embeddings [n e] of a split's pictures."""
        places = self.real.of(split)
        return self._cached(
            f"clip-image-{split}",
            lambda: self.batched(
                places, lambda run: self.pipe.clip.image(self.originals(run)).cpu(), "CLIP images"
            ),
        )

    def text_embeddings(self, split: str) -> Tensor:
        """CLIP embeddings [n e] of a split's captions."""
        places = self.real.of(split)
        return self._cached(
            f"clip-text-{split}",
            lambda: self.batched(
                places,
                lambda run: self.pipe.clip.text([self.real[i].caption for i in run]).pooled.cpu(),
                "CLIP captions",
            ),
        )

    def batched(self, places: Sequence[int], compute: Any, what: str) -> Tensor:
        """`compute` on runs of the places, joined."""
        return in_batches(
            places, self.options.batch_size, compute, "" if self.options.quiet else what
        )

    def seeds(self, count: int) -> list[int]:
        """The seeds of the first `count` pictures."""
        return list(range(self.options.seed, self.options.seed + count))

    def _cached(self, label: str, compute: Any) -> Tensor:
        identity = {"data": self.real.digest, "clip": self.pipe.clip.fingerprint(), "what": label}
        return cached(self.options.cache, label, identity, compute)


def to_uint8(unit: Tensor) -> Tensor:
    """Floats [b 3 h w] in [0, 1] (clamped to it) -> uint8, as a PNG would hold them."""
    return (unit.float().clamp(0, 1) * 255).round().byte().cpu()
