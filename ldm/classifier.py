"""A classifier of noised data, whose gradient guides a diffusion model.

Dhariwal & Nichol 2021 (arXiv 2105.05233) section 4: the first half of the U-Net, trained on x_t at
the times of the model that it will guide (its table 12 has the settings).

b batch; k classes; ... data
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from ldm import config
from ldm.data.batch import Batch
from ldm.data.stream import Stream
from ldm.diffusion.denoiser import InputScale, ScaledTime, TimeEmbed, UnitInput
from ldm.diffusion.guidance import LogProb
from ldm.diffusion.noise import normal_like
from ldm.diffusion.process import Process, per_item
from ldm.diffusion.times import Times, Uniform
from ldm.errors import DataError
from ldm.networks.encoder import EncoderConfig
from ldm.networks.flat import FlatEncoderConfig
from ldm.stage import CodecConfig
from ldm.training import Terms
from ldm.training.learner import Learner, LearnerTask


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Everything that a classifier of noised data is, but its weights.

    codec, process, times, input_scale, time_embed: those of the stage that it shall guide.
    network: what it answers is as wide as there are classes.
    """

    codec: CodecConfig
    network: EncoderConfig | FlatEncoderConfig
    process: Process
    times: Times = Uniform()
    input_scale: InputScale = UnitInput()
    time_embed: TimeEmbed = ScaledTime()

    def build(self) -> NoisyClassifier:
        """A classifier with freshly drawn weights."""
        return NoisyClassifier(self)


class NoisyClassifier(Learner):
    """forward: x_t `[b ...]`, t `[b]` -> logits of p(y | x_t) `[b k]`."""

    def __init__(self, settings: ClassifierConfig) -> None:
        super().__init__()
        self.config = settings
        self.codec = settings.codec.build(None)
        self.network = settings.network.build()
        self.process = settings.process
        self.times = settings.times.build()

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        t = t.double()
        scale = per_item(self.config.input_scale(self.process, t), x_t)
        time = self.config.time_embed(self.process, t).to(x_t.device, torch.float32)
        logits: Tensor = self.network(scale * x_t, time)
        return logits.float()

    def log_prob(self, label: Tensor) -> LogProb:
        """log p(label | x_t) [b] for labels [b], as a function of (x_t [b ...], t [b])."""

        def of(x_t: Tensor, t: Tensor) -> Tensor:
            return -F.cross_entropy(self(x_t, t), label, reduction="none")

        return of

    def loss(self, batch: Batch, generator: torch.Generator) -> Terms:
        """Cross entropy and accuracy at times drawn as in the diffusion's training, each [b]."""
        if batch.label is None:
            raise DataError("a classifier learns from labels; this data has none")
        x0 = self.codec.encode(batch, generator)
        t, weight = (v.to(x0.device) for v in self.times(self.process, len(x0), generator))
        logits = self(self.process.perturb(x0, t, normal_like(x0, generator)), t)
        loss = F.cross_entropy(logits, batch.label, reduction="none")
        self.times.update(self.process, t, loss.detach())
        right = (logits.detach().argmax(1) == batch.label).float()
        return {"loss": weight.to(loss.dtype) * loss, "accuracy": right}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.cpu().contiguous() for name, value in self.state_dict().items()}
        save_file(tensors, folder / "model.safetensors")
        text = json.dumps(config.to_dict(self.config), indent=1)
        (folder / "config.json").write_text(text + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> NoisyClassifier:
        """Read a folder of `save_pretrained`."""
        folder = Path(folder)
        body = json.loads((folder / "config.json").read_text())
        settings: ClassifierConfig = config.from_dict(body, ClassifierConfig, str(folder))
        built = settings.build()
        built.load_state_dict(load_file(folder / "model.safetensors"))
        return built.eval()


@dataclass(frozen=True, kw_only=True)
class ClassifierTraining:
    """A classifier of noised data on labelled samples."""

    classifier: ClassifierConfig

    def build(self, stream: Stream) -> ClassifierTask:
        """A fresh classifier, drawn from torch's global generator."""
        return ClassifierTask(self.classifier.build())

class ClassifierTask(LearnerTask[NoisyClassifier]):
    """Training of a classifier, which is exported with its settings."""

    def export(
        self, folder: Path, tensors: dict[str, Tensor], batches: Callable[[], Iterator[Batch]]
    ) -> None:
        """Write the classifier's folder."""
        self.learner.load_state_dict(tensors)
        self.learner.save_pretrained(folder)
