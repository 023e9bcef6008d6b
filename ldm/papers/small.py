"""Networks of minutes: for 8 x 8 or 28 x 28 grey digits and for points in a few dimensions."""

from __future__ import annotations

import dataclasses
from typing import Any

from ldm.networks.mlp import MlpConfig
from ldm.networks.unet import UNetConfig


def digit_unet(**changes: Any) -> UNetConfig:
    """About 0.5 M parameters for one-channel pictures whose side can be halved once."""
    plain = UNetConfig(
        in_channels=1,
        out_channels=1,
        channels=(32, 64),
        blocks_per_level=1,
        attention_levels=(1,),
        head_dim=32,
        resample="conv",
        norm_groups=8,
    )
    return dataclasses.replace(plain, **changes)


def toy_mlp(dim: int = 2, **changes: Any) -> MlpConfig:
    """About 0.2 M parameters for points."""
    return dataclasses.replace(MlpConfig(dim=dim, out_dim=dim, width=128, depth=3), **changes)
