"""The trainables of this project, each a `Task` of the one training loop.

AutoencoderTraining   pictures            -> an autoencoder folder
ClipTraining          pictures, captions  -> an open_clip folder
StageTraining         latents, embeddings, captions -> a stage folder (prior, decoder, ...)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from autoencoder import AutoencoderKL
from autoencoder import Latents as LatentSpace
from autoencoder.pixels import to_uint8
from ldm import codec
from ldm.conditioning.caption_cache import CaptionCache
from ldm.conditioning.clip import Clip
from ldm.conditioning.clip_training import ClipTask, ClipTaskConfig
from ldm.data.batch import Batch
from ldm.data.stream import Stream
from ldm.diffusion.noise import Noise
from ldm.errors import ConfigError, DataError
from ldm.samplers import Sampler
from ldm.stage import Stage, StageConfig
from ldm.storage import Precision
from ldm.training import Player, Terms

Batches = Callable[[], Iterator[Batch]]


@dataclass(frozen=True, kw_only=True)
class ClipTraining:
    """A small CLIP from nothing."""

    clip: ClipTaskConfig = field(default_factory=ClipTaskConfig)

    def build(self, stream: Stream) -> ClipTrainingTask:
        """A fresh model, drawn from torch's global generator."""
        return ClipTrainingTask(self.clip)


class ClipTrainingTask(ClipTask):
    """ClipTask that exports itself as an open_clip folder."""

    def export(self, folder: Path, tensors: dict[str, Tensor], batches: Batches) -> None:
        """Write the open_clip folder."""
        self.save(folder, tensors=tensors)


@dataclass(frozen=True, kw_only=True)
class StageTraining:
    """A stage on encoded shards: a prior, a decoder, or a model of another kind.

    Attributes:
        stage: what is trained.
        clip: folder or name of the CLIP that reads the captions; None where none is needed.
        autoencoder: folder of the autoencoder whose latents are diffused; None where none are.
        preview: how sample pictures are drawn during training.
        shape: of one item of x0.
        measure: samples over which codec and conditioner are measured before training.
        caption_cache: captions whose features are kept in memory, for captions that come often: a
            caption of 32 tokens of 192 takes 12 kB. 0 reads each one anew.
        weights: how the exported weights are stored (see `ldm.storage`).
    """

    stage: StageConfig
    clip: str | None = None
    autoencoder: str | None = None
    preview: Sampler = Sampler()
    shape: tuple[int, ...] = ()
    measure: int = 16384
    caption_cache: int = 0
    weights: Precision = "float16"

    def __post_init__(self) -> None:
        if self.caption_cache < 0 or self.measure < 2:
            raise ConfigError(
                f"caption_cache = {self.caption_cache}, measure = {self.measure}: give 0 captions "
                "or more and 2 samples or more"
            )

    def build(self, stream: Stream) -> StageTask:
        """A fresh stage; the shards must have been encoded with the same CLIP and autoencoder."""
        clip = Clip.load(self.clip) if self.clip else None
        space = (
            LatentSpace(AutoencoderKL.from_pretrained(self.autoencoder))
            if self.autoencoder
            else None
        )
        parts = {}
        if space is not None:
            parts["autoencoder"] = space.model.fingerprint()
        if clip is not None:
            parts["clip"] = clip.fingerprint()
        check_encoding(stream, parts)
        latents = codec.Latents(space) if space is not None else None
        task = StageTask(self, self.stage.build(latents), clip, parts)
        task.measure(stream)
        return task


def check_encoding(stream: Stream, parts: dict[str, str]) -> None:
    """Compare the fingerprints of what encoded the data with those of the parts at hand.

    Raises:
        DataError: the shards were encoded by other weights than those at hand.
    """
    for encoding in stream.encodings():
        for name, fingerprint in parts.items():
            made_by = encoding.get(name, fingerprint)
            if made_by != fingerprint:
                raise DataError(
                    f"the shards were encoded with {name} {made_by}, but the {name} at hand is "
                    f"{fingerprint}: encode them again with scripts/encode_shards.py"
                )


class StageTask:
    """A stage with the frozen CLIP that reads its captions."""

    def __init__(
        self, config: StageTraining, stage: Stage, clip: Clip | None, made_with: dict[str, str]
    ) -> None:
        self.config, self.stage, self.clip, self.made_with = config, stage, clip, made_with
        self.read_captions = None if clip is None else CaptionCache(clip.text, config.caption_cache)

    @property
    def module(self) -> nn.Module:
        return self.stage

    def players(self) -> Sequence[Player]:
        return [Player("stage", list(self.stage.parameters()), self.loss)]

    def loss(self, batch: Batch, generator: torch.Generator) -> Terms:
        """The stage's terms on a batch whose captions have been read."""
        return self.stage.loss(self.read(batch), generator)

    def read(self, batch: Batch) -> Batch:
        """The batch with the features of its captions."""
        if self.read_captions is None or batch.caption is None:
            return batch
        with torch.no_grad():
            return batch.replace(text=self.read_captions(batch.caption))

    def samples(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        """Sixteen images for the batch's first captions; None where x0 stands for no image."""
        few = self.read(batch.take(16))
        noise = Noise(range(len(few)), next(self.stage.parameters()).device)
        x0 = self.stage.sample(few, self.config.preview, noise, self.config.shape)
        decoded = self.stage.codec.decode(x0)
        return to_uint8(decoded) if decoded.ndim == 4 else None

    def measure(self, stream: Stream) -> None:
        """What codec and conditioner take from the data before training; most take nothing."""
        self.stage.codec.measure(self._first(stream))
        encode = self.stage.codec.encode
        self.stage.conditioner.measure((b, encode(b)) for b in self._first(stream))

    def _first(self, stream: Stream) -> Iterator[Batch]:
        """The first `measure` samples, or a few more."""
        seen = 0
        for batch in stream.epoch():
            yield batch
            seen += len(batch)
            if seen >= self.config.measure:
                return

    def export(self, folder: Path, tensors: dict[str, Tensor], batches: Batches) -> None:
        """Write the stage folder."""
        self.stage.load_state_dict(tensors)
        self.stage.save_pretrained(folder, self.made_with, self.config.weights)
