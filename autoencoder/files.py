"""Weights on disk: a folder with `config.json` and one safetensors file, read strictly."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
Config = TypeVar("Config")


def save(
    folder: Path, config: dict[str, Any], state: Mapping[str, Tensor], dtype: torch.dtype
) -> None:
    """Write both files; each is complete under its name or not there at all."""
    limit = torch.finfo(dtype).max
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.abs().max() <= limit:
            raise ValueError(
                f"{name} holds values that {dtype} cannot (infinite, NaN or above {limit:g}); "
                "save with dtype=torch.float32, or look for a diverged training"
            )
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in state.items()}
    partial = folder / (WEIGHTS + ".partial")
    save_file(tensors, partial, metadata={"format": "pt"})
    os.replace(partial, folder / WEIGHTS)
    partial = folder / (CONFIG + ".partial")
    partial.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(partial, folder / CONFIG)


def read_config(folder: Path, parse: Callable[[dict[str, Any]], Config]) -> Config:
    """The configuration in `folder`, through `parse`; every fault names the file."""
    path = folder / CONFIG
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}): give the folder that save_pretrained wrote"
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error


def load(module: nn.Module, folder: Path) -> None:
    """Fill `module` from the safetensors file in `folder`; every tensor must fit, none be left."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise ValueError(f"{path} is missing: weights are read from safetensors only")
    try:
        found = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is cut or damaged ({error}): fetch or save it again") from error
    faults = _faults(module.state_dict(), found)
    if faults:
        raise ValueError(
            f"{path} does not fit {CONFIG} beside it: {'; '.join(faults)}. "
            "Use the two files of one model"
        )
    module.load_state_dict(found)


def _faults(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """In words, what keeps `found` from being exactly `expected`; empty when it fits."""
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    wrong = [
        f"{k} is {tuple(found[k].shape)}, not {tuple(expected[k].shape)}"
        for k in sorted(expected.keys() & found.keys())
        if expected[k].shape != found[k].shape
    ]
    listed = [(missing, "missing"), (extra, "not expected"), (wrong, "of the wrong shape")]
    return [
        f"{len(names)} tensors {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for names, what in listed
        if names
    ]
