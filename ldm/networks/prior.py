"""The prior of unCLIP (arXiv 2204.06125, section 2.2): from a text to a CLIP image embedding.

Legend: b batch, n text tokens, d width of the text features, e width of the image embedding.

A causal transformer reads [text tokens, text embedding, time, noised image embedding, query]; what
it answers at the learned final query is the prediction. The network does not know whether that is
x0 (as in the paper) or anything else.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.networks.attention import Backend
from ldm.networks.blocks import Conditions, FeedForward, SelfAttention, check_condition, zeroed
from ldm.networks.embeddings import TimeEmbedding

# text embedding, time, noised image embedding, query
FIXED_TOKENS = 4


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """Sizes of a prior.

    embedding_dim: width of x and of the answer; vector_dim: width of cond.vector, the text
    embedding; context_dim: width of cond.tokens; context_length: the most tokens that they may
    have; width: of the transformer, a multiple of head_dim.
    """

    embedding_dim: int
    vector_dim: int
    context_dim: int
    context_length: int
    width: int = 256
    depth: int = 6
    head_dim: int = 64
    ff_mult: int = 4
    dropout: float = 0.0
    attention: Backend = "auto"

    def build(self) -> PriorTransformer:
        """The network, with fresh weights."""
        return PriorTransformer(self)


class PriorBlock(nn.Module):
    """Causal self-attention and feed-forward, each normed before. `[b n c]` -> `[b n c]`."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        width = config.width
        self.norm_attention = nn.LayerNorm(width)
        self.attention = SelfAttention(
            width, head_dim=config.head_dim, causal=True, backend=config.attention
        )
        self.norm_ff = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, config.ff_mult, dropout=config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.dropout(self.attention(self.norm_attention(x), mask))
        y: Tensor = x + self.dropout(self.feed_forward(self.norm_ff(x)))
        return y


class PriorTransformer(nn.Module):
    """forward: x `[b e]` noised embedding, time `[b]` (about 0..1000), cond -> `[b e]`.

    cond.tokens `[b n d]` with cond.mask bool `[b n]` (True = real token; None: all are), and
    cond.vector `[b d]` the text embedding, of any scale: its direction alone is used.
    Text tokens have positions from the left and the last four have their own, so that the number
    of tokens does not matter as long as it is at most context_length.
    """

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.from_tokens = nn.Linear(config.context_dim, width)
        self.from_vector = nn.Linear(config.vector_dim, width)
        self.time = TimeEmbedding(width)
        self.from_x = nn.Linear(config.embedding_dim, width)
        self.query = nn.Parameter(0.02 * torch.randn(width))
        self.positions = nn.Parameter(
            0.02 * torch.randn(config.context_length + FIXED_TOKENS, width)
        )
        self.blocks = nn.ModuleList(PriorBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.out = zeroed(nn.Linear(width, config.embedding_dim))

    def forward(self, x: Tensor, time: Tensor, cond: Conditions) -> Tensor:
        self._check(x, cond)
        assert cond.tokens is not None and cond.vector is not None
        h, mask = self.sequence(x, time, cond.tokens, cond.vector), None
        if cond.mask is not None:
            mask = F.pad(cond.mask, (0, FIXED_TOKENS), value=True)
        for block in self.blocks:
            h = block(h, mask)
        y: Tensor = self.out(self.norm(h[:, -1]))
        return y

    def sequence(self, x: Tensor, time: Tensor, tokens: Tensor, vector: Tensor) -> Tensor:
        """All inputs as tokens with their positions, `[b n+4 c]`, the query last."""
        b, n, _ = tokens.shape
        fixed = torch.stack(
            [
                # a CLIP embedding has unit norm, i.e. tiny entries: bring them to unit size
                self.from_vector(F.rms_norm(vector, vector.shape[-1:])),
                self.time(time),
                self.from_x(x),
                self.query.expand(b, -1),
            ],
            dim=1,
        )
        positions = torch.cat([self.positions[:n], self.positions[-FIXED_TOKENS:]])
        return torch.cat([self.from_tokens(tokens), fixed], dim=1) + positions

    def _check(self, x: Tensor, cond: Conditions) -> None:
        if x.ndim != 2 or x.shape[1] != self.config.embedding_dim:
            raise ValueError(
                f"this prior takes x [b {self.config.embedding_dim}], not {tuple(x.shape)}; "
                "embedding_dim of its configuration decides"
            )
        check_condition("vector", cond.vector, 2, self.config.vector_dim)
        check_condition("tokens", cond.tokens, 3, self.config.context_dim)
        check_condition("concat", cond.concat, 4, None)
        assert cond.tokens is not None
        if cond.tokens.shape[1] > self.config.context_length:
            raise ValueError(
                f"{cond.tokens.shape[1]} text tokens, and this prior was made for at most "
                f"{self.config.context_length}: cut the text, or make it with a larger "
                "context_length"
            )
