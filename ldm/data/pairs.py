"""Pairs of data and the noise that a trained flow carries to them: what reflow learns from.

n pairs; c channels
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ldm.data.arrays import ArrayStream
from ldm.data.batch import Batch
from ldm.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pairs from a file of `write_pairs`; a sample's `point` is x0 and noise, [2c ...]."""

    path: str
    batch_size: int = 128
    seed: int = 0

    def open(self) -> ArrayStream:
        """The stream.

        Raises:
            DataError: there is no such file, or it holds something else.
        """
        try:
            found = load_file(self.path)
            both = torch.cat([found["x0"], found["noise"]], dim=1)
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise DataError(
                f"{self.path} holds no pairs ({error}); draw them from a trained flow and keep "
                "them with ldm.data.pairs.write_pairs"
            ) from error
        keys = tuple(f"{i:06d}" for i in range(len(both)))
        whole = Batch(key=keys, point=both)
        return ArrayStream(whole, batch_size=self.batch_size, seed=self.seed)


def write_pairs(path: Path, x0: Tensor, noise: Tensor) -> None:
    """Keep data x0 [n c ...] with the standard normal [n c ...] from which each was drawn."""
    if x0.shape != noise.shape:
        raise DataError(f"x0 {list(x0.shape)} and noise {list(noise.shape)} differ in shape")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"x0": x0.contiguous(), "noise": noise.contiguous()}, path)
