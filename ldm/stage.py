"""A stage: codec, conditioner, denoiser and objective together; every trained model is one.

A pixel DDPM, the latent decoder, the unCLIP prior (x0 is a CLIP vector) and an upsampler are
instances of it. b batch; ... data dimensions ([c h w] or [e])
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ldm import codec as codecs
from ldm import config, storage
from ldm.conditioning import Conditioner
from ldm.data.batch import Batch
from ldm.diffusion.denoiser import (
    Denoiser,
    Head,
    InputScale,
    PlainHead,
    ScaledTime,
    TimeEmbed,
    UnitInput,
)
from ldm.diffusion.learned import LearnedConfig
from ldm.diffusion.noise import Noise
from ldm.diffusion.objective import Objective
from ldm.diffusion.prediction import Prediction
from ldm.diffusion.process import Process
from ldm.diffusion.sample import start_from, trajectory
from ldm.errors import CheckpointError, ConfigError
from ldm.files import sha256_of
from ldm.samplers import Sampler, Sampling

FORMAT = 1
OnStep = Callable[[int, float, Tensor], None]


class CodecConfig(Protocol):
    """A frozen configuration that builds its codec, from the autoencoder's where it needs one."""

    def build(self, latents: codecs.Latents | None) -> codecs.Codec: ...


class Buildable(Protocol):
    """A frozen configuration that builds its module."""

    def build(self) -> nn.Module: ...


@dataclass(frozen=True, kw_only=True)
class PixelCodec:
    """Diffuse pictures as they are."""

    def build(self, latents: codecs.Latents | None) -> codecs.Codec:
        return codecs.Pixels()


@dataclass(frozen=True, kw_only=True)
class PointCodec:
    """Diffuse points of a toy distribution as they are."""

    def build(self, latents: codecs.Latents | None) -> codecs.Codec:
        return codecs.Points()


def _given(latents: codecs.Latents | None) -> codecs.Latents:
    """The autoencoder's codec, which stages on latents cannot do without."""
    if latents is None:
        raise ConfigError("this stage works on latents: give it the autoencoder's codec")
    return latents


@dataclass(frozen=True, kw_only=True)
class LatentCodec:
    """Diffuse the latents of an autoencoder that is given where the stage is built."""

    def build(self, latents: codecs.Latents | None) -> codecs.Codec:
        return _given(latents)


@dataclass(frozen=True, kw_only=True)
class PrincipalLatentCodec:
    """Diffuse the `kept` strongest principal directions of latents on `grid` (c, h, w).

    `whitening`: 0 not at all, 1 fully.
    """

    grid: tuple[int, int, int]
    kept: int
    whitening: float = 0.5

    def build(self, latents: codecs.Latents | None) -> codecs.Codec:
        return codecs.PrincipalLatents(_given(latents), self.grid, self.kept, self.whitening)


@dataclass(frozen=True, kw_only=True)
class EmbeddingCodec:
    """Diffuse CLIP image embeddings of this width, whitened in part: 0 not at all, 1 fully."""

    width: int
    whitening: float = 0.5

    def build(self, latents: codecs.Latents | None) -> codecs.Codec:
        return codecs.Embeddings(self.width, self.whitening)


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """Everything that a stage is, but its weights.

    Attributes:
        codec: what is diffused.
        conditioner: what the network is told.
        network: what predicts.
        process, prediction, objective: of the diffusion (see `ldm.diffusion`).
        input_scale, time_embed, head: how the network's input, time and output are read.
        multiple: height and width of x0 must be multiples of this (the network's halvings).
    """

    codec: CodecConfig
    conditioner: Buildable
    network: Buildable
    process: Process | LearnedConfig
    prediction: Prediction
    objective: Objective
    input_scale: InputScale = UnitInput()
    time_embed: TimeEmbed = ScaledTime()
    head: Head = PlainHead()
    multiple: int = 1

    def build(self, latents: codecs.Latents | None = None) -> Stage:
        """A stage with freshly drawn weights; `latents` for those that work on latents."""
        return Stage(self, self.codec.build(latents))


class Stage(nn.Module):
    """One diffusion model with all that belongs to it."""

    conditioner: Conditioner

    def __init__(self, stage_config: StageConfig, codec: codecs.Codec) -> None:
        super().__init__()
        self.config = stage_config
        self.codec = codec
        self.conditioner = stage_config.conditioner.build()  # type: ignore[assignment]
        self.denoiser = Denoiser(
            stage_config.network.build(),
            stage_config.process.build(),
            stage_config.prediction,
            input_scale=stage_config.input_scale,
            time_embed=stage_config.time_embed,
            head=stage_config.head,
        )
        self.objective = stage_config.objective.build()
        self.register_module("objective_memory", self.objective.memory())
        self.made_with: dict[str, str] = {}

    @property
    def multiple(self) -> int:
        """Height and width of x0 must be multiples of this."""
        return self.config.multiple

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile the network, in place, with the arguments of torch.compile: the rest is cheap."""
        self.denoiser.network.compile(*args, **options)

    def loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Named terms, each [b]; the mean of "loss" is to be minimised."""
        x0 = self.codec.encode(batch, generator)
        cond = self.conditioner(batch, generator=generator)
        return self.objective(self.denoiser, x0, cond, generator)

    def sample(
        self,
        batch: Batch,
        sampler: Sampling,
        noise: Noise,
        shape: Sequence[int],
        *,
        negative: Batch | None = None,
        start: Tensor | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Draw x0 [b ...] for the conditions in `batch`; the codec's `decode` makes data of it.

        Args:
            sampler: solver, grid, number of steps and guidance.
            noise: one seed for each item.
            shape: of one item of x0.
            negative: what guidance leads away from; nothing at all by default.
            start: standard normal [b ...] to start from in place of the noise's.
            on_step: called with (step, time, x) after each step.
        """
        cond = self.conditioner(batch)
        null = self.conditioner.null(len(batch)) if negative is None else self.conditioner(negative)
        denoise = sampler.guide(self.denoiser, cond, null)
        process = self.denoiser.process
        times = sampler.times(process).to(noise.device)
        z = noise.normal(tuple(shape)) if start is None else start.to(noise.device, torch.float32)
        x = start_from(process, times, z)
        for moment in trajectory(denoise, process, sampler.solver, times, x, noise):
            x = moment.x
            if on_step is not None:
                on_step(moment.step, float(times[moment.step]), x)
        return x

    def check_made_with(self, parts: Mapping[str, str], name: str) -> None:
        """Compare the fingerprints of the parts at training with those of the parts at hand.

        Raises:
            CheckpointError: naming the part that was exchanged.
        """
        for part, trained in self.made_with.items():
            if parts.get(part, trained) != trained:
                raise CheckpointError(
                    f"the {name} was trained with {part} {trained}, but the {part} at hand is "
                    f"{parts[part]}: put the right one in its place or train the {name} anew"
                )

    def save_pretrained(
        self,
        folder: str | Path,
        made_with: Mapping[str, str],
        weights: storage.Precision = "float16",
    ) -> None:
        """Write `config.json` and `model.safetensors`: buffers in float32, parameters as `weights`
        says (see `ldm.storage`)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        parameters = {k: v.detach().cpu() for k, v in self.named_parameters()}
        tensors = {k: v.cpu().float().contiguous() for k, v in self.named_buffers()}
        save_file(tensors | storage.pack(parameters, weights), folder / "model.safetensors")
        body = {
            "format": FORMAT,
            "stage": config.to_dict(self.config),
            "made_with": dict(made_with),
            "sha256": sha256_of(folder / "model.safetensors"),
        }
        (folder / "config.json").write_text(json.dumps(body, indent=1) + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, latents: codecs.Latents | None = None) -> Stage:
        """Read a folder of `save_pretrained`; every tensor must be there, and no other.

        Raises:
            CheckpointError: naming what is missing, damaged or does not fit.
        """
        folder = Path(folder)
        try:
            body = json.loads((folder / "config.json").read_text())
            tensors = storage.unpack(load_file(folder / "model.safetensors"))
        except (OSError, SafetensorError, json.JSONDecodeError) as error:
            raise CheckpointError(f"{folder}: cannot be read ({error}); fetch it again") from error
        if body.get("format") != FORMAT:
            raise CheckpointError(
                f"{folder}: format {body.get('format')}, this version reads {FORMAT}"
            )
        if body.get("sha256") != sha256_of(folder / "model.safetensors"):
            raise CheckpointError(f"{folder}/model.safetensors is damaged; fetch it again")
        stage_config: StageConfig = config.from_dict(body["stage"], StageConfig, str(folder))
        stage = stage_config.build(latents)
        try:
            stage.load_state_dict(tensors)
        except RuntimeError as error:
            raise CheckpointError(f"{folder}: {error}") from error
        stage.made_with = body["made_with"]
        return stage.eval()

    def fingerprint(self) -> str:
        """16 hex digits over configuration and weights as stored in half precision."""
        digest = hashlib.sha256(json.dumps(config.to_dict(self.config), sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().half().numpy().tobytes())
        return digest.hexdigest()[:16]


__all__ = [
    "EmbeddingCodec",
    "LatentCodec",
    "PixelCodec",
    "PointCodec",
    "PrincipalLatentCodec",
    "Sampler",
    "Stage",
    "StageConfig",
]
