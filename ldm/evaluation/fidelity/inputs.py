"""What is compared: the pictures of a folder, of a folder of shards, or of a tensor.

They are read in one order (files by their real path, as torch-fidelity reads them; shards by the
manifest), have one size, and a digest that changes with any of them. Only a batch of them is in
memory at a time.

n pictures; b batch; h w pixels
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ldm.data.images import EXTENSIONS, Crop, decode_image, upright_size
from ldm.data.manifest import NAME as MANIFEST
from ldm.data.manifest import load_manifest, verify
from ldm.data.reader import Raw, read_shard
from ldm.errors import DataError

_T = TypeVar("_T")
LOSSY = ("jpg", "jpeg", "webp")
_RESIZE = "pass a side to resize to (resize=128, or --resize 128): antialiased bicubic, centre cut"


class Encoded(NamedTuple):
    """One picture as the bytes of its file, and what to call it in messages."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Pictures:
    """n pictures of one size.

    Attributes:
        where: what to call them in messages.
        count: n.
        size: height and width in pixels, after resizing.
        digest: 16 hex digits that stand for the content in its order, before resizing.
        resize: how each was resized, None for not at all.
        lossy: how many are of a kind of file that loses detail.
        read: starts an iteration over the pictures, uint8 [3 h w].
    """

    where: str
    count: int
    size: tuple[int, int]
    digest: str
    resize: Crop | None
    lossy: int
    read: Callable[[], Iterator[Tensor]]

    def __len__(self) -> int:
        return self.count

    def identity(self) -> dict[str, object]:
        """What anything computed from the pictures depends on."""
        return {
            "data": self.digest,
            "pictures": self.count,
            "size": list(self.size),
            "resize": "none" if self.resize is None else self.resize.identity(),
        }

    def batches(self, size: int) -> Iterator[Tensor]:
        """uint8 [b 3 h w], `size` at a time."""
        batch: list[Tensor] = []
        for picture in self.read():
            batch.append(picture)
            if len(batch) == size:
                yield torch.stack(batch)
                batch = []
        if batch:
            yield torch.stack(batch)


def open_pictures(source: Path | Tensor, resize: int | None = None) -> Pictures:
    """The pictures of a folder of files, of a folder of shards with a manifest, or of a tensor.

    Args:
        source: a folder, or uint8 [n 3 h w].
        resize: side of a square; the short side is resized to it, the centre cut out.

    Raises:
        DataError: there are fewer than two, one cannot be read, or they have several sizes.
    """
    crop = None if resize is None else Crop(size=resize)
    if isinstance(source, Tensor):
        return _of_tensor(source, crop)
    if not source.is_dir():
        what = "is a file" if source.exists() else "does not exist"
        raise DataError(
            f"{source} {what}: give a folder of pictures ({', '.join(EXTENSIONS)}) or a folder of "
            f"shards with {MANIFEST}; of a model, draw pictures into a folder first"
        )
    if (source / MANIFEST).exists():
        return _of_encoded(str(source), lambda: _shards(source), crop)
    files = _files(source)
    return _of_encoded(str(source), lambda: _read(files), crop)


def _of_tensor(images: Tensor, crop: Crop | None) -> Pictures:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise DataError(
            f"pictures must be uint8 [n 3 h w], not {images.dtype} {tuple(images.shape)}"
        )
    _check_count(len(images), "the tensor of pictures")
    content = images.cpu().contiguous()
    digest = hashlib.sha256(f"{tuple(content.shape)}".encode())
    digest.update(content.numpy().tobytes())
    return Pictures(
        "a tensor of pictures",
        len(content),
        _size(tuple(content.shape[2:]), crop),
        digest.hexdigest()[:16],
        crop,
        0,
        lambda: (_cut(picture, crop) for picture in content),
    )


def _of_encoded(where: str, files: Callable[[], Iterable[Encoded]], crop: Crop | None) -> Pictures:
    """Look at the bytes and the header of every file, decode none of them yet."""
    digest, sizes, lossy, first = hashlib.sha256(), set[tuple[int, int]](), 0, ""
    count = 0
    for file in files():
        digest.update(hashlib.sha256(file.data).digest())
        size = _told(file, upright_size)
        first = first or f"{file.name} is {size[1]} x {size[0]}"
        sizes.add(size)
        if len(sizes) > 1 and crop is None:
            raise DataError(
                f"the pictures in {where} have several sizes: {first}, "
                f"{file.name} is {size[1]} x {size[0]} pixels; {_RESIZE}"
            )
        lossy += file.name.lower().endswith(LOSSY)
        count += 1
    _check_count(count, where)
    return Pictures(
        where,
        count,
        _size(next(iter(sizes)), crop),
        digest.hexdigest()[:16],
        crop,
        lossy,
        lambda: (_told(file, lambda data: decode_image(data, crop)) for file in files()),
    )


def _files(folder: Path) -> list[Path]:
    """The picture files of a folder in the order of their real paths."""
    found = [p for p in folder.iterdir() if _is_picture(p) and not p.is_dir()]
    if not found:
        below = sum(p.is_dir() for p in folder.iterdir())
        hint = f"; its {below} folders are not looked into" if below else ""
        raise DataError(f"no pictures ({', '.join(EXTENSIONS)}) in {folder}{hint}")
    return sorted(found, key=os.path.realpath)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower().lstrip(".") in EXTENSIONS


def _read(files: Iterable[Path]) -> Iterator[Encoded]:
    for path in files:
        try:
            yield Encoded(str(path), path.read_bytes())
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error}") from error


def _shards(folder: Path) -> Iterator[Encoded]:
    """The pictures of all shards, whose bytes must be those of the manifest."""
    verify(folder)
    for entry in load_manifest(folder).shards:
        content = read_shard(str(folder), entry.name)
        if content.fault is not None or len(content.samples) != entry.samples:
            raise DataError(
                f"{folder / entry.name}: {len(content.samples)} of {entry.samples} samples could "
                f"be read ({content.fault or 'no error'}); make the shards again"
            )
        for place in sorted(content.samples):
            yield _picture_of(content.samples[place], f"{folder / entry.name}")


def _picture_of(raw: Raw, shard: str) -> Encoded:
    for extension in EXTENSIONS:
        if extension in raw.files:
            return Encoded(f"{shard}: {raw.key}.{extension}", raw.files[extension])
    raise DataError(f"{shard}: sample {raw.key} holds no picture ({', '.join(EXTENSIONS)})")


def _told(file: Encoded, look: Callable[[bytes], _T]) -> _T:
    """What `look` says of a file; its error names the file."""
    try:
        return look(file.data)
    except DataError as error:
        raise DataError(f"{file.name}: {error}") from error


def _cut(picture: Tensor, crop: Crop | None) -> Tensor:
    """[3 h w] uint8 as a file of it would be read."""
    if crop is None:
        return picture
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(buffer, "PNG")
    return decode_image(buffer.getvalue(), crop)


def _size(size: tuple[int, ...], crop: Crop | None) -> tuple[int, int]:
    return (size[0], size[1]) if crop is None else (crop.size, crop.size)


def _check_count(count: int, where: str) -> None:
    if count < 2:
        raise DataError(
            f"{where} holds {count} picture{'' if count == 1 else 's'}: a distribution needs at "
            "least 2, and some thousands for figures that mean much"
        )
