"""Which weights encode shards: the autoencoder's posterior and CLIP's image tower."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from autoencoder import AutoencoderKL
from autoencoder.pixels import from_uint8
from ldm.conditioning.clip import Clip
from ldm.data.latents import encode_folder
from ldm.errors import CheckpointError
from ldm.training.loop import use_bf16


def encode(
    source: Path,
    out: Path,
    autoencoder: str,
    clip_source: str,
    size: int | None,
    device_name: str,
) -> None:
    """Encode a folder of shards; see `ldm.data.latents`.

    `size`: side in pixels to which images are brought; None is the autoencoder's own.
    """
    device = torch.device(device_name)
    try:
        model = AutoencoderKL.from_pretrained(autoencoder).to(device)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    clip = Clip.load(clip_source, device)
    bf16 = use_bf16("auto", device)

    def moments(pictures: Tensor) -> Tensor:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return model.encode(from_uint8(pictures.to(device))).moments

    encode_folder(
        source,
        out,
        size=model.config.sample_size if size is None else size,
        moments=moments,
        embeddings=clip.image,
        fingerprints={"autoencoder": model.fingerprint(), "clip": clip.fingerprint()},
    )
