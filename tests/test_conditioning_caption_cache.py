"""Features of captions kept in memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ldm.conditioning.caption_cache import CaptionCache
from ldm.data.batch import TextFeatures


class Encoder:
    """Features that tell a caption's length, and a list of what was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, captions: Sequence[str]) -> TextFeatures:
        self.asked.extend(captions)
        size = torch.tensor([float(len(c)) for c in captions])
        return TextFeatures(
            size.view(-1, 1, 1).expand(-1, 3, 2) / 3,
            size.view(-1, 1).expand(-1, 2),
            size[:, None] > torch.arange(3),
        )


def test_each_caption_is_read_once_and_gives_its_own_features() -> None:
    encoder = Encoder()
    cache, plain = CaptionCache(encoder, 10_000), Encoder()
    many = ["x" * n for n in range(1, 2000)]  # more than the first block holds
    for captions in (["a", "bbb", "a"], many, ["bbb", "cc", "a"], many[::-1]):
        kept, fresh = cache(captions), plain(captions)
        assert torch.equal(kept.tokens, fresh.tokens.bfloat16())
        assert torch.equal(kept.pooled, fresh.pooled) and torch.equal(kept.mask, fresh.mask)
    assert len(encoder.asked) == len(set(encoder.asked))


def test_beyond_the_limit_captions_are_read_anew_with_the_same_result() -> None:
    encoder = Encoder()
    cache = CaptionCache(encoder, 2)
    first = cache(["a", "bb"])
    over = cache(["a", "ccc"])
    assert torch.equal(first.tokens[0], over.tokens[0]) and encoder.asked[2:] == ["a", "ccc"]
    cache(["bb", "a"])
    assert len(encoder.asked) == 4


def test_without_a_cache_features_pass_as_they_are() -> None:
    encoder = Encoder()
    cache = CaptionCache(encoder, 0)
    assert torch.equal(cache(["a"]).tokens, Encoder()(["a"]).tokens)
    cache(["a"])
    assert encoder.asked == ["a", "a"]
