"""unCLIP's autoregressive prior: codes of embeddings, and draws from their distribution."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from ldm.ar_prior import ArPrior, ArPriorTraining, EmbeddingCodes, uniform
from ldm.conditioning import Cond, TextConditionerConfig
from ldm.data.batch import Batch, TextFeatures
from ldm.diffusion import Noise
from ldm.errors import DataError
from ldm.networks.code_prior import CodePriorConfig
from ldm.networks.prior import PriorConfig

TRUNK = PriorConfig(
    embedding_dim=6, vector_dim=6, context_dim=8, context_length=5, width=16, depth=2, head_dim=8
)
NETWORK = CodePriorConfig(trunk=TRUNK, num_codes=4, num_buckets=10, num_fits=4)
SETTINGS = ArPriorTraining(
    network=NETWORK,
    conditioner=TextConditionerConfig(text_dim=8, embed_dim=6, context_length=5, drop=0.0),
)


def embeddings(n: int, seed: int = 0) -> torch.Tensor:
    """Unit-norm embeddings [n 6] whose spread differs by direction."""
    drawn = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))
    return F.normalize(drawn * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2, 0.1]) + 1, dim=-1)


def texts(n: int) -> Batch:
    generator = torch.Generator().manual_seed(3)
    pooled = F.normalize(torch.randn(n, 6, generator=generator), dim=-1)
    tokens = torch.randn(n, 5, 8, generator=generator)
    text = TextFeatures(tokens, pooled, torch.ones(n, 5, dtype=torch.bool))
    return Batch(key=("",) * n, text=text)


def stirred(settings: ArPriorTraining) -> ArPrior:
    """A prior whose zero-initialised outputs are drawn, measured on embeddings."""
    torch.manual_seed(0)
    prior = ArPrior(settings)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    prior.measure(embeddings(500), embeddings(500, 1))
    return prior.eval()


def test_components_are_orthonormal_and_fall_in_variance() -> None:
    codes = EmbeddingCodes(6, 4, 10)
    codes.measure(embeddings(500))
    assert (codes.components @ codes.components.T - torch.eye(4)).abs().max() < 1e-5
    variance = codes.project(embeddings(500)).var(0)
    assert (variance.diff() < 0).all()
    with pytest.raises(DataError, match="components"):
        codes.measure(embeddings(3))


def test_codes_come_back_within_half_a_bucket() -> None:
    codes, every = EmbeddingCodes(6, 6, 20), embeddings(500)
    codes.measure(every)
    found = codes.encode(every)
    assert found.min() == 0 and found.max() == 19
    place = codes.low + (found + 0.5) / 20 * (codes.high - codes.low)
    assert ((place - codes.project(every)).abs() <= (codes.high - codes.low) / 40 + 1e-6).all()
    # all components and many buckets lose next to nothing
    fine = EmbeddingCodes(6, 6, 5000)
    fine.measure(every)
    assert F.cosine_similarity(fine.decode(fine.encode(every)), every).min() > 0.9999


def test_a_code_depends_on_those_before_it_alone() -> None:
    prior, cond = stirred(SETTINGS), None
    cond = prior.conditioner(texts(2))
    codes = torch.tensor([[1, 2, 3], [4, 5, 6]])
    changed = codes.clone()
    changed[:, 1] = 9
    fit = torch.tensor([0, 3])
    with torch.no_grad():
        before, after = (prior.network(c, fit, cond) for c in (codes, changed))
    assert (before[:, :2] - after[:, :2]).abs().max() < 1e-6
    assert (before[:, 2:] - after[:, 2:]).abs().max() > 1e-3
    with pytest.raises(ValueError, match="fewer than"):
        prior.network(torch.zeros(2, 4, dtype=torch.int64), fit, cond)


def test_the_fit_is_told_in_training_and_good_when_drawing() -> None:
    prior = stirred(SETTINGS)
    image, pooled = embeddings(500), embeddings(500, 1)
    levels = torch.bucketize((image * pooled).sum(1), prior.edges)
    assert torch.bincount(levels, minlength=4).min() > 100  # of 125 in each
    asked: list[torch.Tensor] = []
    network = prior.network

    class Watched(torch.nn.Module):
        def forward(self, codes: torch.Tensor, fit: torch.Tensor, cond: Cond) -> torch.Tensor:
            asked.append(fit)
            found: torch.Tensor = network(codes, fit, cond)
            return found

    prior.network = Watched()
    prior.sample(texts(200), Noise(range(200)))
    assert len(asked) == 4 and set(asked[0].tolist()) == {2, 3}


def test_draws_follow_the_distribution_and_their_own_seeds() -> None:
    settings = dataclasses.replace(
        SETTINGS, network=dataclasses.replace(NETWORK, num_codes=1, num_fits=1)
    )
    prior, n = stirred(settings), 4000
    one = texts(1)
    assert one.text is not None
    every = Batch(
        key=("",) * n,
        text=TextFeatures(
            one.text.tokens.expand(n, -1, -1),
            one.text.pooled.expand(n, -1),
            one.text.mask.expand(n, -1),
        ),
    )
    drawn = prior.sample(every, Noise(range(n)))
    with torch.no_grad():
        cond = prior.conditioner(one)
        empty = torch.zeros(1, 0, dtype=torch.int64)
        shares = prior.network(empty, torch.zeros(1, dtype=torch.int64), cond)[0, 0].softmax(-1)
    means = prior.codes.decode(torch.arange(10)[:, None])
    found = (drawn @ means.T).argmax(1).bincount(minlength=10) / n
    assert (found - shares).abs().max() < 0.03
    alone = prior.sample(one, Noise([17]))
    assert (alone[0] - drawn[17]).abs().max() < 1e-5


def test_uniform_numbers_are_uniform() -> None:
    drawn = uniform(Noise(range(4000))).sort().values
    assert (drawn - (torch.arange(4000) + 0.5) / 4000).abs().max() < 0.03
