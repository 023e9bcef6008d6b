"""Training a small CLIP on captioned pictures, and how well it then pairs them.

Radford et al. 2021 (arXiv 2103.00020), figure 3: pictures and captions of a batch are told apart by
cosine similarity over a learned temperature. The model and the similarities are open_clip's.

b batch; h w picture; n tokens; e embedding
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.conditioning import clip_folder, clip_open
from ldm.conditioning.clip import Clip
from ldm.conditioning.preprocess import Preprocess
from ldm.conditioning.text_tower import TextTowerConfig
from ldm.conditioning.tokenizer import BpeTokenizer
from ldm.data.batch import Batch
from ldm.errors import ConfigError
from ldm.training.task import Player, Terms

MAX_LOGIT_SCALE = math.log(100)  # Radford et al., section 2.5


@dataclass(frozen=True, kw_only=True)
class ClipTaskConfig:
    """A CLIP model to train from nothing, and its augmentation.

    embed_dim, vision_*, text: sizes, in open_clip's terms. image_size: side of the square that the
    image tower sees. patch_dropout: the share of patches that a training step leaves out (FLIP, Li
    et al. 2022, arXiv 2212.00794); 0.5 nearly halves the image tower's cost where there are many.
    min_scale: the smallest side of the random crop, as a share of the picture. shift: how far the
    crop may leave the picture on each side, as a share (the border repeats).
    Pictures are never mirrored: arrows, flags and letters change their meaning.
    """

    embed_dim: int = 256
    image_size: int = 64
    patch_size: int = 8
    vision_width: int = 192
    vision_layers: int = 6
    vision_head_width: int = 64
    text: TextTowerConfig = field(default_factory=TextTowerConfig)
    patch_dropout: float = 0.0
    min_scale: float = 0.85
    shift: float = 0.04

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ConfigError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )
        if not 0 <= self.patch_dropout < 1:
            raise ConfigError(f"patch_dropout is {self.patch_dropout}; allowed: [0, 1)")
        if not 0 < self.min_scale <= 1 or not 0 <= self.shift < 0.5:
            raise ConfigError(
                f"min_scale is {self.min_scale}, shift {self.shift}; allowed: (0, 1] and [0, 0.5)"
            )

    def model_cfg(self) -> dict[str, Any]:
        """open_clip's configuration."""
        vision = {
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "width": self.vision_width,
            "layers": self.vision_layers,
            "head_width": self.vision_head_width,
        }
        text = dataclasses.asdict(self.text)
        return {"embed_dim": self.embed_dim, "vision_cfg": vision, "text_cfg": text}

    def build(self) -> ClipTask:
        """A fresh model, drawn from torch's global generator."""
        return ClipTask(self)


class ClipTask:
    """The contrastive task: captions and pictures in, a loss per pair out."""

    def __init__(self, config: ClipTaskConfig) -> None:
        self.config = config
        self.preprocess = Preprocess(size=config.image_size)
        self.tokenizer = BpeTokenizer(
            vocab_size=config.text.vocab_size, context_length=config.text.context_length
        )
        self.model: Any = clip_open.build(_with_dropout(config))
        self._similarity = clip_open.open_clip_module().ClipLoss()

    @property
    def module(self) -> nn.Module:
        module: nn.Module = self.model
        return module

    def players(self) -> list[Player]:
        return [Player("clip", list(self.module.parameters()), self.loss)]

    def samples(self, batch: Batch, generator: torch.Generator) -> Tensor | None:
        """None: a CLIP model makes no pictures."""
        return None

    def loss(self, batch: Batch, generator: torch.Generator) -> Terms:
        """The symmetric contrastive loss `[b]`, over all pairs of the batch of this process.

        Equal captions share their target: each of m pictures with the same caption is right for it,
        with weight 1/m. With distinct captions this is open_clip's ClipLoss.
        """
        if batch.image is None or batch.caption is None:
            raise ValueError("CLIP trains on batches with image and caption; one is missing")
        image = self._image_in_training(augmented(batch.image, self.config, generator), generator)
        text = self.encode_text(batch.caption, image.device)
        logits, scale = self._logits(image, text)
        same = same_caption(batch.caption).to(image.device)
        target = same / same.sum(1, keepdim=True)
        loss = (
            F.cross_entropy(logits, target, reduction="none")
            + F.cross_entropy(logits.T, target, reduction="none")
        ) / 2
        accuracy = same.gather(1, logits.argmax(1, keepdim=True)).squeeze(1)
        return {"loss": loss, "accuracy": accuracy, "scale": scale.detach()}

    def _logits(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled similarities `[b b]`, rows pictures, and the scale, held below 100."""
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        scale = self.model.logit_scale.exp()
        with torch.autocast(image.device.type, enabled=False):  # bf16 would round logits by 0.3
            logits, _ = self._similarity.get_logits(image, text, scale)
        return logits, scale

    def _image_in_training(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """`encode_image` with patches left out by the generator: open_clip draws from the global
        one, which is seeded for the call and put back."""
        if self.config.patch_dropout == 0:
            return self.encode_image(image)
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        with torch.random.fork_rng(devices=[image.device] if image.is_cuda else []):
            torch.manual_seed(seed)
            return self.encode_image(image)

    def encode_image(self, image: Tensor) -> Tensor:
        """Floats 0..255 `[b 3 h w]` -> unit norm `[b e]`."""
        features: Tensor = self.model.encode_image(self.preprocess.normalised(image))
        return F.normalize(features.float(), dim=-1)

    def encode_text(self, captions: Sequence[str], device: torch.device) -> Tensor:
        """Captions -> unit norm `[b e]`, computing only up to the longest of them.

        Attention is causal, so that what follows the end tokens changes nothing.
        """
        ids = self.tokenizer(captions)
        ids = ids[:, : int(ids.argmax(-1).max()) + 1].to(device)
        n, model = ids.shape[1], self.model
        x = model.token_embedding(ids) + model.positional_embedding[:n]
        x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:n, :n]))
        pooled = x[torch.arange(len(ids), device=device), ids.argmax(-1)] @ model.text_projection
        return F.normalize(pooled.float(), dim=-1)

    def clip(self, device: torch.device | str = "cpu") -> Clip:
        """The adapter around the model as it is now; it follows the training."""
        parts = clip_open.OpenClip(self.module, self.tokenizer, self.preprocess, device)
        return clip_open.as_clip(parts)

    def save(self, folder: Path, tensors: Mapping[str, Tensor] | None = None) -> None:
        """Write an open_clip `local-dir:` folder in half precision.

        Args:
            tensors: in place of the model's own, the running averages for example.
        """
        tensors = self.module.state_dict() if tensors is None else tensors
        clip_folder.write(folder, self.config.model_cfg(), self.preprocess, tensors)


def _with_dropout(config: ClipTaskConfig) -> dict[str, Any]:
    """The configuration to train with; the saved one has no dropout."""
    model_cfg = config.model_cfg()
    model_cfg["vision_cfg"]["patch_dropout"] = config.patch_dropout
    return model_cfg


def augmented(image: Tensor, config: ClipTaskConfig, generator: torch.Generator) -> Tensor:
    """A random square-preserving crop of each picture: uint8 `[b 3 h w]` -> float `[b 3 h w]`."""
    b = len(image)
    draws = torch.rand(b, 3, generator=generator, device=generator.device).to(image.device)
    scale = config.min_scale + (1 - config.min_scale) * draws[:, 0]
    room = (1 - scale + 2 * config.shift)[:, None]  # grid_sample's unit is half a picture
    offset = room * (2 * draws[:, 1:] - 1)
    theta = torch.zeros(b, 2, 3, device=image.device)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, :, 2] = offset
    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    return F.grid_sample(image.float(), grid, padding_mode="border", align_corners=False)


def same_caption(captions: Sequence[str]) -> Tensor:
    """1 where two captions are equal, else 0: `[b b]`."""
    numbers = {caption: i for i, caption in enumerate(dict.fromkeys(captions))}
    ids = torch.tensor([numbers[caption] for caption in captions])
    return (ids[:, None] == ids[None]).float()


@torch.no_grad()
def retrieval(
    clip: Clip,
    image: Tensor,
    captions: Sequence[str],
    groups: Sequence[str] | None = None,
    *,
    batch_size: int = 256,
) -> dict[str, float]:
    """How often a picture finds its caption, and a caption its picture, among all of its group.

    Args:
        image: uint8 `[b 3 h w]`, one a caption.
        groups: a name a pair (its style, say); ranks count within it. None: one group.

    Returns:
        recall in 0..1: image_to_text@1, @5, text_to_image@1, @5; and the mean group size.
        Equal captions are not counted as mistakes; ties between different ones are.
    """
    image_e = torch.cat([clip.image(part) for part in image.split(batch_size)])
    parts = [captions[i : i + batch_size] for i in range(0, len(captions), batch_size)]
    text_e = torch.cat([clip.text(part).pooled for part in parts])
    names = list(groups) if groups is not None else [""] * len(captions)
    ranks, sizes = [], []
    for name in dict.fromkeys(names):
        rows = [i for i, other in enumerate(names) if other == name]
        similarity = image_e[rows] @ text_e[rows].T
        rivals = same_caption([captions[i] for i in rows]).to(similarity.device) == 0
        ranks.append(torch.stack([_rank(similarity, rivals), _rank(similarity.T, rivals)]))
        sizes += [len(rows)] * len(rows)
    found = torch.cat(ranks, dim=1)
    recalls = {
        f"{way}@{k}": (row < k).float().mean().item()
        for way, row in zip(("image_to_text", "text_to_image"), found, strict=True)
        for k in (1, 5)
    }
    return recalls | {"candidates": sum(sizes) / len(sizes)}


def _rank(similarity: Tensor, rivals: Tensor) -> Tensor:
    """How many rivals are at least as near as the right answer, `[b]`."""
    return ((similarity >= similarity.diagonal()[:, None]) & rivals).sum(1)
