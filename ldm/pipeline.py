"""From a prompt to a picture: the only file that knows every room.

    prompt -> CLIP text -> prior (guided, the better of two) -> image embedding
           -> decoder (guided) -> latents -> autoencoder -> pixels

b pictures; e embedding width; c h w latent grid
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from autoencoder import AutoencoderKL
from autoencoder import Latents as LatentSpace
from ldm import codec
from ldm.conditioning import Clip
from ldm.data.batch import Batch
from ldm.diffusion.noise import Noise
from ldm.errors import CheckpointError, RequestError
from ldm.modelfolder import ModelIndex
from ldm.requests import derived_seed, paired, repeated, seeds_of, shortened
from ldm.samplers import Sampler, Samplers, solver_named
from ldm.stage import Stage
from ldm.training.loop import use_bf16

logger = logging.getLogger(__name__)

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
DEFAULT_MODEL = Path(__file__).parent / "weights" / "emoji"
OnStep = Callable[[Any, int, float, dict[str, Any]], dict[str, Any] | None]


@dataclass(frozen=True)
class Output:
    """What a call returns.

    Attributes:
        images: list of PIL images; or, by `output_type`, floats in [0, 1] as numpy [b H W 3] or
            torch [b 3 H W]; or latents [b c h w].
        settings: everything that made them, ready for JSON.
    """

    images: Any
    settings: dict[str, Any]


class TextToImage:
    """Text to image in the manner of DALL-E 2 (arXiv 2204.06125), in latents.

    Example:
        pipe = TextToImage.from_pretrained()
        pipe("a red apple", seed=0).images[0].save("apple.png")
    """

    def __init__(
        self, *, clip: Clip, prior: Stage, decoder: Stage, space: LatentSpace, index: ModelIndex
    ) -> None:
        self.clip, self.prior, self.decoder, self.space = clip, prior, decoder, space
        self.index = index
        self.device = torch.device("cpu")
        self.bf16 = False
        self._bar: dict[str, Any] = {}

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path | None = None,
        *,
        device: str | torch.device = "cpu",
        precision: Literal["float32", "bf16"] = "float32",
    ) -> TextToImage:
        """Load a model folder (default: the one that ships with the package).

        Every file is checked against the sums in `manifest.json`, and each part against the parts
        that it was trained with.

        Raises:
            CheckpointError: a file is missing or damaged, or the parts do not belong together.
        """
        folder = DEFAULT_MODEL if folder is None else Path(folder)
        index = ModelIndex.read(folder)
        index.verify()
        try:
            space = LatentSpace(AutoencoderKL.from_pretrained(folder / "autoencoder"))
            clip = Clip.load(folder / "clip")
        except ValueError as error:
            raise CheckpointError(str(error)) from error
        prior = Stage.from_pretrained(folder / "prior")
        decoder = Stage.from_pretrained(folder / "decoder", latents=codec.Latents(space))
        parts = {"autoencoder": space.model.fingerprint(), "clip": clip.fingerprint()}
        for name, stage in (("prior", prior), ("decoder", decoder)):
            stage.check_made_with(parts, name)
        pipe = cls(clip=clip, prior=prior, decoder=decoder, space=space, index=index)
        pipe.bf16 = precision == "bf16"
        if pipe.bf16 and not use_bf16("auto", torch.device(device)):
            logger.warning("%s has no bf16 arithmetic: float32 is faster and more exact", device)
        return pipe.to(device)

    def to(self, device: str | torch.device) -> TextToImage:
        """Move every part."""
        try:
            self.device = torch.device(device)
            for part in (self.space.model, self.prior, self.decoder):
                part.to(self.device)
            if self.clip.device != self.device:
                self.clip = Clip.load(self.index.folder / "clip", self.device)
        except RuntimeError as error:
            raise RequestError(f"device {str(device)!r} cannot be used: {error}") from error
        return self

    @property
    def fingerprint(self) -> str:
        """16 hex digits that stand for all weights and settings of the model."""
        return self.index.fingerprint

    @property
    def image_size(self) -> int:
        """Side in pixels of the pictures that the model was trained on."""
        return self.index.image_size

    def set_progress_bar_config(self, **options: Any) -> None:
        """Arguments for tqdm, such as disable=True."""
        self._bar = options

    @torch.inference_mode()
    def __call__(
        self,
        prompt: str | Sequence[str],
        negative_prompt: str | Sequence[str] | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        prior_num_inference_steps: int | None = None,
        prior_guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        seed: int | Sequence[int] | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        solver: str | None = None,
        sampler: Sampler | None = None,
        candidates: int = 2,
        image_embeds: Tensor | None = None,
        latents: Tensor | None = None,
        output_type: Literal["pil", "pt", "np", "latent"] = "pil",
        callback_on_step_end: OnStep | None = None,
    ) -> Output:
        """Draw pictures.

        Args:
            prompt: one sentence or several.
            negative_prompt: what guidance leads away from; one for all or one a prompt.
            height, width: pixels; multiples of `size_multiple`, default the size of training.
            num_inference_steps, guidance_scale, solver: of the decoder, in place of its sampler's.
            sampler: of the decoder, in place of the model's own.
            prior_num_inference_steps, prior_guidance_scale: of the prior.
            num_images_per_prompt: pictures of each prompt, prompt by prompt.
            seed: of the first picture of each prompt (picture i has seed + i), or one for each
                picture. Picture and seed belong together whatever else is drawn beside it.
            generator: source of the seeds instead, as diffusers' users have it.
            candidates: embeddings that the prior draws; the nearest to the text is kept.
            image_embeds: [b e] unit-norm CLIP image embeddings to use in place of the prior's.
            latents: [b c h w] noise to start from in place of the seeds'.
            output_type: "pil", "np", "pt" or "latent".
            callback_on_step_end: called as (pipe, step, time, {"latents": x}) after each step of
                the decoder; what it returns is not used.

        Raises:
            RequestError: an argument is outside what is allowed.
        """
        prompts = repeated(prompt, num_images_per_prompt)
        seeds = seeds_of(seed, generator, len(prompts), num_images_per_prompt)
        if output_type not in OUTPUT_TYPES:
            raise RequestError(
                f"output_type {output_type!r} is unknown; choose {', '.join(OUTPUT_TYPES)}"
            )
        size = self._size(height, width)
        used = self.samplers(
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            solver=solver,
            sampler=sampler,
            prior_num_inference_steps=prior_num_inference_steps,
            prior_guidance_scale=prior_guidance_scale,
        )
        negatives = None if negative_prompt is None else paired(negative_prompt, prompts)
        batch = self._text(prompts)
        if image_embeds is None:
            image_embeds = self._imagine(batch, seeds, used.prior, candidates)
        batch = batch.replace(image_embedding=image_embeds.to(self.device))
        negative = None if negatives is None else self._text(negatives)
        with self._autocast():
            x0 = self.decoder.sample(
                batch,
                used.decoder,
                Noise([derived_seed(s, "decoder") for s in seeds], self.device),
                self.decoder.codec.shape(*size),
                negative=negative,
                start=latents,
                on_step=self._on_step(used.decoder.steps, callback_on_step_end),
            )
            pictures = x0 if output_type == "latent" else self.decoder.codec.decode(x0)
        settings = {
            "negative_prompt": negative_prompt,
            "decoder": used.decoder.describe(),
            "prior": {**used.prior.describe(), "candidates": candidates},
            "height": size[0],
            "width": size[1],
            "precision": "bf16" if self.bf16 else "float32",
        }
        return Output(_as(pictures.float(), output_type), settings)

    @torch.inference_mode()
    def imagine(
        self,
        prompt: str | Sequence[str],
        *,
        seed: int | Sequence[int] | None = None,
        candidates: int = 2,
        prior_num_inference_steps: int | None = None,
        prior_guidance_scale: float | None = None,
        all_candidates: bool = False,
    ) -> Tensor:
        """The prior alone: unit-norm image embeddings for the prompts.

        [b e], the best of `candidates`; or all of them, [b candidates e], in the order drawn.
        """
        prompts = repeated(prompt, 1)
        sampler = self.samplers(
            prior_num_inference_steps=prior_num_inference_steps,
            prior_guidance_scale=prior_guidance_scale,
        ).prior
        seeds = seeds_of(seed, None, len(prompts), 1)
        draw = self._candidates if all_candidates else self._imagine
        return draw(self._text(prompts), seeds, sampler, candidates)

    def samplers(
        self,
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        solver: str | None = None,
        sampler: Sampler | None = None,
        prior_num_inference_steps: int | None = None,
        prior_guidance_scale: float | None = None,
    ) -> Samplers:
        """The samplers that a call with these arguments uses."""
        own = self.index.samplers
        return Samplers(
            prior=_changed(own["prior"], prior_num_inference_steps, prior_guidance_scale, None),
            decoder=_changed(
                sampler or own["decoder"], num_inference_steps, guidance_scale, solver
            ),
        )

    @property
    def size_multiple(self) -> int:
        """Height and width must be multiples of this many pixels."""
        return self.space.model.factor * self.decoder.multiple

    def _text(self, prompts: Sequence[str]) -> Batch:
        for cut in self.clip.truncated(list(prompts)):
            logger.warning(
                "prompt %d has %d tokens and the model reads %d: it ends after %r; not read: %r",
                cut.index + 1,
                cut.num_tokens,
                cut.limit,
                cut.kept[-60:],
                shortened(cut.lost),
            )
        with self._autocast():
            features = self.clip.text(list(prompts))
        return Batch(key=tuple(map(str, range(len(prompts)))), text=features)

    def _imagine(
        self, batch: Batch, seeds: Sequence[int], sampler: Sampler, candidates: int
    ) -> Tensor:
        """unCLIP section 2.2: draw some embeddings, keep the one nearest to the text's."""
        assert batch.text is not None
        every = self._candidates(batch, seeds, sampler, candidates)
        return nearest(every, batch.text.pooled.float())

    def _candidates(
        self, batch: Batch, seeds: Sequence[int], sampler: Sampler, candidates: int
    ) -> Tensor:
        """Independent draws of the prior: unit-norm [b candidates e]."""
        if candidates < 1:
            raise RequestError(f"candidates = {candidates}: draw 1 or more")
        assert batch.text is not None
        drawn = []
        for j in range(candidates):
            noise = Noise([derived_seed(s, f"prior {j}") for s in seeds], self.device)
            with self._autocast():
                x0 = self.prior.sample(batch, sampler, noise, (batch.text.pooled.shape[-1],))
            drawn.append(self.prior.codec.decode(x0.float()))
        return torch.stack(drawn, dim=1)

    def _size(self, height: int | None, width: int | None) -> tuple[int, int]:
        """Height and width in pixels, both allowed."""
        size = (
            self.image_size if height is None else height,
            self.image_size if width is None else width,
        )
        unit = self.size_multiple
        for name, value in zip(("height", "width"), size, strict=True):
            if value <= 0 or value % unit:
                near = max(unit, round(value / unit) * unit)
                raise RequestError(
                    f"{name} {value} is not a positive multiple of {unit}; the nearest is {near}"
                )
        grid = size[0] // self.space.model.factor, size[1] // self.space.model.factor
        self.decoder.codec.shape(*size)  # a codec that knows one size refuses the others
        if self.decoder.conditioner.grid not in (None, grid):
            side = self.image_size
            raise RequestError(
                f"this model draws {side} x {side} pixels only, not {size[1]} x {size[0]}"
            )
        if size != (self.image_size, self.image_size):
            logger.warning("the model has only seen %d x %d pixels", *[self.image_size] * 2)
        return size

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def _on_step(self, steps: int, callback: OnStep | None) -> Callable[[int, float, Tensor], None]:
        from tqdm import tqdm

        bar = tqdm(total=steps, **{"leave": False, **self._bar})

        def on_step(i: int, t: float, x: Tensor) -> None:
            bar.update()
            if callback is not None:
                callback(self, i, t, {"latents": x})
            if i + 1 == steps:
                bar.close()

        return on_step


def _changed(
    sampler: Sampler, steps: int | None, guidance: float | None, solver: str | None
) -> Sampler:
    """The sampler with what is given in place of its own."""
    if steps is not None:
        sampler = replace(sampler, steps=steps)
    if guidance is not None:
        sampler = replace(sampler, guidance=guidance)
    return sampler if solver is None else replace(sampler, solver=solver_named(solver))


def nearest(drawn: Tensor, text: Tensor) -> Tensor:
    """Of several embeddings [b k e] the one [b e] nearest to the text's [b e], all of unit norm."""
    best = torch.einsum("bke,be->bk", drawn, text).argmax(dim=1)
    return drawn[torch.arange(len(drawn)), best]


def _as(x: Tensor, output_type: str) -> Any:
    """[b 3 H W] in [-1, 1] in the asked form; latents pass as they are."""
    if output_type == "latent":
        return x
    unit = (x / 2 + 0.5).clamp(0, 1).cpu()
    if output_type == "pt":
        return unit
    last = unit.movedim(1, -1)
    if output_type == "np":
        return last.numpy()
    from PIL import Image

    return [Image.fromarray(picture.numpy()) for picture in (last * 255).round().byte()]


__all__ = ["DEFAULT_MODEL", "Output", "TextToImage", "nearest"]
