"""How weights are stored: in half precision, or matrices as bytes with one scale a row.

    float16   2 bytes a number
    int8      matrices and kernels (two axes or more): 1 byte a number and one float32 scale for
              each row, w = scale * n with n = -127..127 and scale = max |w| / 127 of the row;
              float16 for all else

m rows; ... the other axes of a weight
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from ldm.errors import CheckpointError, ConfigError

Precision = Literal["float16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float16", "int8")
SCALE = ".int8_scale"
LARGEST = 127


def pack(weights: Mapping[str, Tensor], precision: Precision) -> dict[str, Tensor]:
    """Weights as they go into a file; `unpack` is the inverse, up to rounding."""
    if precision not in PRECISIONS:
        raise ConfigError(f"weights are stored as {' or '.join(PRECISIONS)}, not {precision!r}")
    packed: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if precision == "int8" and weight.ndim >= 2:
            packed[name], packed[name + SCALE] = _to_int8(weight.float())
        else:
            packed[name] = weight.half().contiguous()
    return packed


def unpack(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a file in float32.

    Raises:
        CheckpointError: a matrix of bytes without its scales, or with too few or too many.
    """
    weights = {}
    for name, tensor in stored.items():
        if name.endswith(SCALE):
            continue
        if tensor.dtype != torch.int8:
            weights[name] = tensor.float()
            continue
        scale = stored.get(name + SCALE)
        if scale is None or scale.shape != tensor.shape[:1]:
            given = "none" if scale is None else list(scale.shape)
            raise CheckpointError(
                f"{name} is stored as bytes {list(tensor.shape)} and needs {tensor.shape[0]} "
                f"scales in {name + SCALE}; found {given}"
            )
        weights[name] = tensor.float() * _beside(scale, tensor)
    return weights


def _to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[m ...] -> bytes [m ...] and scales [m]; a row of zeros has the scale 1."""
    largest = weight.flatten(1).abs().amax(dim=1)
    scale = torch.where(largest > 0, largest / LARGEST, 1.0)
    return (weight / _beside(scale, weight)).round().to(torch.int8), scale


def _beside(scale: Tensor, weight: Tensor) -> Tensor:
    """[m] -> [m 1 ...], as many axes as the weight has."""
    return scale.view(-1, *[1] * (weight.ndim - 1))
