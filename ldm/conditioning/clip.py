"""The CLIP adapter: captions and pictures to features, for any model that open_clip knows.

Radford et al. 2021 (arXiv 2103.00020). A model comes from a local folder in open_clip's
`local-dir:` form (open_clip_config.json + open_clip_model.safetensors, and our merge list where the
vocabulary is a short one) or by open_clip's name and pretrained tag. Text from a local folder of
the plain CLIP architecture needs no open_clip: `text_tower` and `tokenizer` read the same files.
Such a folder opens in open_clip as well:

    model = open_clip.create_model("local-dir:FOLDER")
    tokenizer = open_clip.get_tokenizer(
        "local-dir:FOLDER", bpe_path="FOLDER/bpe_simple_vocab_16e6.txt.gz")

(bpe_path only where the folder has that file: open_clip would look for a path written in the
configuration from the current directory, so it cannot be written there.)

b batch; n tokens; d width of a token; e width of the shared embedding
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.conditioning import clip_folder
from ldm.conditioning.preprocess import Preprocess
from ldm.conditioning.tokenizer import Truncation
from ldm.data.batch import TextFeatures

LOCAL = "local-dir:"


class Tokenizer(Protocol):
    """Captions to ids `[b n]`, and where a caption is cut."""

    context_length: int

    def __call__(self, texts: Sequence[str]) -> Tensor: ...
    def truncation(self, text: str, index: int = 0) -> Truncation | None: ...


class TextEncoder(NamedTuple):
    """ids `[b n]` -> tokens `[b n d]`, pooled `[b e]`, mask `[b n]`; and its tokenizer."""

    tokenizer: Tokenizer
    encode: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


class ImageEncoder(NamedTuple):
    """Preprocessed `[b 3 s s]` -> `[b e]`; and the preprocessing."""

    preprocess: Preprocess
    encode: Callable[[Tensor], Tensor]


class Clip:
    """Captions and pictures to features. Frozen: no gradient passes but by `image_with_gradient`.

    Args:
        text: the text side.
        image: makes the image side; called at the first picture, since it costs an import.
        fingerprint: makes a hash of weights and configuration.
        device: where features are computed and returned.
    """

    def __init__(
        self,
        text: TextEncoder,
        image: Callable[[], ImageEncoder],
        fingerprint: Callable[[], str],
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self._text = text
        self._image = functools.cache(image)
        self._fingerprint = functools.cache(fingerprint)

    @classmethod
    def load(
        cls,
        source: str | Path,
        device: torch.device | str = "cpu",
        *,
        pretrained: str | None = None,
    ) -> Clip:
        """A model with its weights; never a random one.

        Args:
            source: a folder, with or without `local-dir:` before it, or open_clip's model name.
            pretrained: the tag of the weights, for a model name only; `name:tag` is the same.

        Raises:
            CheckpointError: weights or configuration are missing, damaged or do not match.
            ConfigError: open_clip knows no such name or tag.
        """
        folder = Path(str(source).removeprefix(LOCAL))
        if folder.is_dir() or str(source).startswith(LOCAL):
            return cls._from_folder(clip_folder.read(folder), device)
        from ldm.conditioning import clip_open

        return clip_open.as_clip(clip_open.load_named(str(source), pretrained, device))

    @classmethod
    def _from_folder(cls, folder: clip_folder.Folder, device: torch.device | str) -> Clip:
        def whole() -> Clip:
            from ldm.conditioning import clip_open

            return clip_open.as_clip(clip_open.load_folder(folder, device), folder.fingerprint)

        if not folder.is_plain:
            return whole()
        tower, tokenizer = folder.text_tower().to(device), folder.tokenizer()

        def encode(ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            # Attention is causal, so that what follows the longest caption changes nothing.
            mask = real_tokens(ids)
            longest = int(mask.sum(1).max())
            tokens, pooled = tower(ids[:, :longest])
            return F.pad(tokens, (0, 0, 0, ids.shape[1] - longest)), pooled, mask

        return cls(
            TextEncoder(tokenizer, encode), lambda: whole()._image(), folder.fingerprint, device
        )

    @property
    def context_length(self) -> int:
        """n, start and end token included."""
        return self._text.tokenizer.context_length

    @torch.no_grad()
    def text(self, captions: Sequence[str]) -> TextFeatures:
        """Per-token and pooled features of captions, in one pass; see `truncated` for long ones."""
        if isinstance(captions, str):
            raise ValueError(f"captions is a list of strings; write [{captions!r}]")
        ids = self._text.tokenizer(captions).to(self.device)
        tokens, pooled, mask = self._text.encode(ids)
        return TextFeatures(tokens, F.normalize(pooled.float(), dim=-1), mask)

    @torch.no_grad()
    def image(self, image: Tensor) -> Tensor:
        """Unit-norm embeddings `[b e]` of uint8 RGB pictures `[b 3 h w]` of any size."""
        encoder = self._image()
        pooled = encoder.encode(encoder.preprocess(image.to(self.device)))
        return F.normalize(pooled.float(), dim=-1)

    def image_with_gradient(self, x: Tensor) -> Tensor:
        """`image` of squares `[b 3 h h]` as floats in 0..255, for guidance: differentiable in x.

        The resized picture is not rounded to 8 bits, which `image` does and no gradient survives.
        """
        encoder = self._image()
        size = encoder.preprocess.height_width
        if x.shape[-2:] != size:
            x = F.interpolate(x, size, mode="bicubic", antialias=True)
        return F.normalize(encoder.encode(encoder.preprocess.normalised(x)).float(), dim=-1)

    def truncated(self, captions: Sequence[str]) -> list[Truncation]:
        """The captions that do not fit the context, with the part kept and the part lost."""
        found = (self._text.tokenizer.truncation(text, i) for i, text in enumerate(captions))
        return [truncation for truncation in found if truncation is not None]

    def fingerprint(self) -> str:
        """A hash that changes with the weights, the architecture and the preprocessing."""
        return self._fingerprint()


def real_tokens(ids: Tensor) -> Tensor:
    """True up to and with the end token, which has the largest id of all: `[b n]` -> `[b n]`."""
    return torch.arange(ids.shape[1], device=ids.device) <= ids.argmax(-1, keepdim=True)


def hash_tensors(tensors: dict[str, Tensor]) -> str:
    """A hash of named tensors, independent of their order and device."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
