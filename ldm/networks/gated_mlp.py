"""A wide gated residual MLP over the whole of a small x0: the network that fits a latent grid fast.

What an image shows and where is decided at high noise, and there a network that reads all of x at
once needs a tenth of the arithmetic of a convolutional one. The modulation is that of DiT (arXiv
2212.09748, section 3.2, "adaLN"), the feed-forward layer that of GLU variants (Shazeer 2020, arXiv
2002.05202, section 2, SwiGLU).

Legend: b batch, k numbers of x0, w width, e width of the conditioning, n tokens of width d.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ldm.errors import ConfigError
from ldm.networks.attention import Backend
from ldm.networks.blocks import Conditions, CrossAttention, check_condition, check_row, zeroed
from ldm.networks.embeddings import TimeEmbedding


@dataclass(frozen=True, kw_only=True)
class GatedMlpConfig:
    """Sizes.

    Attributes:
        dim: k, numbers of x0 and of the answer.
        width: w, of the residual stream.
        hidden: of the gated layer inside a block.
        depth: blocks.
        cond_dim: e, of what time and vector are made into before they modulate a block.
        vector_dim: width of cond.vector; None: no such.
        context_dim: d, width of cond.tokens; None: no such.
        attention_blocks: the blocks (0 is the first) that attend to the tokens.
        attention_dim: width of all heads of such an attention together.
        head_dim: of one head.
        dropout: rate inside the gated layers, in training.
        attention: the kernel (see `ldm.networks.attention`).
    """

    dim: int
    width: int = 1024
    hidden: int = 1024
    depth: int = 5
    cond_dim: int = 512
    vector_dim: int | None = None
    context_dim: int | None = None
    attention_blocks: tuple[int, ...] = ()
    attention_dim: int = 512
    head_dim: int = 64
    dropout: float = 0.0
    attention: Backend = "auto"

    def __post_init__(self) -> None:
        for name in ("dim", "width", "hidden", "depth", "cond_dim", "attention_dim", "head_dim"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: give 1 or more")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout = {self.dropout}: a rate is at least 0 and below 1")
        if wrong := [i for i in self.attention_blocks if not 0 <= i < self.depth]:
            raise ConfigError(
                f"attention_blocks names {wrong}; the blocks are 0 to {self.depth - 1}"
            )
        if (self.context_dim is None) != (not self.attention_blocks):
            raise ConfigError(
                f"context_dim is {self.context_dim} and attention_blocks {self.attention_blocks}: "
                "give both, for a network that attends to tokens, or neither"
            )

    def build(self) -> GatedMlp:
        """The network, with fresh weights."""
        return GatedMlp(self)


class GatedBlock(nn.Module):
    """Attention to the tokens (optional), then a gated layer whose norm and output are modulated.

    forward: x `[b w]`, cond `[b e]`, context `[b n d]` or None -> `[b w]`.
    """

    def __init__(self, config: GatedMlpConfig, *, attends: bool) -> None:
        super().__init__()
        width, hidden = config.width, config.hidden
        self.attend: CrossAttention | None = None
        if attends and config.context_dim is not None:
            self.attend_norm = nn.LayerNorm(width)
            self.attend = CrossAttention(
                width,
                config.context_dim,
                head_dim=config.head_dim,
                inner=config.attention_dim,
                backend=config.attention,
            )
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(config.cond_dim, 3 * width)
        self.expand = nn.Linear(width, 2 * hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.shrink = zeroed(nn.Linear(hidden, width))

    def forward(
        self, x: Tensor, cond: Tensor, context: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        if self.attend is not None and context is not None:
            query = self.attend_norm(x)[:, None]  # one token: the whole of x
            x = x + self.attend(query, self.attend.keys_values(context), mask)[:, 0]
        shift, scale, gate = self.modulation(cond).chunk(3, dim=1)
        h = self.norm(x) * (1 + scale) + shift
        value, door = self.expand(h).chunk(2, dim=1)
        y: Tensor = x + (1 + gate) * self.shrink(self.dropout(value * F.silu(door)))
        return y


class GatedMlp(nn.Module):
    """forward: x `[b k]`, time `[b]` (about 0..1000), cond -> `[b k]`."""

    def __init__(self, config: GatedMlpConfig) -> None:
        super().__init__()
        self.config = config
        width, e = config.width, config.cond_dim
        self.time = TimeEmbedding(e)
        self.vector: nn.Module | None = None
        if config.vector_dim is not None:
            self.vector = nn.Sequential(
                nn.Linear(config.vector_dim, e), nn.SiLU(), nn.Linear(e, e)
            )
        self.stem = nn.Linear(config.dim, width)
        self.blocks = nn.ModuleList(
            GatedBlock(config, attends=i in config.attention_blocks) for i in range(config.depth)
        )
        self.norm = nn.LayerNorm(width)
        self.out = zeroed(nn.Linear(width, config.dim))

    def forward(self, x: Tensor, time: Tensor, cond: Conditions) -> Tensor:
        check_row(x, self.config.dim)
        check_condition("vector", cond.vector, 2, self.config.vector_dim)
        check_condition("tokens", cond.tokens, 3, self.config.context_dim)
        check_condition("concat", cond.concat, 4, None)
        embedding = self.time(time)
        if self.vector is not None:
            embedding = embedding + self.vector(cond.vector)
        embedding = F.silu(embedding)
        h = self.stem(x)
        for block in self.blocks:
            h = block(h, embedding, cond.tokens, cond.mask)
        y: Tensor = self.out(self.norm(h))
        return y
