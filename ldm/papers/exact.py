"""The exact denoiser and density of a Gaussian mixture under any process: no training.

x [b ... d] may hold a cloud of points in each item, so that one seed and one step size serve a
whole cloud. b batch; d dimensions; k components
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.data.toys import Mixture
from ldm.diffusion.prediction import Denoised
from ldm.diffusion.process import Process, per_item


@dataclass(frozen=True)
class Exact:
    """`data` noised by `process`: component k is N(alpha m_k, alpha^2 std^2 + sigma^2)."""

    data: Mixture
    process: Process

    def __call__(self, x: Tensor, t: Tensor) -> Denoised:
        """The posterior means of x0 and eps: x [b ... d], t [b] -> [b ... d] each."""
        alpha, sigma = self.process.at(t, x)
        variance, gap = self._components(x, t)
        share = self._joint(x, t).softmax(-1)[..., None]  # [b ... k 1]
        pull = (share * gap).sum(-2) / variance  # -score
        means = (share * x.new_tensor(self.data.means)).sum(-2)
        return Denoised(
            means + alpha * self.data.std**2 * pull,
            sigma * pull,
        )

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """grad log p_t: x [b ... d], t [b] -> [b ... d]."""
        return -self(x, t).eps / self.process.at(t, x).sigma

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """log p_t(x) in nats: x [b ... d], t [b] -> [b ...]."""
        return self._joint(x, t).logsumexp(-1)

    def _components(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Variance [b ... 1] of each component, and the way [b ... k d] from each mean to x."""
        alpha, sigma = self.process.at(t, x)
        means = per_item(alpha.flatten(), x[..., None]) * x.new_tensor(self.data.means)
        return (alpha * self.data.std).square() + sigma.square(), x[..., None, :] - means

    def _joint(self, x: Tensor, t: Tensor) -> Tensor:
        """log weight_k + log N_k(x): [b ... k]."""
        variance, gap = self._components(x, t)
        size = gap.square().sum(-1) / variance + x.shape[-1] * torch.log(2 * math.pi * variance)
        return x.new_tensor(self.data.weights).log() - size / 2
