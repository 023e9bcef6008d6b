"""The shipped prior: from a caption to the CLIP embedding of its picture."""

from __future__ import annotations

from ldm.conditioning import TextConditionerConfig
from ldm.data.groups import ShardConfig
from ldm.diffusion.objective import Mse
from ldm.diffusion.prediction import X0
from ldm.diffusion.process import VPCosine
from ldm.diffusion.times import Uniform
from ldm.networks.prior import PriorConfig
from ldm.recipe import Recipe
from ldm.stage import EmbeddingCodec, StageConfig
from ldm.tasks import StageTraining
from ldm.training import LoopConfig, OptimConfig


def recipe() -> Recipe:
    """Encoded shards (scripts/encode_shards.py), three images without a skin tone for one with."""
    return Recipe(
        task=StageTraining(
            stage=StageConfig(
                codec=EmbeddingCodec(width=192),
                conditioner=TextConditionerConfig(text_dim=192, embed_dim=192, context_length=32),
                network=PriorConfig(
                    embedding_dim=192,
                    vector_dim=192,
                    context_dim=192,
                    context_length=32,
                    width=192,
                    depth=4,
                    head_dim=64,
                ),
                process=VPCosine(),
                prediction=X0(),
                objective=Mse(times=Uniform()),
            ),
            clip="runs/model/clip",
            shape=(192,),
        ),
        data=ShardConfig(
            sources=("data/encoded/plain",) * 3 + ("data/encoded/toned",),
            batch_size=128,
            fields=("image_embedding", "caption"),
            workers=1,
        ),
        optim=OptimConfig(lr=1.5e-3, weight_decay=0.03, warmup_images=10_000),
        loop=LoopConfig(images=260_000, ema_half_life=10_000),
        result="before captions were widened and images without a skin tone came more often: "
        "49 minutes on one CPU core (float32), loss 0.264: cosine 0.791 to the true "
        "embedding of 256 held-out pairs, best of 2 (scripts/evaluate.py --only prior)",
    )
