"""What a training step receives: a batch of samples with typed, optional parts.

b batch; c channels; n text tokens; d width of a token or of a point; e width of a CLIP embedding
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

_T = TypeVar("_T", bound="_Movable")


class _Movable:
    """The two operations that every bundle of tensors here offers."""

    def to(self: _T, device: torch.device | str) -> _T:
        """The same bundle with every tensor on `device`."""
        moved: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, (Tensor, _Movable)):
                moved[field.name] = value.to(device)
        return self.replace(**moved)

    def replace(self: _T, **changes: Any) -> _T:
        """A copy with some fields exchanged."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


@dataclass(frozen=True)
class TextFeatures(_Movable):
    """What a text encoder says about a batch of captions.

    tokens: `[b n d]` one vector a token
    pooled: `[b e]` unit norm, in the space that CLIP shares with images
    mask:   `[b n]` bool, True at a real token
    """

    tokens: Tensor
    pooled: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> TextFeatures:
        return TextFeatures(self.tokens[rows], self.pooled[rows], self.mask[rows])


@dataclass(frozen=True)
class Batch(_Movable):
    """A batch of samples; a part that was not asked for is None.

    key:             the samples' names in their shards
    image:           `[b c h w]` uint8, RGB (c = 3) or grey (c = 1)
    caption:         one sentence a sample
    label:           `[b]` int64
    latent:          `[b 2c h w]` posterior moments, mean then log-variance, not normalised
    image_embedding: `[b e]` CLIP image embedding, unit norm
    text:            features of the captions
    point:           `[b d]` float, a point of a toy distribution
    """

    key: tuple[str, ...]
    image: Tensor | None = None
    caption: tuple[str, ...] | None = None
    label: Tensor | None = None
    latent: Tensor | None = None
    image_embedding: Tensor | None = None
    text: TextFeatures | None = None
    point: Tensor | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and len(value) != len(self.key):
                raise ValueError(
                    f"a batch of {len(self.key)} keys got {len(value)} items of {field.name}; "
                    "every part needs one item a key"
                )

    def __len__(self) -> int:
        return len(self.key)

    def take(self, n: int) -> Batch:
        """The first `n` samples (all of them, if there are fewer)."""
        parts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return self.replace(**{name: part[:n] for name, part in parts.items() if part is not None})
