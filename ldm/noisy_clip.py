"""A CLIP whose image tower knows the noise, for the guidance of diffusion by its gradient.

Nichol et al. 2021 (arXiv 2112.10741) section 2.4: f(x_t, t) . g(c) learned on noised pictures. A
tower that takes no time is the ordinary one and learns on clean pictures.

b batch; e width of the shared space; ... data
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.conditioning.caption import CaptionConfig
from ldm.conditioning.clip_training import MAX_LOGIT_SCALE, same_caption
from ldm.data.batch import Batch
from ldm.data.stream import Stream
from ldm.diffusion.denoiser import ScaledTime, TimeEmbed
from ldm.diffusion.noise import normal_like
from ldm.diffusion.process import Process
from ldm.diffusion.times import Times, Uniform
from ldm.errors import DataError
from ldm.networks.encoder import Encoder, EncoderConfig
from ldm.stage import CodecConfig
from ldm.training import Terms
from ldm.training.learner import Learner, LearnerTask


@dataclass(frozen=True, kw_only=True)
class NoisyClipConfig:
    """codec, process, times, time_embed: those of the stage that shall be guided.

    image: its trunk's out_channels is e; timed towers see noised data, others clean data.
    text: its dim is e, and its vectors are the text embeddings.
    """

    codec: CodecConfig
    image: EncoderConfig
    text: CaptionConfig
    process: Process
    times: Times = Uniform()
    time_embed: TimeEmbed = ScaledTime()

    def build(self) -> NoisyClip:
        """A model with freshly drawn weights."""
        return NoisyClip(self)


class NoisyClip(Learner):
    """Two towers and the logarithm of the inverse temperature."""

    def __init__(self, settings: NoisyClipConfig) -> None:
        super().__init__()
        self.config = settings
        self.codec = settings.codec.build(None)
        self.image_tower = Encoder(settings.image)
        self.text_tower = settings.text.build()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def image(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t `[b ...]`, t `[b]` -> unit norm `[b e]`."""
        time = None
        if self.config.image.timed:
            time = self.config.time_embed(self.config.process, t.double()).to(x_t)
        return F.normalize(self.image_tower(x_t, time).float(), dim=-1)

    def text(self, captions: Sequence[str]) -> Tensor:
        """Captions -> unit norm `[b e]`."""
        batch = Batch(key=("",) * len(captions), caption=tuple(captions))
        vector = self.text_tower(batch).vector
        return F.normalize(vector.float(), dim=-1)

    @property
    def scale(self) -> float:
        """The learned factor on the cosine of the two embeddings, at most 100."""
        return math.exp(min(float(self.logit_scale), MAX_LOGIT_SCALE))

    def loss(self, batch: Batch, generator: torch.Generator) -> Terms:
        """Symmetric contrastive loss and accuracy `[b]`; equal captions share their target.

        Radford et al. 2021 (arXiv 2103.00020) figure 3.
        """
        if batch.caption is None:
            raise DataError("CLIP trains on captions; this data has none")
        x, t = self._seen(self.codec.encode(batch, generator), generator)
        scale = self.logit_scale.clamp(0, MAX_LOGIT_SCALE).exp()
        logits = scale * self.image(x, t) @ self.text(batch.caption).T
        same = same_caption(batch.caption).to(logits.device)
        target = same / same.sum(1, keepdim=True)
        ways = [F.cross_entropy(way, target, reduction="none") for way in (logits, logits.T)]
        accuracy = same.gather(1, logits.argmax(1, keepdim=True)).squeeze(1)
        return {"loss": (ways[0] + ways[1]) / 2, "accuracy": accuracy}

    def _seen(self, x0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What the image tower learns on, and its times [b]."""
        process = self.config.process
        t = self.config.times(process, len(x0), generator)[0].to(x0.device)
        if not self.config.image.timed:
            return x0, t
        return process.perturb(x0, t, normal_like(x0, generator)), t


@dataclass(frozen=True, kw_only=True)
class NoisyClipTraining:
    """A CLIP for guidance, on captioned samples."""

    clip: NoisyClipConfig

    def build(self, stream: Stream) -> LearnerTask[NoisyClip]:
        """Fresh towers, drawn from torch's global generator."""
        return LearnerTask(self.clip.build())
