"""Tensors that are dear to compute, on disk under a name that says what they were made from."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

logger = logging.getLogger(__name__)


def digest(value: object) -> str:
    """Stands for a value that JSON can hold: 64 hex digits."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def cached(
    folder: Path | None, label: str, identity: Mapping[str, object], compute: Callable[[], Tensor]
) -> Tensor:
    """`compute()`, or what it gave before for the same `identity` (data, weights, preprocessing).

    The whole identity is stored and compared: a file that does not say the same is computed anew.
    None as a folder keeps nothing.
    """
    if folder is None:
        return compute()
    told = json.dumps(dict(identity), sort_keys=True)
    path = folder / f"{label}-{hashlib.sha256(told.encode()).hexdigest()[:16]}.safetensors"
    found = _load(path, told)
    if found is not None:
        return found
    value = compute().cpu().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    # Named by the process: another one may be computing the same.
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    save_file({"value": value}, temporary, metadata={"identity": told})
    temporary.replace(path)
    return value


def _load(path: Path, told: str) -> Tensor | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            if file.metadata() == {"identity": told}:
                value: Tensor = file.get_tensor("value")
                return value
        fault = "it was made from something else"
    except (SafetensorError, OSError) as error:
        fault = str(error)
    logger.warning("%s is not used (%s); computing it again", path, fault)
    return None
