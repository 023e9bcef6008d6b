"""From uint8 pictures to what a CLIP image tower expects, on tensors.

b batch; h w picture; s the tower's size
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# The mean and deviation of OpenAI's training pictures, open_clip's default.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """open_clip's `preprocess_cfg`: resize, crop or pad, normalise."""

    size: int | tuple[int, int] = 224
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0
    mode: str = "RGB"

    def __post_init__(self) -> None:
        _one_of("resize_mode", self.resize_mode, ("shortest", "longest", "squash"))
        _one_of("interpolation", self.interpolation, ("bicubic", "bilinear", "random"))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """From JSON or open_clip's own dict; as there, unknown and empty keys do not count."""
        names = {field.name for field in dataclasses.fields(cls)}
        known = {k: v for k, v in values.items() if k in names and v is not None}
        given: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in known.items()
        }
        return cls(**given)

    @property
    def height_width(self) -> tuple[int, int]:
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def __call__(self, image: Tensor) -> Tensor:
        """uint8 `[b 3 h w]` -> normalised float32 `[b 3 s s]`."""
        if image.dtype != torch.uint8 or image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(
                f"a picture batch is uint8 [b 3 h w], not {image.dtype} {list(image.shape)}"
            )
        return self.normalised(image.float())

    def normalised(self, x: Tensor) -> Tensor:
        """The same for floats in 0..255, for pictures that were augmented."""
        x = self._fit(x)
        mean = torch.tensor(self.mean, device=x.device)[:, None, None]
        std = torch.tensor(self.std, device=x.device)[:, None, None]
        return (x / 255 - mean) / std

    def _fit(self, x: Tensor) -> Tensor:
        height, width = self.height_width
        if self.resize_mode == "squash":
            return self._resize(x, height, width)
        h, w = x.shape[-2:]
        if self.resize_mode == "shortest" and height == width:
            # torchvision's rule for a square, which open_clip follows: the long side is cut short.
            x = self._resize(x, height * h // min(h, w), width * w // min(h, w))
        else:
            pick = max if self.resize_mode == "shortest" else min
            ratio = pick(height / h, width / w)
            x = self._resize(x, round(h * ratio), round(w * ratio))
        return centred(x, height, width, fill=float(self.fill_color))

    def _resize(self, x: Tensor, height: int, width: int) -> Tensor:
        if x.shape[-2:] == (height, width):
            return x
        mode = "bilinear" if self.interpolation == "bilinear" else "bicubic"
        x = F.interpolate(x, (height, width), mode=mode, antialias=True, align_corners=False)
        return x.round().clamp(0, 255)  # PIL, which open_clip uses, keeps 8 bits here


def centred(x: Tensor, height: int, width: int, *, fill: float = 0.0) -> Tensor:
    """Cut or pad `[b c h w]` around its centre to `[b c height width]`."""
    down, right = height - x.shape[-2], width - x.shape[-1]
    # A negative pad cuts; rounding as torchvision's center_crop.
    top = -round(-down / 2) if down < 0 else down // 2
    left = -round(-right / 2) if right < 0 else right // 2
    return F.pad(x, (left, right - left, top, down - top), value=fill)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")
