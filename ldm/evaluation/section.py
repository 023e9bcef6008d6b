"""What every part of the evaluation works with, and what it hands in."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from autoencoder.pixels import from_uint8
from ldm.data.images import Crop
from ldm.evaluation.cache import cached, digest
from ldm.evaluation.features import in_batches
from ldm.evaluation.figures import Figure
from ldm.evaluation.pairs import choose
from ldm.evaluation.real import RealPictures

if TYPE_CHECKING:
    from PIL import Image

    from ldm.pipeline import TextToImage

_NO_MATTER = ("batch_size", "cache", "grid", "quiet")
"""Options that no figure depends on."""


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
        clip_model: open_clip name or folder that scores captions; None is the model's own.
        extractor: the network whose features FID and its like compare.
        extractor_weights: its weights where they are to be read from a file.
    """

    pairs: int = 256
    seed: int = 0
    batch_size: int = 32
    cache: Path | None = None
    grid: int = 24
    steps: int | None = None
    guidance: float | None = None
    solver: str | None = None
    prior_steps: int | None = None
    prior_guidance: float | None = None
    quiet: bool = False
    clip_model: str | None = None
    extractor: str = "effnet-lite0"
    extractor_weights: Path | None = None

    @property
    def asked(self) -> dict[str, Any]:
        """The options that figures can depend on, as JSON values."""
        plain = {k: v for k, v in asdict(self).items() if k not in _NO_MATTER}
        values: dict[str, Any] = json.loads(json.dumps(plain, default=str))
        return values

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
        protocol: how it was measured, beside what the whole report has in common; figures with
            different protocols are not comparable.
        subject: what was measured, beside the model: another one is what a comparison is about.
        depends: the options that the figures depend on; None for all. A report keeps a section of
            an earlier run only if these are the same.
        rows: figures by row and column; every row has the same columns.
        details: one record a picture, for the JSON only.
        grids: pictures by name, to be written beside the report.
        shown: what the grids show, in their order.
    """

    title: str
    notes: tuple[str, ...]
    protocol: dict[str, Any]
    rows: dict[str, dict[str, Figure]]
    subject: dict[str, Any] = field(default_factory=dict)
    depends: tuple[str, ...] | None = None
    details: tuple[dict[str, Any], ...] = ()
    grids: dict[str, Image.Image] = field(default_factory=dict)
    shown: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Drawn:
    """Pictures of a model: `images` uint8 [n 3 s s], one a caption and seed.

    `places` are those of the real pictures whose captions were asked; `settings` is what the
    pipeline says of the call.
    """

    places: tuple[int, ...]
    captions: tuple[str, ...]
    seeds: tuple[int, ...]
    images: Tensor
    settings: dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """The model, the real pictures and the options, with what several parts compute."""

    pipe: TextToImage
    real: RealPictures
    options: Options

    def drawn(self, split: str) -> Drawn:
        """The model's pictures for the pairs that are asked of a split, picture i with seed i."""
        places = choose(self.real, split, self.options.pairs, self.options.seed)
        seeds = self.seeds(len(places))
        return self.draw(places, seeds, **self.options.prior, **self.options.decoder)

    def draw(
        self,
        places: Sequence[int],
        seeds: Sequence[int],
        *,
        embeddings: Tensor | None = None,
        **samplers: Any,
    ) -> Drawn:
        """Pictures for the captions at `places`; all else as `pictures` has it."""
        captions = [self.real[i].caption for i in places]
        images, settings = self.pictures(captions, seeds, embeddings=embeddings, **samplers)
        return Drawn(tuple(places), tuple(captions), tuple(seeds), images, settings)

    def pictures(
        self,
        captions: Sequence[str],
        seeds: Sequence[int],
        *,
        embeddings: Tensor | None = None,
        **samplers: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Pictures uint8 [n 3 s s], kept under all that they depend on, and their settings.

        Args:
            embeddings: unit-norm image embeddings [n e] in place of the prior's.
            samplers: as `TextToImage.samplers` takes them.
        """
        used = self.pipe.samplers(**samplers)

        def some(run: Sequence[int]) -> Tensor:
            output = self.pipe(
                [captions[j] for j in run],
                seed=[seeds[j] for j in run],
                image_embeds=None if embeddings is None else embeddings[list(run)],
                output_type="pt",
                **samplers,
            )
            return to_uint8(output.images)

        settings = {
            "decoder": used.decoder.describe(),
            "prior": used.prior.describe() if embeddings is None else "given embeddings",
        }
        asked = [list(captions), list(seeds), None if embeddings is None else embeddings.tolist()]
        images = cached(
            self.options.cache,
            "drawn",
            {**self.made_by, "asked": digest(asked), **settings},
            lambda: self.batched(range(len(captions)), some, "pictures"),
        )
        return images, settings

    def reconstructed(self, places: Sequence[int]) -> Tensor:
        """Real pictures through the autoencoder (mean latent), uint8 [n 3 s s]."""

        @torch.inference_mode()
        def through(run: Sequence[int]) -> Tensor:
            x = from_uint8(self.originals(run).to(self.pipe.device))
            return to_uint8(self.pipe.space.decode(self.pipe.space.encode(x)) / 2 + 0.5)

        return cached(
            self.options.cache,
            "reconstructed",
            {
                "data": self.real.digest,
                "autoencoder": self.pipe.space.model.fingerprint(),
                "places": digest(list(places)),
                **self.resize,
            },
            lambda: self.batched(places, through, "autoencoder"),
        )

    @torch.inference_mode()
    def decoded(self, x0: Tensor) -> Tensor:
        """A batch of x0 [b ...] as images, uint8 [b 3 s s]."""
        return to_uint8(self.pipe.decoder.codec.decode(x0.to(self.pipe.device)) / 2 + 0.5)

    @torch.no_grad()
    def moments(self, images: Tensor) -> Tensor:
        """The autoencoder's moments [b 2c h w] of a batch of pictures, uint8 [b 3 s s]."""
        x = from_uint8(images.to(self.pipe.device))
        moments: Tensor = self.pipe.space.model.encode(x).moments
        return moments.cpu()

    def originals(self, places: Sequence[int]) -> Tensor:
        """Real pictures at the model's size, uint8 [n 3 s s]."""
        return self.real.images(places, self.pipe.image_size)

    @property
    def made_by(self) -> dict[str, str]:
        """What is drawn depends on it: the model and its arithmetic."""
        precision = "bf16" if self.pipe.bf16 else "float32"
        return {"model": self.pipe.fingerprint, "precision": precision}

    @property
    def resize(self) -> dict[str, Any]:
        """For protocols: how `originals` brings real pictures to the model's size."""
        return {"resize": Crop(size=self.pipe.image_size).identity()}

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

    def over(self, images: Tensor, compute: Callable[[Tensor], Tensor], what: str) -> Tensor:
        """`compute` on batches of pictures or latents [n ...], joined on the CPU."""
        return self.batched(range(len(images)), lambda run: compute(images[list(run)]).cpu(), what)

    def seeds(self, count: int) -> list[int]:
        """The seeds of the first `count` pictures."""
        return list(range(self.options.seed, self.options.seed + count))

    def _cached(self, label: str, compute: Any) -> Tensor:
        identity = {"data": self.real.digest, "clip": self.pipe.clip.fingerprint(), "what": label}
        return cached(self.options.cache, label, identity, compute)


def to_uint8(unit: Tensor) -> Tensor:
    """Floats [b 3 h w] in [0, 1] (clamped to it) -> uint8, as a PNG would hold them."""
    return (unit.float().clamp(0, 1) * 255).round().byte().cpu()
