"""A whole model of four tiny parts with random weights, as a folder: what tests draw from."""

from __future__ import annotations

from pathlib import Path

import torch

from autoencoder import AutoencoderConfig, AutoencoderKL, Latents
from ldm import codec
from ldm.conditioning import TextConditionerConfig, TextTowerConfig, UnclipConditionerConfig
from ldm.conditioning.clip import Clip
from ldm.conditioning.clip_training import ClipTask, ClipTaskConfig
from ldm.diffusion.objective import Mse
from ldm.diffusion.prediction import X0, Flow
from ldm.diffusion.process import LinearFlow, VPCosine
from ldm.export import finish
from ldm.networks.prior import PriorConfig
from ldm.networks.unet import UNetConfig
from ldm.samplers import Sampler
from ldm.stage import EmbeddingCodec, LatentCodec, Stage, StageConfig

WIDTH = 32

CLIP = ClipTaskConfig(
    embed_dim=WIDTH,
    image_size=32,
    patch_size=16,
    vision_width=32,
    vision_layers=1,
    vision_head_width=16,
    text=TextTowerConfig(context_length=16, vocab_size=600, width=32, heads=2, layers=1),
)

AUTOENCODER = AutoencoderConfig(
    block_out_channels=(16, 16),
    norm_num_groups=4,
    latent_channels=4,
    patch_size=4,
    sample_size=32,
    latents_mean=(0.0,) * 4,
    latents_std=(1.0,) * 4,
)

PRIOR = StageConfig(
    codec=EmbeddingCodec(width=WIDTH),
    conditioner=TextConditionerConfig(text_dim=32, embed_dim=WIDTH, context_length=16),
    network=PriorConfig(
        embedding_dim=WIDTH,
        vector_dim=WIDTH,
        context_dim=32,
        context_length=16,
        width=32,
        depth=1,
        head_dim=16,
    ),
    process=VPCosine(),
    prediction=X0(),
    objective=Mse(),
)

DECODER = StageConfig(
    codec=LatentCodec(),
    conditioner=UnclipConditionerConfig(
        embed_dim=WIDTH, text_dim=32, context_length=16, context_dim=32
    ),
    network=UNetConfig(
        in_channels=4,
        out_channels=4,
        channels=(32, 32),
        blocks_per_level=1,
        attention_levels=(1,),
        cross_attention_levels=(1,),
        head_dim=16,
        context_dim=32,
        vector_dim=WIDTH,
        norm_groups=8,
    ),
    process=LinearFlow(),
    prediction=Flow(),
    objective=Mse(),
    multiple=2,
)


def stir(stage: Stage) -> Stage:
    """Give zero-initialised outputs small random weights, so that every input has an effect."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return stage


def write_model(folder: Path) -> Path:
    """The four parts and their index; the model draws 32 px pictures."""
    torch.manual_seed(0)
    AutoencoderKL(AUTOENCODER).save_pretrained(folder / "autoencoder")
    ClipTask(CLIP).save(folder / "clip")
    autoencoder = AutoencoderKL.from_pretrained(folder / "autoencoder")
    parts = {
        "autoencoder": autoencoder.fingerprint(),
        "clip": Clip.load(folder / "clip").fingerprint(),
    }
    stir(PRIOR.build()).save_pretrained(folder / "prior", {"clip": parts["clip"]})
    latents = codec.Latents(Latents(autoencoder))
    stir(DECODER.build(latents)).save_pretrained(folder / "decoder", parts)
    finish(folder, 32, Sampler(steps=3, guidance=1.5), Sampler(steps=4, guidance=2.0))
    return folder
