"""Checkpoints that are either whole or not there: safetensors and JSON, never a pickle.

A checkpoint is a folder `step_000001000/` with `state.safetensors` (model, average, optimiser,
random state), `meta.json` (counters, configuration) and `sha256.json`. It is written under a
temporary name, flushed to disk and renamed, so that a process killed at any moment leaves the
previous checkpoint intact.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ldm.errors import CheckpointError
from ldm.files import sha256_of
from ldm.storage import unpack

PREFIX = "step_"


def save(
    root: Path, step: int, tensors: dict[str, Tensor], meta: dict[str, Any], keep: int
) -> Path:
    """Publish a checkpoint atomically and delete all but the `keep` newest; returns its folder."""
    root.mkdir(parents=True, exist_ok=True)
    final, staging = root / f"{PREFIX}{step:09d}", root / f".tmp-{step:09d}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    unshared = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    save_file(unshared, staging / "state.safetensors")
    (staging / "meta.json").write_text(json.dumps(meta, indent=1))
    sums = {p.name: sha256_of(p) for p in sorted(staging.iterdir())}
    (staging / "sha256.json").write_text(json.dumps(sums, indent=1))
    for path in staging.iterdir():
        _flush(path)
    _retire(final)
    staging.rename(final)
    _flush(root)
    for old in steps(root)[:-keep]:
        _retire(old)
    return final


def steps(root: Path) -> list[Path]:
    """Published checkpoints, oldest first."""
    return sorted(p for p in root.glob(f"{PREFIX}*") if p.is_dir())


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the meta data of one checkpoint, every byte checked against its hash.

    Raises:
        CheckpointError: naming the file that is missing or damaged.
    """
    try:
        sums = json.loads((folder / "sha256.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{folder}: no readable sha256.json ({error})") from error
    for name, expected in sums.items():
        path = folder / name
        if not path.exists() or sha256_of(path) != expected:
            state = "damaged" if path.exists() else "missing"
            raise CheckpointError(f"{path} is {state}; resume from an older checkpoint beside it")
    try:
        return load_file(folder / "state.safetensors"), json.loads(
            (folder / "meta.json").read_text()
        )
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{folder}: cannot be read ({error})") from error


def weights(folder: Path) -> dict[str, Tensor]:
    """Weights to start another run from: a run's averages, or an exported part's, in float32.

    Raises:
        CheckpointError: the folder holds neither.
    """
    published = steps(folder / "checkpoints")
    if published:
        tensors, _ = load(published[-1])
        return {k.removeprefix("ema."): v for k, v in tensors.items() if k.startswith("ema.")}
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise CheckpointError(
            f"{folder} holds no checkpoints/ and {len(files)} safetensors files: name the folder "
            "of a run or of one exported part"
        )
    try:
        return unpack(load_file(files[0]))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{files[0]} cannot be read ({error})") from error


def export_weights(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Write `folder/model.safetensors`, which `weights` reads; the recipe beside the run says what
    network it belongs to."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_file(whole, folder / "model.safetensors")


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """An optimiser's state as named tensors: `{prefix}.{parameter index}.{slot}`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{prefix}.{i}.{k}": torch.as_tensor(v)
        for i, slots in state.items()
        for k, v in slots.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], prefix: str
) -> None:
    """The inverse of `optimizer_tensors`, each tensor laid out in memory as its parameter is.

    The fused optimisers walk parameter and state side by side and ask nothing about strides.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(prefix + "."):
            index, slot = name.removeprefix(prefix + ".").split(".")
            state.setdefault(int(index), {})[slot] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for parameter, slots in optimizer.state.items():
        for slot, value in slots.items():
            if value.shape == parameter.shape:
                slots[slot] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _retire(folder: Path) -> None:
    """Delete by renaming first, so that a half-deleted folder never looks published."""
    if folder.exists():
        trash = folder.with_name(f".trash-{folder.name}")
        shutil.rmtree(trash, ignore_errors=True)
        folder.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
