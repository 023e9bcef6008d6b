"""Encoded shards: latents and CLIP embeddings computed once, and the proof of what computed them.

A sample keeps its key, captions and json; its picture is replaced by `latent.npy` (posterior
moments [2c h w], float16) and `clip.npy` (unit-norm embedding [e], float16). The manifest's
`encoding` holds the fingerprints of autoencoder and CLIP and the crop, so that entries made by
other weights are refused instead of used.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ldm.data.decode import Decoder
from ldm.data.images import Crop
from ldm.data.manifest import Manifest
from ldm.data.reader import Raw, read_manifest, read_whole
from ldm.data.writer import make_empty, write_shard
from ldm.errors import DataError

logger = logging.getLogger(__name__)
Encode = Callable[[Tensor], Tensor]

KEPT = ("txt", "json")


def encode_folder(
    source: Path,
    out: Path,
    *,
    size: int,
    moments: Encode,
    embeddings: Encode,
    fingerprints: Mapping[str, str],
    batch_size: int = 64,
) -> Manifest:
    """Encode every shard of `source` into `out`; the manifest is written last.

    Args:
        size: side of the square to which pictures are resized and cut.
        moments: uint8 [b 3 size size] -> posterior moments [b 2c h w].
        embeddings: uint8 [b 3 size size] -> unit-norm [b e].
        fingerprints: of the weights behind both.

    Raises:
        DataError: `out` is in use, or a shard contradicts its manifest.
    """
    manifest, crop = read_manifest(str(source)), Crop(size=size)
    decoder = Decoder(("image",), crop)
    make_empty(out)
    entries = []
    for entry in manifest.shards:
        raws = read_whole(str(source), entry)
        encoded = _encoded(raws, decoder, moments, embeddings, batch_size)
        entries.append(write_shard(out / entry.name, encoded))
        logger.info("%s: %d samples", entry.name, entries[-1].samples)
    extra = {**manifest.extra, "encoding": {**fingerprints, "crop": str(crop)}}
    made = Manifest(manifest.split, tuple(entries), manifest.licences, manifest.versions, extra)
    made.save(out)
    return made


def _encoded(
    raws: list[Raw], decoder: Decoder, moments: Encode, embeddings: Encode, batch_size: int
) -> Iterator[dict[str, bytes | str]]:
    """The files of each sample, picture exchanged for arrays."""
    for first in range(0, len(raws), batch_size):
        chunk = raws[first : first + batch_size]
        pictures = torch.stack([_picture(raw, decoder) for raw in chunk])
        parts = {"latent.npy": moments(pictures), "clip.npy": embeddings(pictures)}
        for i, raw in enumerate(chunk):
            files: dict[str, bytes | str] = {"__key__": raw.key}
            files |= {k: raw.files[k] for k in KEPT if k in raw.files}
            yield files | {k: _npy(v[i]) for k, v in parts.items()}


def _picture(raw: Raw, decoder: Decoder) -> Tensor:
    try:
        picture: Tensor = decoder(raw).values["image"]
    except DataError as error:
        raise DataError(f"sample {raw.key}: {error}; encode shards of whole pictures") from error
    return picture


def _npy(value: Tensor) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, value.detach().cpu().half().numpy(), allow_pickle=False)
    return buffer.getvalue()
