"""The shipped autoencoder: 256 px emoji to 8 x 8 x 16 latents, most of whose directions are unused.

The weight of the KL term decides how many principal directions of the latents carry information;
the decoder of `configs/emoji_decoder.py` diffuses those alone.
"""

from __future__ import annotations

from autoencoder import AutoencoderConfig, AutoencoderTraining, ReconstructionLossConfig
from ldm.data.groups import ShardConfig
from ldm.recipe import Recipe
from ldm.training import LoopConfig, OptimConfig


def recipe() -> Recipe:
    """Train split of the emoji shards, three images without a skin tone for one with."""
    return Recipe(
        task=AutoencoderTraining(
            autoencoder=AutoencoderConfig(
                block_out_channels=(96, 160, 192),
                layers_per_block=1,
                latent_channels=16,
                norm_num_groups=8,
                patch_size=8,
                sample_size=256,
            ),
            loss=ReconstructionLossConfig(gradients=0.5, perceptual=0.0, kl=4.0),
            pooled_spread=True,
        ),
        data=ShardConfig(
            sources=("data/emoji/plain",) * 3 + ("data/emoji/toned",),
            batch_size=16,
            fields=("image",),
            workers=1,
        ),
        optim=OptimConfig(
            method="muon", lr=3e-3, warmup_images=1_000, weight_decay=0.0, decay="linear"
        ),
        loop=LoopConfig(images=22_000, ema_half_life=2_000, save_every=2_000, log_every=480),
        result="28 minutes on two CPU cores (bf16) for 22,000 images, the first 10,000 of them at "
        "the learning rates of a run of 36,000: see ldm/weights/emoji/README.md for the figures",
    )
