"""A CLIP model in a folder: open_clip's `local-dir:` form, safetensors only.

open_clip_config.json             {"model_cfg": ..., "preprocess_cfg": ...}
open_clip_model.safetensors       half or full precision
bpe_simple_vocab_16e6.txt.gz      only where the vocabulary is not the full one
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm.conditioning.preprocess import Preprocess
from ldm.conditioning.text_tower import TextTower, TextTowerConfig, is_plain, is_text_tensor
from ldm.conditioning.tokenizer import (
    FULL_VOCABULARY,
    MERGES_FILE,
    BpeTokenizer,
    packaged_merges,
    read_merges,
    write_merges,
)
from ldm.errors import CheckpointError

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
# What open_clip assumes for a key that text_cfg lacks.
_TEXT_DEFAULTS = {
    "context_length": 77,
    "vocab_size": FULL_VOCABULARY,
    "width": 512,
    "heads": 8,
    "layers": 12,
}


@dataclass(frozen=True)
class Folder:
    """A folder whose configuration has been read; weights are read when asked for."""

    path: Path
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]

    @property
    def is_plain(self) -> bool:
        """Whether the text side works without open_clip."""
        return is_plain(self.model_cfg)

    @property
    def merges_path(self) -> Path | None:
        """The folder's own merge list; None means the full one of the open_clip package."""
        path = self.path / MERGES_FILE
        return path if path.is_file() else None

    def tokenizer(self) -> BpeTokenizer:
        """The byte-pair tokenizer that this model was trained with."""
        text = _TEXT_DEFAULTS | self.model_cfg["text_cfg"]
        return BpeTokenizer(
            vocab_size=text["vocab_size"],
            context_length=text["context_length"],
            merges_path=self.merges_path,
        )

    def text_tower(self) -> TextTower:
        """Our own text tower with this folder's weights, in float32 and frozen."""
        text = TextTowerConfig(**(_TEXT_DEFAULTS | self.model_cfg["text_cfg"]))
        # Not on the meta device, whose first use imports sympy and more: 2 s of a cold start.
        with torch.random.fork_rng(devices=[]):
            tower = TextTower(
                text,
                embed_dim=self.model_cfg["embed_dim"],
                quick_gelu=self.model_cfg.get("quick_gelu", False),
            )
        return load_strictly(tower, self.tensors(is_text_tensor), self.weights_path)

    @property
    def weights_path(self) -> Path:
        return self.path / WEIGHTS_FILE

    def tensors(self, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, Tensor]:
        """The named tensors in float32; others are not read from the disk."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.weights_path, framework="pt") as file:
                names = [name for name in file.keys() if wanted(name)]  # noqa: SIM118 (no mapping)
                return {name: _float32(file.get_tensor(name)) for name in names}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{self.weights_path} is damaged or incomplete ({error}). "
                "Fetch it again (git lfs pull, if it came by git), or train it again."
            ) from error

    def fingerprint(self) -> str:
        """A hash of weights, configuration and vocabulary; the folder's name does not count."""
        digest = hashlib.sha256(self.weights_path.read_bytes())
        configuration = {"model_cfg": self.model_cfg, "preprocess_cfg": self.preprocess_cfg}
        digest.update(json.dumps(configuration, sort_keys=True).encode())
        if self.merges_path is not None:
            digest.update(repr(read_merges(self.merges_path)).encode())
        return digest.hexdigest()[:16]


def read(path: Path) -> Folder:
    """The folder's configuration, after a check that its files are there.

    Raises:
        CheckpointError: the folder, a file or a key is missing.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (path / name).is_file():
            raise CheckpointError(
                f"no CLIP model in {path}: {name} is missing. The folder must hold {CONFIG_FILE} "
                f"and {WEIGHTS_FILE} (pickled .pt and .bin weights are not read)."
            )
    try:
        config = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
        model_cfg, preprocess_cfg = config["model_cfg"], config.get("preprocess_cfg", {})
        missing = {"embed_dim", "text_cfg", "vision_cfg"} - set(model_cfg)
        if missing:
            raise KeyError(*missing)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path / CONFIG_FILE} is not an open_clip configuration: {error!r}. It needs "
            '{"model_cfg": {"embed_dim", "vision_cfg", "text_cfg"}, "preprocess_cfg"}'
        ) from error
    return Folder(path, model_cfg, preprocess_cfg)


def write(
    path: Path, model_cfg: Mapping[str, Any], preprocess: Preprocess, tensors: Mapping[str, Tensor]
) -> None:
    """A folder in half precision, with the merge list where the vocabulary is a short one."""
    from dataclasses import asdict

    from safetensors.torch import save_file

    path.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": dict(model_cfg), "preprocess_cfg": asdict(preprocess)}
    vocab_size = model_cfg["text_cfg"].get("vocab_size", FULL_VOCABULARY)
    if vocab_size < FULL_VOCABULARY:
        write_merges(path / MERGES_FILE, read_merges(packaged_merges())[: vocab_size - 514])
    half = {name: _half(value.detach().cpu()).contiguous() for name, value in tensors.items()}
    temporary = path / (WEIGHTS_FILE + ".tmp")
    save_file(half, temporary)
    temporary.replace(path / WEIGHTS_FILE)
    (path / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_strictly(module: nn.Module, tensors: dict[str, Tensor], origin: Path) -> Any:
    """Load, requiring the same names and shapes; then freeze and set to evaluation."""
    try:
        module.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{origin} does not belong to its configuration: {error}") from error
    return module.requires_grad_(False).eval()


def _half(value: Tensor) -> Tensor:
    return value.half() if value.is_floating_point() else value


def _float32(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value
