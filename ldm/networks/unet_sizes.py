"""ADM's published U-Nets (arXiv 2105.05233, table 4; the released flags of guided-diffusion).

Attention is at 32x32, 16x16 and 8x8, heads have 64 channels, the resampling is BigGAN's, and the
output has six channels: the prediction and the variance. With `vector_dim=None` the counts are the
published ones less the table of 1000 classes, which is the conditioner's here.
"""

from __future__ import annotations

from typing import Literal

from ldm.networks.unet import UNetConfig

AdmSize = Literal[64, 128, 256, 512]

# width of each level, residual blocks a level, base width (the time embedding is four of it)
ADM_SIZES: dict[int, tuple[tuple[int, ...], int, int]] = {
    64: ((192, 384, 576, 768), 3, 192),
    128: ((256, 256, 512, 768, 1024), 2, 256),
    256: ((256, 256, 512, 512, 1024, 1024), 2, 256),
    512: ((128, 256, 256, 512, 512, 1024, 1024), 2, 256),
}


def adm_config(size: AdmSize, *, vector_dim: int | None = None) -> UNetConfig:
    """The ADM network for pictures of this side."""
    if size not in ADM_SIZES:
        raise ValueError(f"no ADM network for {size} pixels; there are {list(ADM_SIZES)}")
    channels, blocks, base = ADM_SIZES[size]
    grids = [size >> level for level in range(len(channels))]
    return UNetConfig(
        in_channels=3,
        out_channels=6,
        channels=channels,
        blocks_per_level=blocks,
        attention_levels=tuple(level for level, grid in enumerate(grids) if grid in (32, 16, 8)),
        vector_dim=vector_dim,
        time_dim=4 * base,
        dropout=0.1 if size == 64 else 0.0,
    )
