"""Bytes of a jpg, png or webp file -> RGB pixels, whatever the file does inside.

The size is read from the header before anything is decoded, so that a small file cannot ask for
gigabytes of memory.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ldm.errors import DataError

if TYPE_CHECKING:
    from PIL import Image as PILImage

FORMATS = ("JPEG", "PNG", "WEBP")
EXTENSIONS = ("png", "jpg", "jpeg", "webp")
PIXEL_LIMIT = 64_000_000
# EXIF 2.32, tag 0x0112: orientations 5 to 8 exchange height and width.
_ORIENTATION, _LYING = 0x0112, (5, 6, 7, 8)
# What Pillow raises on damaged files, besides its own classes, which derive from OSError.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Resize the short side to `size`, cut the centre: a square of size x size.

    A picture of just that size is left untouched. Antialiased bicubic, in one resampling step.
    """

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise DataError(f"crop size is {self.size}; give 1 or more pixels")

    def identity(self) -> dict[str, str | int]:
        """What a fingerprint of anything computed from the cropped picture must hold."""
        return {"kind": "short-side-centre-crop", "size": self.size, "filter": "bicubic"}

    def __call__(self, image: PILImage.Image) -> PILImage.Image:
        from PIL import Image

        if image.size == (self.size, self.size):
            return image
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box)


def decode_image(
    data: bytes, crop: Crop | None = None, *, pixel_limit: int = PIXEL_LIMIT
) -> Tensor:
    """A file's bytes -> `[3 h w]` uint8 RGB.

    EXIF orientation is applied, transparency is laid on white, 16-bit greys are scaled to 8 bit,
    palettes and CMYK are converted, an animation gives its first frame. Raises DataError.
    """
    image = to_rgb(_open(data, pixel_limit))
    pixels = np.asarray(crop(image) if crop else image)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def upright_size(data: bytes, *, pixel_limit: int = PIXEL_LIMIT) -> tuple[int, int]:
    """(height, width) that `decode_image` without a crop gives, from the file's header alone."""
    image = _open(data, pixel_limit)
    try:
        turned = image.getexif().get(_ORIENTATION, 1) in _LYING
    except _DAMAGE as error:
        raise DataError(f"picture cannot be decoded: {error}") from error
    return (image.width, image.height) if turned else (image.height, image.width)


def to_rgb(image: PILImage.Image) -> PILImage.Image:
    """Any picture that Pillow has opened -> RGB, upright, on white. Raises DataError."""
    from PIL import Image, ImageOps

    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            image = _from_16_bit(image)
        if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        return image.convert("RGB")
    except _DAMAGE as error:
        raise DataError(f"picture cannot be decoded: {error}") from error


def _open(data: bytes, pixel_limit: int) -> PILImage.Image:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image: Any = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise DataError(f"picture is over the pixel limit: {error}") from error
    except UnidentifiedImageError as error:
        raise DataError("picture is not a jpg, png or webp file") from error
    except _DAMAGE as error:
        raise DataError(f"picture cannot be decoded: {error}") from error
    if image.width * image.height > pixel_limit:
        raise DataError(
            f"picture is over the pixel limit: {image.width} x {image.height} pixels, "
            f"allowed are {pixel_limit}"
        )
    return image


def _from_16_bit(image: PILImage.Image) -> PILImage.Image:
    """Modes I, I;16, I;16B hold 0..65535; Pillow's own conversion would clip at 255."""
    from PIL import Image

    wide = np.asarray(image).astype(np.int64)
    grey = np.rint(wide.clip(0, 65535) / 257).astype(np.uint8)
    return Image.fromarray(grey)
