"""Captions read by a transformer of the model's own, trained with it: GLIDE's conditioning.

Nichol et al. 2021 (arXiv 2112.10741) section 2.1: the transformer's answer at the last token is
added to the time, and all its tokens are attended to. A dropped caption is the empty one, and
padding is a learned token at each place.

b batch; n tokens; d width of a token; e width of the vector
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from ldm.conditioning.clip import real_tokens
from ldm.conditioning.cond import Cond
from ldm.conditioning.sources import Conditioner, check_rate, null_parameter
from ldm.conditioning.text_tower import TextTower, TextTowerConfig
from ldm.conditioning.tokenizer import BpeTokenizer
from ldm.data.batch import Batch


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """text: sizes of the transformer; dim: e; drop: rate at which captions are emptied."""

    text: TextTowerConfig = field(default_factory=TextTowerConfig)
    dim: int = 256
    drop: float = 0.2

    def __post_init__(self) -> None:
        check_rate("drop", self.drop)

    def build(self) -> Caption:
        return Caption(self)


class Caption(Conditioner):
    """`batch.caption` -> vector `[b e]` and tokens `[b n d]`."""

    def __init__(self, config: CaptionConfig) -> None:
        super().__init__()
        self.config, text = config, config.text
        self.tokenizer = BpeTokenizer(
            vocab_size=text.vocab_size, context_length=text.context_length
        )
        self.tower = fresh_tower(text, config.dim)
        self.padding = null_parameter(text.context_length, text.width)

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Cond:
        texts = batch.caption or ("",) * len(batch)
        if generator is not None:
            draws = torch.rand(len(texts), generator=generator, device=generator.device)
            dropped = (draws < self.config.drop).tolist()
            texts = tuple("" if drop else t for t, drop in zip(texts, dropped, strict=True))
        ids = self.tokenizer(texts).to(self.padding.device)
        tokens, vector = self.tower(ids)
        return Cond(
            vector=vector, tokens=torch.where(real_tokens(ids)[..., None], tokens, self.padding)
        )


def fresh_tower(config: TextTowerConfig, embed_dim: int) -> TextTower:
    """A text tower to be trained: the parameters that it leaves at zero are drawn.

    Standard deviations are those of Radford et al. 2021 (arXiv 2103.00020), their code.
    """
    tower = TextTower(config, embed_dim=embed_dim)
    nn.init.normal_(tower.token_embedding.weight, std=0.02)
    nn.init.normal_(tower.positional_embedding, std=0.01)
    nn.init.normal_(tower.text_projection, std=config.width**-0.5)
    for name, parameter in tower.named_parameters():
        if name.endswith("in_proj_weight"):
            nn.init.normal_(parameter, std=config.width**-0.5)
    return tower
