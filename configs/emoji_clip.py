"""The shipped CLIP: 64 px pictures, 32 tokens, 256-wide embeddings."""

from __future__ import annotations

from ldm.data import ShardConfig
from ldm.recipe import Recipe
from ldm.tasks import ClipTraining
from ldm.training import LoopConfig, OptimConfig


def recipe() -> Recipe:
    """Train split of the emoji shards (scripts/make_shards.py --emoji)."""
    return Recipe(
        task=ClipTraining(),
        data=ShardConfig(sources=("data/emoji/train",), batch_size=256, workers=1, cache=True),
        optim=OptimConfig(lr=1e-3, betas=(0.9, 0.98), weight_decay=0.1, warmup_images=20_000),
        loop=LoopConfig(images=120_000, ema_half_life=5_000),
    )
