"""CLIP's text transformer alone, so that sampling need not import open_clip.

Radford et al. 2021 (arXiv 2103.00020), section 2.4. Modules and tensors are named as in
open_clip's `CLIP` class: the same safetensors file loads into both, and a test holds the two equal.

b batch; n tokens; d width; h heads; e embedding
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TextTowerConfig:
    """Sizes of the text tower; the field names are open_clip's `text_cfg`."""

    context_length: int = 32
    vocab_size: int = 8192
    width: int = 256
    heads: int = 4
    layers: int = 4

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError(f"width {self.width} is not a multiple of heads {self.heads}")
        if not 514 <= self.vocab_size <= 49408:
            raise ConfigError(f"vocab_size is {self.vocab_size}; allowed: 514 to 49408")


_TEXT_KEYS = {"context_length", "vocab_size", "width", "heads", "layers"}
_MODEL_KEYS = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}
_TENSORS = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.")


def is_plain(model_cfg: Mapping[str, Any]) -> bool:
    """Whether `TextTower` is exactly the text tower of this open_clip configuration."""
    return set(model_cfg) <= _MODEL_KEYS and set(model_cfg["text_cfg"]) <= _TEXT_KEYS


def is_text_tensor(name: str) -> bool:
    """Whether a tensor of an open_clip `CLIP` file belongs to its text tower."""
    return name.startswith(_TENSORS) or name == "text_projection"


class TextTower(nn.Module):
    """Token ids to features.

    Args:
        config: sizes.
        embed_dim: e.
        quick_gelu: OpenAI's x·sigmoid(1.702 x) in place of GELU.
    """

    def __init__(
        self, config: TextTowerConfig, *, embed_dim: int, quick_gelu: bool = False
    ) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.positional_embedding = nn.Parameter(torch.zeros(config.context_length, config.width))
        self.transformer = _Transformer(config, quick_gelu)
        self.ln_final = nn.LayerNorm(config.width)
        self.text_projection = nn.Parameter(torch.zeros(config.width, embed_dim))

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Features after ln_final `[b n d]`, pooled at the end token `[b e]` (not normalised).

        Args:
            ids: `[b n]`; n may be shorter than the context, since attention is causal.
        """
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        for block in self.transformer.resblocks:
            x = block(x)
        tokens = self.ln_final(x)
        # The end token has the largest id of all.
        pooled = tokens[torch.arange(len(ids), device=ids.device), ids.argmax(-1)]
        return tokens, pooled @ self.text_projection


class _Transformer(nn.Module):
    def __init__(self, config: TextTowerConfig, quick_gelu: bool) -> None:
        super().__init__()
        blocks = (_Block(config.width, config.heads, quick_gelu) for _ in range(config.layers))
        self.resblocks = nn.ModuleList(blocks)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, quick_gelu: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = _CausalAttention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)}
        )
        self.quick_gelu = quick_gelu

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        hidden = self.mlp["c_fc"](self.ln_2(x))
        hidden = hidden * torch.sigmoid(1.702 * hidden) if self.quick_gelu else F.gelu(hidden)
        return x + self.mlp["c_proj"](hidden)


class _CausalAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=self.heads)
        x = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(rearrange(x, "b h n d -> b n (h d)"))
