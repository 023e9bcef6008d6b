"""The shipped autoencoder: 128 px emoji to 8 x 8 x 32 latents.

The linear path is fitted at the start and holds the encoder from then on, so that latents can be
encoded at once; training then teaches the decoder to remove seams and to forgive noise.
"""

from __future__ import annotations

from autoencoder import AutoencoderConfig, AutoencoderTraining, ReconstructionLossConfig
from ldm.data.groups import ShardConfig
from ldm.recipe import Recipe
from ldm.training import LoopConfig, OptimConfig


def recipe() -> Recipe:
    """Train split of the emoji shards (scripts/make_shards.py --emoji)."""
    return Recipe(
        task=AutoencoderTraining(
            autoencoder=AutoencoderConfig(
                block_out_channels=(64, 128),
                layers_per_block=1,
                latent_channels=32,
                norm_num_groups=8,
                patch_size=8,
                sample_size=128,
                linear_path=True,
            ),
            loss=ReconstructionLossConfig(perceptual=0.1, perceptual_crop=64, kl=0.0),
            pooled_spread=True,
            decoder_only=True,
            latent_noise=0.15,
        ),
        data=ShardConfig(sources=("data/emoji/train",), batch_size=8, fields=("image",), workers=1),
        optim=OptimConfig(lr=1e-3, warmup_images=1_000, weight_decay=0.0),
        loop=LoopConfig(images=30_000, ema_half_life=1_000),
        result="loop.images=9000, 6 minutes on two CPU cores (float32): 22.6 dB on 1,542 "
        "held-out pictures (scripts/evaluate.py --only reconstruction)",
    )
