"""Cond and the conditioners: dropout, nulls, and what a missing source gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ldm.conditioning import (
    ConcatConfig,
    Cond,
    Conditioner,
    LabelsConfig,
    LowResConfig,
    TextConditionerConfig,
    UnclipConditionerConfig,
    UnconditionalConfig,
)
from ldm.conditioning.low_res import blurred
from ldm.data.batch import Batch, TextFeatures
from ldm.errors import ConfigError

N, D, E, M = 6, 8, 16, 12
LABELS = LabelsConfig(num_classes=5, dim=E, drop=0.2)
TEXT = TextConditionerConfig(text_dim=D, embed_dim=E, context_length=N, drop=0.3)
UNCLIP = UnclipConditionerConfig(embed_dim=E, text_dim=D, context_length=N, context_dim=M)
NOISED = UnclipConditionerConfig(
    embed_dim=E, text_dim=D, context_length=N, context_dim=M, drop_image=0.4, drop_text=0.2,
    drop_token=0.3, pooled_text=True, image_noise=0.6, assumed_noise=0.25,
)  # fmt: skip
LOW_RES = LowResConfig(small=8, large=16, drop=0.25)
ALL = [
    UnconditionalConfig(), LABELS, TEXT, UNCLIP, NOISED, LOW_RES,
    ConcatConfig(parts=(LABELS, UNCLIP)),
]  # fmt: skip


def whole_batch(b: int, seed: int = 0) -> Batch:
    """Every source, drawn at random; captions of 2 to N tokens."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, N + 1, (b, 1), generator=g)
    text = TextFeatures(
        tokens=torch.randn(b, N, D, generator=g),
        pooled=torch.nn.functional.normalize(torch.randn(b, E, generator=g), dim=-1),
        mask=torch.arange(N) < lengths,
    )
    return Batch(
        key=tuple(str(i) for i in range(b)),
        image=torch.randint(0, 256, (b, 3, 16, 16), generator=g, dtype=torch.uint8),
        label=torch.randint(0, 5, (b,), generator=g),
        image_embedding=text.pooled.flip(0),
        text=text,
    )


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def equal(a: Tensor, b: Tensor) -> Tensor:
    """Which samples are the same to the bit: `[b]`."""
    return (a == b).flatten(1).all(1)


# Cond


def some_cond(b: int = 2) -> Cond:
    return Cond(
        torch.randn(b, 3), torch.randn(b, 4, 5), torch.rand(b, 4) < 0.5, torch.randn(b, 1, 2, 2)
    )


def test_cond_joins_repeats_and_counts() -> None:
    one, two = some_cond(2), some_cond(3)
    joined = one.cat(two)
    assert joined.batch_size == 5 and one.repeat(3).batch_size == 6
    for name, value in joined.parts().items():
        assert torch.equal(value, torch.cat([one.parts()[name], two.parts()[name]]))
        assert torch.equal(one.repeat(2).parts()[name][1], one.parts()[name][0])
    assert one.to("meta").tokens.device.type == "meta"  # type: ignore[union-attr]
    assert Cond().batch_size is None and Cond().cat(Cond()).repeat(2) == Cond()


def test_cond_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="one batch size"):
        Cond(vector=torch.zeros(2, 3), tokens=torch.zeros(3, 4, 5))
    with pytest.raises(ValueError, match="3 dimensions"):
        Cond(tokens=torch.zeros(2, 3))
    with pytest.raises(ValueError, match="mask is bool"):
        Cond(tokens=torch.zeros(2, 3, 4), mask=torch.zeros(2, 3))
    with pytest.raises(ValueError, match="mask is bool"):
        Cond(mask=torch.zeros(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="agree in all but the batch"):
        Cond(vector=torch.zeros(2, 3)).cat(Cond(vector=torch.zeros(2, 4)))
    with pytest.raises(ValueError, match="agree in all but the batch"):
        Cond(vector=torch.zeros(2, 3)).cat(Cond())
    with pytest.raises(ValueError, match="from 1 up"):
        Cond().repeat(0)


# Conditioners


@pytest.mark.parametrize("config", ALL, ids=lambda c: type(c).__name__)
def test_null_is_the_conditioning_of_an_empty_batch_and_joins(config: object) -> None:
    conditioner = config.build()  # type: ignore[attr-defined]
    cond, null = conditioner(whole_batch(4)), conditioner.null(4)
    assert cond.cat(null).batch_size in (8, None)
    again = conditioner(Batch(key=("",) * 4), generator=seeded())
    for name, value in null.parts().items():
        assert torch.equal(value, again.parts()[name])
        assert not equal(value, cond.parts()[name]).any()


@pytest.mark.parametrize("config", ALL[1:], ids=lambda c: type(c).__name__)
def test_every_parameter_learns_in_training(config: object) -> None:
    conditioner = config.build()  # type: ignore[attr-defined]
    cond = conditioner(whole_batch(64), generator=seeded())
    weights = seeded(2)
    loss = sum(
        (value * torch.randn(value.shape, generator=weights)).sum()
        for value in cond.parts().values()
    )
    loss.backward()  # type: ignore[union-attr]
    for name, parameter in conditioner.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("config", ALL[1:], ids=lambda c: type(c).__name__)
def test_dropout_is_drawn_from_the_generator_alone(config: object) -> None:
    conditioner: Conditioner = config.build()  # type: ignore[attr-defined]
    batch = whole_batch(32)
    first, same, other, none = (
        conditioner(batch, generator=g) for g in (seeded(1), seeded(1), seeded(2), None)
    )
    for name, value in first.parts().items():
        assert torch.equal(value, same.parts()[name])
        assert not torch.equal(value, other.parts()[name])
        assert torch.equal(none.parts()[name], conditioner(batch).parts()[name])


def test_unclip_drops_each_source_at_its_rate_and_independently() -> None:
    b = 4000
    conditioner = UNCLIP.build()
    cond, null = conditioner(whole_batch(b), generator=seeded()), conditioner.null(b)
    full = conditioner(whole_batch(b))
    no_image = equal(cond.vector, null.vector)
    no_text = equal(cond.tokens[:, :N], null.tokens[:, :N])
    assert torch.equal(no_image, equal(cond.tokens[:, N:], null.tokens[:, N:]))
    assert abs(no_image.float().mean() - 0.1) < 0.02
    assert abs(no_text.float().mean() - 0.5) < 0.03
    assert abs((no_image & no_text).float().mean() - 0.05) < 0.015
    assert equal(cond.vector, full.vector)[~no_image].all()
    assert equal(cond.tokens[:, :N], full.tokens[:, :N])[~no_text].all()


def test_pooled_text_is_dropped_with_its_tokens() -> None:
    conditioner = NOISED.build()
    b = 2000
    batch = whole_batch(b)
    cond, null = conditioner(batch, generator=seeded()), conditioner.null(1)
    assert cond.vector is not None and cond.tokens is not None and null.tokens is not None
    assert cond.vector.shape == (b, NOISED.vector_dim) == (b, 2 * E + 1)
    assert conditioner.null_pooled is not None
    dropped = equal(cond.vector[:, E : 2 * E], conditioner.null_pooled)
    tokens_dropped = equal(cond.tokens[:, :N], null.tokens[:, :N])
    assert torch.equal(dropped, tokens_dropped)
    assert abs(dropped.float().mean() - 0.2) < 0.03


def test_single_tokens_become_padding_at_their_rate_in_training_alone() -> None:
    config = UnclipConditionerConfig(
        embed_dim=E, text_dim=D, context_length=N, context_dim=M, drop_text=0.0, drop_token=0.3
    )
    conditioner, batch = config.build(), whole_batch(2000)
    assert batch.text is not None
    plain, trained = conditioner(batch), conditioner(batch, generator=seeded())
    assert plain.tokens is not None and trained.tokens is not None
    padding = (trained.tokens[:, :N] == conditioner.padding).all(-1)
    assert abs(padding[batch.text.mask].float().mean() - 0.3) < 0.03
    assert bool(padding[~batch.text.mask].all())
    assert not bool((plain.tokens[:, :N] == conditioner.padding).all(-1)[batch.text.mask].any())


def test_noise_on_the_image_embedding_keeps_its_variance_and_is_told() -> None:
    config = UnclipConditionerConfig(
        embed_dim=E, text_dim=D, context_length=N, context_dim=M, drop_image=0.0, image_noise=0.6,
        assumed_noise=0.25,
    )  # fmt: skip
    conditioner, batch = config.build(), whole_batch(4000)
    assert batch.image_embedding is not None
    true = batch.image_embedding * E**0.5
    plain, trained = conditioner(batch).vector, conditioner(batch, generator=seeded()).vector
    assert plain is not None and trained is not None
    assert torch.equal(plain, torch.cat([true, torch.full((4000, 1), 0.25)], dim=1))
    share = trained[:, -1]
    assert share.min() >= 0 and share.max() <= 0.6 and abs(share.mean() - 0.3) < 0.01
    # sqrt(1 - s) z + sqrt(s) n: unit variance, and what is left of z is as told.
    assert abs(trained[:, :E].square().mean() - 1) < 0.03
    noise = trained[:, :E] - (1 - share).sqrt()[:, None] * true
    assert abs((noise.square().mean(1) / share)[share > 0.1].mean() - 1) < 0.03


def test_prior_text_is_dropped_as_one() -> None:
    b = 2000
    conditioner = TEXT.build()
    cond, null = conditioner(whole_batch(b), generator=seeded()), conditioner.null(b)
    dropped = equal(cond.vector, null.vector)
    assert torch.equal(dropped, equal(cond.tokens, null.tokens))
    assert abs(dropped.float().mean() - 0.3) < 0.03


def test_embeddings_arrive_with_unit_variance() -> None:
    for config in (TEXT, UNCLIP):
        vector = config.build()(whole_batch(8)).vector
        assert (vector.square().mean(1) - 1).abs().max() < 1e-5


def test_padding_does_not_reach_the_network() -> None:
    batch = whole_batch(4)
    assert batch.text is not None
    tokens = torch.where(batch.text.mask[..., None], batch.text.tokens, 1e6)
    other = batch.replace(text=batch.text.replace(tokens=tokens))
    for config in (TEXT, UNCLIP):
        conditioner = config.build()
        assert torch.equal(conditioner(batch).tokens, conditioner(other).tokens)


def test_half_precision_features_are_taken() -> None:
    batch = whole_batch(2)
    assert batch.text is not None and batch.image_embedding is not None
    text = batch.text.replace(tokens=batch.text.tokens.half(), pooled=batch.text.pooled.half())
    half = batch.replace(text=text, image_embedding=batch.image_embedding.half())
    for config in (TEXT, UNCLIP):
        assert config.build()(half).tokens.dtype == torch.float32


def test_a_missing_source_is_null_and_the_rest_stays() -> None:
    conditioner, batch = UNCLIP.build(), whole_batch(3)
    text_only = conditioner(batch.replace(image_embedding=None))
    assert torch.equal(text_only.vector, conditioner.null(3).vector)
    assert torch.equal(text_only.tokens[:, :N], conditioner(batch).tokens[:, :N])


def test_concat_adds_vectors_and_lines_up_tokens() -> None:
    unclip = UnclipConditionerConfig(embed_dim=E, text_dim=D, context_length=N, context_dim=D)
    conditioner = ConcatConfig(parts=(LABELS, TEXT, unclip, LOW_RES)).build()
    cond, batch = conditioner(whole_batch(2)), whole_batch(2)
    parts = [part(batch) for part in conditioner.parts]
    assert torch.allclose(cond.vector, parts[0].vector + parts[1].vector + parts[2].vector)
    assert torch.equal(cond.tokens, torch.cat([parts[1].tokens, parts[2].tokens], 1))
    assert torch.equal(cond.concat, parts[3].concat)
    with pytest.raises(ValueError, match="one width"):
        ConcatConfig(parts=(LABELS, LabelsConfig(num_classes=5, dim=E + 1))).build()(batch)


def test_upsampler_sees_the_same_picture_at_either_size() -> None:
    flat = torch.full((2, 3, 16, 16), 200, dtype=torch.uint8)
    conditioner = LOW_RES.build()
    large = conditioner(Batch(key=("a", "b"), image=flat)).concat
    small = conditioner(Batch(key=("a", "b"), image=flat[..., :8, :8])).concat
    assert large.shape == small.shape == (2, 3, 16, 16)
    assert (large - (200 / 127.5 - 1)).abs().max() < 1e-5 and torch.allclose(large, small)
    with pytest.raises(ValueError, match="this upsampler takes 8 x 8"):
        conditioner(Batch(key=("a",), image=flat[:1, :, :9, :9]))


def test_blur_is_a_gaussian_that_keeps_the_mean() -> None:
    x = torch.zeros(2, 1, 5, 5)
    x[:, :, 2, 2] = 1
    y = blurred(x, torch.tensor([0.0, 0.6]).view(2, 1, 1, 1))
    assert torch.equal(y[0], x[0])
    ratio = torch.exp(torch.tensor(-0.5 / 0.36))
    assert torch.allclose(y[1, 0, 2, 1] / y[1, 0, 2, 2], ratio)
    assert torch.allclose(y[1].sum(), torch.tensor(1.0))


def test_low_resolution_of_grey_pictures() -> None:
    grey = LowResConfig(small=4, large=8, channels=1).build()
    batch = Batch(key=("a", "b"), image=torch.full((2, 1, 8, 8), 255, dtype=torch.uint8))
    concat = grey(batch).concat
    assert concat is not None and torch.equal(concat, torch.ones(2, 1, 8, 8))
    with pytest.raises(ValueError, match="built for"):
        LOW_RES.build()(whole_batch(2).replace(image=torch.zeros(2, 1, 8, 8, dtype=torch.uint8)))


def test_trust_beyond_what_training_saw_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"assumed_noise is 0\.5.*image_noise = 0\.2"):
        UnclipConditionerConfig(
            embed_dim=E, text_dim=D, context_length=N, context_dim=M,
            image_noise=0.2, assumed_noise=0.5,
        )  # fmt: skip


def test_bad_input_is_named() -> None:
    batch = whole_batch(2)
    with pytest.raises(ValueError, match="labels run from 0 to 5"):
        LABELS.build()(batch.replace(label=torch.tensor([0, 5])))
    with pytest.raises(ValueError, match="belongs to another CLIP model"):
        TextConditionerConfig(text_dim=D, embed_dim=E, context_length=N + 1).build()(batch)
    with pytest.raises(ValueError, match="built for"):
        TextConditionerConfig(text_dim=D, embed_dim=E + 1, context_length=N).build()(batch)
    with pytest.raises(ValueError, match="1 sample or more"):
        LABELS.build().null(0)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        LabelsConfig(num_classes=1, dim=1, drop=1.1)
    with pytest.raises(ConfigError, match="below large"):
        LowResConfig(small=16, large=16)
    with pytest.raises(ConfigError, match="at least one part"):
        ConcatConfig(parts=()).build()
