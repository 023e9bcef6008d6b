"""From training runs to a model folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from autoencoder import AutoencoderKL
from ldm import config
from ldm.errors import CheckpointError, ConfigError
from ldm.modelfolder import PARTS, ModelIndex, write_index
from ldm.recipe import Recipe
from ldm.samplers import Sampler
from ldm.training import checkpoint


def export_part(run: Path, part: str, folder: Path) -> Path:
    """Write the averaged weights of a run's newest checkpoint as `folder/part`.

    Raises:
        ConfigError: `part` is none of the four.
        CheckpointError: the run has no checkpoint, or it is damaged.
    """
    if part not in PARTS:
        raise ConfigError(f"{part!r} is no part of a model; the parts are: {', '.join(PARTS)}")
    published = checkpoint.steps(run / "checkpoints")
    if not published:
        raise CheckpointError(f"{run} has no checkpoint yet: train first (scripts/train.py)")
    tensors, _ = checkpoint.load(published[-1])
    recipe: Recipe = config.from_dict(json.loads((run / "recipe.json").read_text()), Recipe)
    stream = recipe.data.open()
    task = recipe.task.build(stream)
    averaged = {k.removeprefix("ema."): v for k, v in tensors.items() if k.startswith("ema.")}
    target = folder / part
    shutil.rmtree(target, ignore_errors=True)
    with torch.no_grad():
        task.export(target, averaged, stream.epoch)
    return target


def finish(folder: Path, image_size: int | None, prior: Sampler, decoder: Sampler) -> ModelIndex:
    """Write the index over all four parts, with the default samplers.

    `image_size`: side in pixels; None is the size that the autoencoder was trained on.

    Raises:
        CheckpointError: naming the parts that are not there yet.
    """
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise CheckpointError(f"{folder} has no {', '.join(missing)}: export them first")
    if image_size is None:
        image_size = AutoencoderKL.from_pretrained(folder / "autoencoder").config.sample_size
    return write_index(folder, image_size, {"prior": prior, "decoder": decoder})
