"""The shipped autoencoder: 128 px emoji to 8 x 8 x 32 latents."""

from __future__ import annotations

from autoencoder import AutoencoderConfig, ReconstructionLossConfig
from ldm.data.shards import ShardConfig
from ldm.recipe import Recipe
from ldm.tasks import AutoencoderTraining
from ldm.training import LoopConfig, OptimConfig


def recipe() -> Recipe:
    """Train split of the emoji shards (scripts/make_shards.py --emoji)."""
    return Recipe(
        task=AutoencoderTraining(
            autoencoder=AutoencoderConfig(
                block_out_channels=(128, 256),
                layers_per_block=1,
                latent_channels=32,
                patch_size=8,
                sample_size=128,
            ),
            loss=ReconstructionLossConfig(
                gradients=1.0, perceptual=0.5, perceptual_crop=64, kl=2e-3
            ),
        ),
        data=ShardConfig(
            sources=("data/emoji/train",), batch_size=32, fields=("image",), workers=1
        ),
        optim=OptimConfig(lr=4e-4, warmup_images=5_000, weight_decay=0.0),
        loop=LoopConfig(images=80_000, ema_half_life=2_000),
    )
