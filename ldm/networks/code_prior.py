"""The autoregressive prior of unCLIP (arXiv 2204.06125, section 2.2): one code after the other.

Legend: b batch, n text tokens, k codes an embedding has, m codes already known, v buckets.

A causal transformer reads [text tokens, text embedding, how well the picture shall fit the text,
codes so far] and answers the distribution of each next code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.networks.blocks import Conditions, check_condition, zeroed
from ldm.networks.prior import PriorBlock, PriorConfig

# text embedding, fit
FIXED_TOKENS = 2


@dataclass(frozen=True, kw_only=True)
class CodePriorConfig:
    """trunk: sizes as the diffusion prior's; its embedding_dim is not used. num_codes: k;
    num_buckets: v; num_fits: levels of the dot product of picture and text."""

    trunk: PriorConfig
    num_codes: int
    num_buckets: int = 32
    num_fits: int = 8

    def build(self) -> CodePrior:
        """The network, with fresh weights."""
        return CodePrior(self)


class CodePrior(nn.Module):
    """forward: codes `[b m]` (m < k), fit `[b]`, cond -> logits `[b m+1 v]` of codes 0 to m."""

    def __init__(self, config: CodePriorConfig) -> None:
        super().__init__()
        self.config, trunk = config, config.trunk
        width = trunk.width
        self.from_tokens = nn.Linear(trunk.context_dim, width)
        self.from_vector = nn.Linear(trunk.vector_dim, width)
        self.fits = nn.Embedding(config.num_fits, width)
        self.codes = nn.Embedding(config.num_buckets, width)
        length = trunk.context_length + FIXED_TOKENS + config.num_codes - 1
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList(PriorBlock(trunk) for _ in range(trunk.depth))
        self.norm = nn.LayerNorm(width)
        self.out = zeroed(nn.Linear(width, config.num_buckets))

    def forward(self, codes: Tensor, fit: Tensor, cond: Conditions) -> Tensor:
        trunk = self.config.trunk
        check_condition("vector", cond.vector, 2, trunk.vector_dim)
        check_condition("tokens", cond.tokens, 3, trunk.context_dim)
        assert cond.tokens is not None and cond.vector is not None
        if cond.tokens.shape[1] != trunk.context_length or codes.shape[1] >= self.config.num_codes:
            raise ValueError(
                f"this prior reads {trunk.context_length} text tokens and fewer than "
                f"{self.config.num_codes} codes, not {cond.tokens.shape[1]} and {codes.shape[1]}"
            )
        # a CLIP embedding has unit norm, i.e. tiny entries: bring them to unit size
        vector = self.from_vector(F.rms_norm(cond.vector, cond.vector.shape[-1:]))
        fixed = torch.stack([vector, self.fits(fit)], dim=1)
        h = torch.cat([self.from_tokens(cond.tokens), fixed, self.codes(codes)], dim=1)
        h = h + self.positions[: h.shape[1]]
        for block in self.blocks:
            h = block(h, None)
        y: Tensor = self.out(self.norm(h[:, -codes.shape[1] - 1 :]))
        return y
