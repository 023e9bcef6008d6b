"""The reconstruction objective of the autoencoder.

Latent diffusion (arXiv 2112.10752), equation 25 without the adversarial part (see discriminator).
Shapes: b batch, c latent channels, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoencoder.perceptual import Perceptual
from autoencoder.posterior import DiagonalGaussian


@dataclass(frozen=True, kw_only=True)
class ReconstructionLossConfig:
    """Weights of the terms of `ReconstructionLoss`; 0 leaves a term out.

    Attributes:
        gradients: weight of the L1 of finite differences, which keeps outlines sharp.
        perceptual: weight of the feature distance.
        perceptual_crop: side in pixels of the random crop that the feature distance sees, one
            place for the whole batch and drawn anew each time; None is the whole picture.
        kl: weight of KL / (H * W): nats for each pixel of the picture, so that a value keeps its
            meaning when the size of pictures or latents changes.
        learned_logvar: divide the reconstruction by a learned variance, as latent diffusion does.
    """

    gradients: float = 1.0
    perceptual: float = 0.5
    perceptual_crop: int | None = None
    kl: float = 1e-3
    learned_logvar: bool = False

    def __post_init__(self) -> None:
        for name in ("gradients", "perceptual", "kl"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be 0 (off) or more")
        if self.perceptual_crop is not None and self.perceptual_crop < 1:
            raise ValueError(f"perceptual_crop = {self.perceptual_crop} must be 1 pixel or more")


class ReconstructionLoss(nn.Module):
    """rec = L1 + w_g * L1 of differences + w_p * perceptual; loss = rec + w_kl * KL / (H W).

    With `learned_logvar` a scalar s, a parameter of this module that the optimiser must be given,
    takes part: loss = rec * exp(-s) + s + w_kl * KL / (H W), the likelihood of a Laplace density
    of scale exp(s) a value, up to a constant.
    """

    def __init__(
        self, config: ReconstructionLossConfig, perceptual: Perceptual | None = None
    ) -> None:
        super().__init__()
        if config.perceptual and perceptual is None:
            raise ValueError(
                f"the weight of the perceptual term is {config.perceptual} but no distance was "
                "given: pass perceptual=EfficientNetLite0Features(), or set the weight to 0"
            )
        self.config = config
        self.perceptual = perceptual if config.perceptual else None
        self.logvar = nn.Parameter(torch.zeros(())) if config.learned_logvar else None

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        posterior: DiagonalGaussian,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Compare the reconstruction y with the picture x, both [b 3 H W] in [-1, 1].

        Returns:
            Terms [b], all before their weights but the first two. `loss`: what is minimised.
            `rec`: weighted sum of the next three. `l1`: mean |x - y| over channels and pixels.
            `gradients`: mean |dx| + mean |dy| of the finite differences of x - y.
            `perceptual`: the feature distance. `kl`: nats for the whole latent. `mse`: mean
            (x - y)^2, for PSNR = 10 log10(4 / mse); not minimised.
        """
        terms = self.compare(x, y, generator)
        rec = terms.pop("rec")
        terms["kl"] = posterior.kl()
        nll = rec if self.logvar is None else rec * (-self.logvar).exp() + self.logvar
        loss = nll + self.config.kl * terms["kl"] / (x.shape[2] * x.shape[3])
        return {"loss": loss, "rec": rec, **{k: v.detach() for k, v in terms.items()}}

    def compare(
        self, x: Tensor, y: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """`rec` and its parts, as in `forward`, for an autoencoder of any kind."""
        config, error = self.config, (y.float() - x.float())
        terms = {"l1": error.abs().mean(dim=(1, 2, 3)), "mse": error.square().mean(dim=(1, 2, 3))}
        rec = terms["l1"]
        if config.gradients:
            terms["gradients"] = difference_l1(error)
            rec = rec + config.gradients * terms["gradients"]
        if self.perceptual is not None:
            a, b = _same_crop(y, x, config.perceptual_crop, generator)
            terms["perceptual"] = self.perceptual(a, b)
            rec = rec + config.perceptual * terms["perceptual"]
        return {**terms, "rec": rec}


def difference_l1(error: Tensor) -> Tensor:
    """[b c H W] -> [b]: mean |e[i+1] - e[i]| along rows plus the same along columns."""
    along_w = (error[..., 1:] - error[..., :-1]).abs().mean(dim=(1, 2, 3))
    along_h = (error[..., 1:, :] - error[..., :-1, :]).abs().mean(dim=(1, 2, 3))
    return along_w + along_h


def _same_crop(
    x: Tensor, y: Tensor, side: int | None, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """The same random square of x and y, [b c H W] -> [b c side side]."""
    height, width = x.shape[2:]
    if side is None or (side >= height and side >= width):
        return x, y
    side_h, side_w = min(side, height), min(side, width)
    device = generator.device if generator is not None else "cpu"
    i, j = (
        int(torch.randint(n, (), generator=generator, device=device))
        for n in (height - side_h + 1, width - side_w + 1)
    )
    window = (..., slice(i, i + side_h), slice(j, j + side_w))
    return x[window], y[window]
