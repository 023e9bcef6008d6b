"""Autoencoders for latent diffusion; they know nothing of diffusion and import nothing of it."""

from autoencoder.config import AutoencoderConfig
from autoencoder.discriminator import DiscriminatorConfig, PatchDiscriminator
from autoencoder.latents import Latents, measure_latents
from autoencoder.linear import fit_linear
from autoencoder.losses import ReconstructionLoss, ReconstructionLossConfig
from autoencoder.perceptual import EfficientNetLite0Features, Lpips, Perceptual
from autoencoder.posterior import DiagonalGaussian
from autoencoder.quantiser import Quantised, Quantiser, usage
from autoencoder.task import AutoencoderTask, AutoencoderTraining
from autoencoder.vae import AutoencoderKL
from autoencoder.vq import AutoencoderVQ, VQConfig
from autoencoder.vq_task import VQTask, VQTraining

__all__ = [
    "AutoencoderConfig",
    "AutoencoderKL",
    "AutoencoderTask",
    "AutoencoderTraining",
    "AutoencoderVQ",
    "DiagonalGaussian",
    "DiscriminatorConfig",
    "EfficientNetLite0Features",
    "Latents",
    "Lpips",
    "PatchDiscriminator",
    "Perceptual",
    "Quantised",
    "Quantiser",
    "ReconstructionLoss",
    "ReconstructionLossConfig",
    "VQConfig",
    "VQTask",
    "VQTraining",
    "fit_linear",
    "measure_latents",
    "usage",
]
