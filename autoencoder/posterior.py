"""The Gaussian that an encoder gives for each picture.

Shapes: b batch, c latent channels, h w latent grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

LOGVAR_MIN, LOGVAR_MAX = -30.0, 20.0


class DiagonalGaussian:
    """q(z|x) = N(mean, exp(logvar)), independent in every latent value.

    Latent diffusion (arXiv 2112.10752), section 3.1 and appendix G. Everything is float32 whatever
    the precision of the encoder, because the KL term loses most of its digits in half precision.

    Args:
        moments: [b 2c h w]; the first c channels are the mean, the others log sigma^2 in nats,
            which is clamped to [-30, 20] so that neither the variance nor its inverse overflows.
    """

    def __init__(self, moments: Tensor) -> None:
        if moments.ndim != 4 or moments.shape[1] % 2:
            raise ValueError(
                f"moments must be [b 2c h w] (mean, then log-variance), got {tuple(moments.shape)}"
            )
        self.mean, logvar = moments.float().chunk(2, dim=1)  # [b c h w] each
        self.logvar = logvar.clamp(LOGVAR_MIN, LOGVAR_MAX)

    @property
    def moments(self) -> Tensor:
        """[b 2c h w]: mean, then the clamped log-variance; all that is needed to draw again."""
        return torch.cat((self.mean, self.logvar), dim=1)

    @property
    def std(self) -> Tensor:
        """[b c h w]: standard deviation."""
        return (0.5 * self.logvar).exp()

    def mode(self) -> Tensor:
        """[b c h w]: the most likely latent, which is the mean."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """z = mean + std * eps, eps ~ N(0, I): [b c h w], differentiable in mean and std.

        The noise is drawn on the generator's device, so that a CPU generator gives the same
        latents on every device.
        """
        device = self.mean.device if generator is None else generator.device
        eps = torch.randn(self.mean.shape, generator=generator, device=device)
        return self.mean + self.std * eps.to(self.mean.device)

    def kl(self) -> Tensor:
        """KL(q || N(0, I)) = 1/2 sum(mean^2 + var - 1 - logvar) over c h w: [b], in nats."""
        terms = self.mean.square() + self.logvar.exp() - 1.0 - self.logvar
        return 0.5 * terms.sum(dim=(1, 2, 3))
