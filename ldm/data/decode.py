"""One sample's files -> typed fields, and fields -> a batch.

b batch; c latent channels; e width of a CLIP embedding
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ldm.data import images
from ldm.data.batch import Batch
from ldm.data.images import Crop, decode_image
from ldm.data.reader import Raw
from ldm.errors import DataError

FieldName = Literal["image", "caption", "label", "latent", "image_embedding"]
_ARRAYS = {"latent": ("latent.npy", 3), "image_embedding": ("clip.npy", 1)}
_CAPTION_LIMIT = 10_000


@dataclass(frozen=True)
class Decoded:
    """A sample's fields, with all its captions: which one is used is drawn in each epoch."""

    key: str
    values: dict[str, Any]
    captions: tuple[str, ...] | None

    def drawn(self, seed: int, epoch: int | None) -> dict[str, Any]:
        """The fields with one caption, drawn by (seed, epoch, key); None takes the first."""
        if self.captions is None:
            return self.values
        if epoch is None:
            return {**self.values, "caption": self.captions[0]}
        words = f"{seed}|{epoch}|{self.key}".encode()
        draw = int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "big")
        return {**self.values, "caption": self.captions[draw % len(self.captions)]}


@dataclass(frozen=True)
class Decoder:
    """What to take out of a sample. Calling it raises DataError with the reason to skip one."""

    fields: tuple[FieldName, ...]
    crop: Crop | None = None
    pixel_limit: int = images.PIXEL_LIMIT
    require_caption: bool = True

    def __call__(self, raw: Raw) -> Decoded:
        captions = self._captions(raw) if "caption" in self.fields else None
        wanted = (name for name in self.fields if name != "caption")
        return Decoded(raw.key, {name: self._field(name, raw) for name in wanted}, captions)

    def _field(self, name: FieldName, raw: Raw) -> Tensor | int:
        if name == "image":
            return self._image(raw)
        if name == "label":
            return _label(raw)
        return _array(raw, *_ARRAYS[name])

    def _image(self, raw: Raw) -> Tensor:
        for extension in images.EXTENSIONS:
            if extension in raw.files:
                return decode_image(raw.files[extension], self.crop, pixel_limit=self.pixel_limit)
        raise DataError("no picture (png, jpg, jpeg, webp)")

    def _captions(self, raw: Raw) -> tuple[str, ...]:
        found = tuple(_captions(raw))
        if not found and self.require_caption:
            raise DataError("no caption")
        return found or ("",)


def collate(keys: Sequence[str], samples: Sequence[dict[str, Any]]) -> Batch:
    """Decoded samples -> a batch; DataError if their shapes differ."""
    parts: dict[str, Any] = {}
    for name in samples[0]:
        values = [s[name] for s in samples]
        if name == "caption":
            parts[name] = tuple(values)
        elif name == "label":
            parts[name] = torch.tensor(values, dtype=torch.int64)
        else:
            parts[name] = _stacked(name, keys, values)
    return Batch(tuple(keys), **parts)


def _stacked(name: str, keys: Sequence[str], values: list[Tensor]) -> Tensor:
    for key, value in zip(keys, values, strict=True):
        if value.shape != values[0].shape:
            hint = "; set `size` in the ShardConfig" if name == "image" else ""
            raise DataError(
                f"{name} of {key} has shape {tuple(value.shape)}, of {keys[0]} "
                f"{tuple(values[0].shape)}: one batch needs one shape{hint}"
            )
    return torch.stack(values)


def _captions(raw: Raw) -> list[str]:
    """The sample's captions, the default one first, empty ones left out."""
    found: list[str] = []
    if "txt" in raw.files:
        found.append(_text(raw.files["txt"], "caption"))
    listed = _meta(raw).get("captions", [])
    if not isinstance(listed, list) or not all(isinstance(c, str) for c in listed):
        raise DataError("captions in the json are not a list of strings")
    found.extend(listed)
    if any(len(c) > _CAPTION_LIMIT for c in found):
        raise DataError(f"caption longer than {_CAPTION_LIMIT} characters")
    cleaned = (c.replace("\0", " ").strip() for c in found)
    return list(dict.fromkeys(c for c in cleaned if c))


def _meta(raw: Raw) -> dict[str, Any]:
    if "json" not in raw.files:
        return {}
    try:
        meta = json.loads(_text(raw.files["json"], "json"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError("json cannot be read") from error
    if not isinstance(meta, dict):
        raise DataError("json is not an object")
    return meta


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{what} is not utf-8") from error


def _label(raw: Raw) -> int:
    label = _meta(raw).get("label")
    if not isinstance(label, int) or isinstance(label, bool):
        raise DataError("no label (an integer `label` in the json)")
    return label


def _array(raw: Raw, extension: str, dims: int) -> Tensor:
    """A float array from a .npy file -> float32; its header must fit its bytes."""
    if extension not in raw.files:
        raise DataError(f"no {extension}")
    file = io.BytesIO(raw.files[extension])
    try:
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[np.lib.format.read_magic(file)]
        shape, fortran, dtype = read(file)
    except (ValueError, KeyError) as error:
        raise DataError(f"{extension} is not an array file") from error
    body = file.read()
    if dtype.kind != "f" or fortran or len(shape) != dims or 0 in shape:
        raise DataError(f"{extension} is not a {dims}-dimensional float array")
    if len(body) != dtype.itemsize * int(np.prod([int(n) for n in shape], dtype=object)):
        raise DataError(f"{extension} is shorter or longer than its header says")
    array = np.frombuffer(body, dtype).reshape(shape).astype(np.float32)
    if not np.isfinite(array).all():
        raise DataError(f"{extension} is not finite")
    return torch.from_numpy(array)
