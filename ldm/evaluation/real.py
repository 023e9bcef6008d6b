"""The real pictures that a model is judged against: both splits of a data set of shards."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldm.data.images import EXTENSIONS, Crop, decode_image
from ldm.data.manifest import load_manifest, verify
from ldm.data.reader import Raw, read_whole
from ldm.errors import DataError

SPLITS = ("train", "heldout")


@dataclass(frozen=True)
class RealPicture:
    """One picture, still encoded, and what its sample says of it."""

    key: str
    split: str
    concept: str
    style: str
    caption: str
    data: bytes


class RealPictures(Sequence[RealPicture]):
    """All pictures of a data set in the order of its shards, train before heldout.

    `digest` changes with any byte of any shard.
    """

    def __init__(self, items: Sequence[RealPicture], digest: str) -> None:
        self.items, self.digest = tuple(items), digest

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    @property
    def styles(self) -> list[str]:
        return sorted({p.style for p in self.items})

    def of(self, split: str, style: str | None = None) -> list[int]:
        """The places of a split's pictures, of one style or of all."""
        if split not in SPLITS:
            raise ValueError(f"split {split!r} is unknown; choose from {', '.join(SPLITS)}")
        return [
            i for i, p in enumerate(self.items) if p.split == split and style in (None, p.style)
        ]

    def images(self, places: Sequence[int], size: int | None = None) -> Tensor:
        """The pictures at `places`, uint8 [n 3 h w]; squares of `size` where it is given."""
        crop = None if size is None else Crop(size=size)
        # Pillow lets other threads run while it decodes.
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            pictures = list(pool.map(lambda i: decode_image(self.items[i].data, crop), places))
        if len({p.shape for p in pictures}) > 1:
            raise DataError("the pictures have several sizes; ask for one size")
        return torch.stack(pictures)


def load_real(folder: Path) -> RealPictures:
    """Read FOLDER/train and FOLDER/heldout, whose bytes must be those of their manifests.

    Raises:
        DataError: a split is missing, is another split than its folder says, is damaged, or its
            samples do not say name and style.
    """
    items: list[RealPicture] = []
    digest = hashlib.sha256()
    for split in SPLITS:
        if not (folder / split).is_dir():
            raise DataError(
                f"no {split} pictures in {folder}; make them with: "
                f"python scripts/make_shards.py --emoji --out {folder}"
            )
        manifest = load_manifest(folder / split)
        if manifest.split != split:
            raise DataError(
                f"{folder / split} holds the split {manifest.split!r} by its manifest, "
                f"not {split!r}"
            )
        verify(folder / split)
        for entry in manifest.shards:
            digest.update(f"{split}/{entry.sha256}".encode())
            where = str(folder / split / entry.name)
            raws = read_whole(str(folder / split), entry)
            items.extend(_parse(raw, split, where) for raw in raws)
    if not items:
        raise DataError(f"the shards in {folder} hold no pictures")
    return RealPictures(items, digest.hexdigest()[:16])


def _parse(raw: Raw, split: str, where: str) -> RealPicture:
    try:
        meta = json.loads(raw.files["json"])
        data = next(raw.files[e] for e in EXTENSIONS if e in raw.files)
        # Concepts are told apart as the split does it: without regard to case.
        concept, style = str(meta["name"]).lower(), str(meta["style"])
        return RealPicture(raw.key, split, concept, style, raw.files["txt"].decode().strip(), data)
    except (KeyError, StopIteration, ValueError, TypeError) as error:
        raise DataError(
            f"{where}: sample {raw.key} lacks a picture, a txt, or a json with name and style "
            f"({error!r}); the judge of this script needs all of them, as make_shards.py --emoji "
            "writes them"
        ) from error
