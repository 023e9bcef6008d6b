"""Text and CLIP image embeddings as conditioning: the two stages of unCLIP.

Ramesh et al. 2022 (arXiv 2204.06125), sections 2.1 and 2.2. CLIP embeddings have unit norm; they
are multiplied by the root of their width, so that an entry has unit variance (the paper's table 3
gives 17 for a width of 1024, up to CLIP's mean).

b batch; n text tokens; d width of a token; e width of a CLIP embedding; m width of the context
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from ldm.conditioning.cond import Cond
from ldm.conditioning.layout import Layout, LayoutConfig
from ldm.conditioning.sources import (
    Conditioner,
    check_rate,
    draw_drop,
    null_parameter,
    or_null,
)
from ldm.data.batch import Batch, TextFeatures
from ldm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TextConditionerConfig:
    """text_dim: d; embed_dim: e; context_length: n; drop: rate at which all text is dropped."""

    text_dim: int
    embed_dim: int
    context_length: int
    drop: float = 0.1

    def __post_init__(self) -> None:
        check_rate("drop", self.drop)

    def build(self) -> TextConditioner:
        return TextConditioner(self)


class TextConditioner(Conditioner):
    """For the prior: tokens `[b n d]` and vector `[b e]`, dropped together.

    Padding is replaced by a learned token at each place (GLIDE, arXiv 2112.10741), so that no mask
    is needed.
    """

    def __init__(self, config: TextConditionerConfig) -> None:
        super().__init__()
        self.config = config
        self.padding = null_parameter(config.context_length, config.text_dim)
        self.null_tokens = null_parameter(config.context_length, config.text_dim)
        self.null_vector = null_parameter(config.embed_dim)

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Cond:
        tokens = vector = None
        if batch.text is not None:
            tokens = padded(batch.text, batch.text.tokens, self.padding)
            vector = unit_variance(batch.text.pooled)
        drop = draw_drop(vector, self.config.drop, generator)
        return Cond(
            vector=or_null(vector, self.null_vector, drop, len(batch)),
            tokens=or_null(tokens, self.null_tokens, drop, len(batch)),
        )


@dataclass(frozen=True, kw_only=True)
class UnclipConditionerConfig:
    """Sizes and dropout of the decoder's conditioning.

    embed_dim: e; text_dim: d; context_length: n; context_dim: m, what the network attends to;
    num_extra: tokens made of the image embedding; drop_image, drop_text: independent rates.
    pooled_text: join the pooled text embedding to the vector, which then is `[b 2e]`.
    drop_token: rate at which single text tokens become padding, in training.
    image_noise: the most noise that training puts on the image embedding, as the share (0 to 1) of
        its variance. The share is drawn anew for each sample and told to the network as one more
        entry of the vector; in sampling it is `assumed_noise`, and nothing is added.
    assumed_noise: how far a given image embedding is to be trusted in sampling: 0 fully.
    layout: a grid made of the image embedding, joined to the network's input (None: no such).
    """

    embed_dim: int
    text_dim: int
    context_length: int
    context_dim: int
    num_extra: int = 4
    drop_image: float = 0.1
    drop_text: float = 0.5
    pooled_text: bool = False
    drop_token: float = 0.0
    image_noise: float = 0.0
    assumed_noise: float = 0.0
    layout: LayoutConfig | None = None

    def __post_init__(self) -> None:
        for name in ("drop_image", "drop_text", "drop_token", "image_noise", "assumed_noise"):
            check_rate(name, getattr(self, name))
        if self.assumed_noise > self.image_noise:
            raise ConfigError(
                f"assumed_noise is {self.assumed_noise}, but training goes up to image_noise = "
                f"{self.image_noise}: assume no more than that"
            )

    @property
    def vector_dim(self) -> int:
        """Width of the vector that the network is given."""
        return self.embed_dim * (1 + self.pooled_text) + (self.image_noise > 0)

    def build(self) -> UnclipConditioner:
        return UnclipConditioner(self)


class UnclipConditioner(Conditioner):
    """For the decoder: vector `[b v]`, the image embedding; tokens `[b n+extra m]`.

    The tokens are the projected text tokens, then the extra ones projected from the image
    embedding. A dropped image embedding is its null in each place. The vector may hold the pooled
    text embedding and the noise on the image embedding as well (v is the configuration's
    `vector_dim`). With a layout there is concat `[b c h w]` too.
    """

    def __init__(self, config: UnclipConditionerConfig) -> None:
        super().__init__()
        self.config = config
        self.from_text = nn.Linear(config.text_dim, config.context_dim)
        self.from_image = nn.Linear(config.embed_dim, config.num_extra * config.context_dim)
        self.padding = null_parameter(config.context_length, config.context_dim)
        self.null_text = null_parameter(config.context_length, config.context_dim)
        self.null_image = null_parameter(config.embed_dim)
        self.null_pooled = null_parameter(config.embed_dim) if config.pooled_text else None
        self.layout = None if config.layout is None else Layout(config.layout, config.embed_dim)

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Cond:
        image, share = self._image(batch, generator)
        drop = draw_drop(_pooled(batch), self.config.drop_text, generator)
        text = self._text(batch, drop, generator)
        vector = [image]
        if self.null_pooled is not None:
            pooled = None if batch.text is None else unit_variance(batch.text.pooled)
            vector.append(or_null(pooled, self.null_pooled, drop, len(batch)))
        if share is not None:
            vector.append(share)
        extra = rearrange(self.from_image(image), "b (k m) -> b k m", k=self.config.num_extra)
        concat = None if self.layout is None else self.layout(image)
        return Cond(
            vector=torch.cat(vector, dim=1), tokens=torch.cat([text, extra], dim=1), concat=concat
        )

    @property
    def grid(self) -> tuple[int, int] | None:
        return None if self.layout is None else self.layout.config.shape[1:]

    def measure(self, batches: Iterable[tuple[Batch, Tensor]]) -> None:
        """Fit the layout on the batches' image embeddings and x0."""
        if self.layout is not None:
            found = [(b.image_embedding, x0) for b, x0 in batches if b.image_embedding is not None]
            embedding = torch.cat([unit_variance(e) for e, _ in found])
            self.layout.fit(embedding, torch.cat([x0 for _, x0 in found]))

    def _image(
        self, batch: Batch, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor | None]:
        """The image embedding `[b e]` or its null, and the noise on it `[b 1]` where told."""
        embedding = batch.image_embedding
        value = None if embedding is None else unit_variance(embedding)
        share = None
        if self.config.image_noise:
            share = self.null_image.new_full((len(batch), 1), self.config.assumed_noise)
            if value is not None and generator is not None:
                value, share = noised(value, self.config.image_noise, generator)
        drop = draw_drop(embedding, self.config.drop_image, generator)
        return or_null(value, self.null_image, drop, len(batch)), share

    def _text(
        self, batch: Batch, drop: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
        tokens = None
        if batch.text is not None:
            projected = self.from_text(batch.text.tokens.to(self.padding.dtype))
            text = batch.text
            if generator is not None and self.config.drop_token:
                text = without_tokens(text, self.config.drop_token, generator)
            tokens = padded(text, projected, self.padding)
        return or_null(tokens, self.null_text, drop, len(batch))


def _pooled(batch: Batch) -> Tensor | None:
    return None if batch.text is None else batch.text.pooled


def noised(
    value: Tensor, most: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Noise of a random share s of the variance, up to `most`, on `value [b e]` of unit variance:
    sqrt(1 - s) value + sqrt(s) noise, and s `[b 1]`.

    Noise conditioning augmentation: Ho et al. 2021 (arXiv 2106.15282), section 4.2, on a CLIP
    embedding in place of a small image.
    """
    device = generator.device
    share = most * torch.rand(len(value), 1, generator=generator, device=device).to(value.device)
    noise = torch.randn(value.shape, generator=generator, device=device).to(value.device)
    return (1 - share).sqrt() * value + share.sqrt() * noise, share


def without_tokens(text: TextFeatures, rate: float, generator: torch.Generator) -> TextFeatures:
    """The features with each token masked out at `rate`, independently of the others."""
    draws = torch.rand(text.mask.shape, generator=generator, device=generator.device)
    kept = (draws >= rate).to(text.mask.device)
    return TextFeatures(text.tokens, text.pooled, text.mask & kept)


def unit_variance(embedding: Tensor) -> Tensor:
    """A unit-norm `[b e]` scaled so that the mean square of its entries is one."""
    return embedding.float() * embedding.shape[-1] ** 0.5


def padded(text: TextFeatures, tokens: Tensor, padding: Tensor) -> Tensor:
    """`tokens [b n d]` with `padding [n d]` where the text has ended."""
    if tokens.shape[1:] != padding.shape:
        raise ValueError(
            f"this conditioner was built for text tokens of {list(padding.shape)} a caption, the "
            f"batch brings {list(tokens.shape[1:])}; it belongs to another CLIP model"
        )
    return torch.where(text.mask[..., None], tokens.to(padding.dtype), padding)
