"""unCLIP's autoregressive prior as a trainable: principal components, buckets, a distribution.

Ramesh et al. 2022 (arXiv 2204.06125) section 2.2: the CLIP image embedding loses its small
principal components, each of the rest becomes one of a number of buckets, and a transformer
predicts them in order of their variance from the text and from how well picture and text shall fit.

b batch; e width of an embedding; k components kept; v buckets
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.conditioning import TextConditionerConfig
from ldm.data.batch import Batch
from ldm.data.stream import Stream
from ldm.diffusion.noise import Noise
from ldm.errors import DataError
from ldm.networks.code_prior import CodePriorConfig
from ldm.pca import principal
from ldm.training import Terms
from ldm.training.learner import Learner, LearnerTask


class EmbeddingCodes(nn.Module):
    """Unit-norm embeddings `[b e]` as codes `[b k]`, most important first, and back."""

    mean: Tensor
    components: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, width: int, num_codes: int, num_buckets: int) -> None:
        super().__init__()
        self.num_buckets = num_buckets
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("components", torch.eye(width)[:num_codes])
        self.register_buffer("low", -torch.ones(num_codes))
        self.register_buffer("high", torch.ones(num_codes))

    def measure(self, embeddings: Tensor) -> None:
        """Take the principal components and their ranges from embeddings [n e]."""
        every = embeddings.double().cpu()
        if len(every) <= len(self.low):
            raise DataError(f"{len(every)} embeddings do not tell {len(self.low)} components")
        self.mean.copy_(every.mean(0))
        self.components.copy_(principal(every).directions.T[: len(self.low)])
        found = self.project(every.float())
        self.low.copy_(found.min(0).values)
        self.high.copy_(found.max(0).values)

    def project(self, embedding: Tensor) -> Tensor:
        """`[b e]` -> coordinates along the components `[b k]`."""
        return (embedding.float() - self.mean) @ self.components.T

    def encode(self, embedding: Tensor) -> Tensor:
        """`[b e]` -> `[b k]` int64; coordinates beyond the measured range take the last bucket."""
        place = (self.project(embedding) - self.low) / (self.high - self.low)
        return (place * self.num_buckets).long().clamp(0, self.num_buckets - 1)

    def decode(self, codes: Tensor) -> Tensor:
        """`[b k]` -> unit norm `[b e]`, from the middle of each bucket."""
        place = (codes + 0.5) / self.num_buckets
        coordinates = self.low + place * (self.high - self.low)
        return F.normalize(coordinates @ self.components + self.mean, dim=-1)


class ArPrior(Learner):
    """The codes' distribution given a text."""

    edges: Tensor

    def __init__(self, settings: ArPriorTraining) -> None:
        super().__init__()
        self.config, network = settings, settings.network
        self.conditioner = settings.conditioner.build()
        self.network = network.build()
        width = settings.conditioner.embed_dim
        self.codes = EmbeddingCodes(width, network.num_codes, network.num_buckets)
        self.register_buffer("edges", torch.zeros(network.num_fits - 1))

    def measure(self, embedding: Tensor, pooled: Tensor) -> None:
        """Components from embeddings [n e]; levels of fit that are equally filled."""
        self.codes.measure(embedding)
        inner = torch.arange(1, self.config.network.num_fits) / self.config.network.num_fits
        self.edges.copy_((embedding * pooled).sum(1).quantile(inner))

    def loss(self, batch: Batch, generator: torch.Generator) -> Terms:
        """Nats a code, [b]."""
        if batch.image_embedding is None or batch.text is None:
            raise DataError("the prior learns from embeddings and text; the data lack one of them")
        codes = self.codes.encode(batch.image_embedding)
        fit = torch.bucketize((batch.image_embedding * batch.text.pooled).sum(1), self.edges)
        cond = self.conditioner(batch, generator=generator)
        logits = self.network(codes[:, :-1], fit, cond)
        nats = F.cross_entropy(logits.transpose(1, 2), codes, reduction="none")
        right = (logits.detach().argmax(2) == codes).float()
        return {"loss": nats.mean(1), "accuracy": right.mean(1)}

    @torch.no_grad()
    def sample(self, batch: Batch, noise: Noise) -> Tensor:
        """Unit-norm embeddings [b e] for the batch's texts, one seed each.

        The fit is drawn from the better half of its levels, as in section 2.2.
        """
        levels, b = self.config.network.num_fits, len(batch)
        half = levels // 2
        fit = half + (uniform(noise) * (levels - half)).long()
        cond = self.conditioner(batch)
        codes = torch.zeros(b, 0, dtype=torch.int64, device=noise.device)
        for _ in range(self.config.network.num_codes):
            shares = self.network(codes, fit, cond)[:, -1].softmax(-1)
            reached = shares.cumsum(-1) < uniform(noise)[:, None]
            found = reached.sum(-1).clamp(max=shares.shape[-1] - 1)
            codes = torch.cat([codes, found[:, None]], dim=1)
        return self.codes.decode(codes)


def uniform(noise: Noise) -> Tensor:
    """One number in [0, 1) for each seed, [b]."""
    drawn = torch.special.ndtr(noise.normal((1,), torch.float64).squeeze(1))
    return drawn.clamp(max=1 - 1e-9)


@dataclass(frozen=True, kw_only=True)
class ArPriorTraining:
    """network: of the codes; conditioner: reads the text features that the data bring."""

    network: CodePriorConfig
    conditioner: TextConditionerConfig

    def build(self, stream: Stream) -> LearnerTask[ArPrior]:
        """A fresh prior, its codes measured over one pass of the data."""
        prior, images, texts = ArPrior(self), [], []
        for batch in stream.epoch():
            if batch.image_embedding is None or batch.text is None:
                raise DataError("the prior is measured on embeddings and text features")
            images.append(batch.image_embedding)
            texts.append(batch.text.pooled)
        prior.measure(torch.cat(images), torch.cat(texts))
        return LearnerTask(prior)
