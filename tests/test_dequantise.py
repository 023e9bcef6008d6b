"""Dequantisation: levels become bins, bins become levels again, and bits count right."""

from __future__ import annotations

import math

import pytest
import torch

from ldm.data.batch import Batch
from ldm.data.digits import Digits
from ldm.dequantise import DequantisedCodec
from ldm.diffusion import bits_per_dim
from ldm.errors import DataError


def test_every_level_fills_its_bin_and_comes_back() -> None:
    codec = DequantisedCodec(levels=4).build(None)
    image = torch.tensor([0, 85, 170, 255], dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 1, 50, 50)
    batch = Batch(key=("",) * 4, image=image)
    x = codec.encode(batch, torch.Generator().manual_seed(0))
    for level, part in enumerate(x):
        low = level / 2 - 1
        assert low <= part.min() < low + 0.02 and low + 0.48 < part.max() < low + 0.5
    grey = image.float() / 127.5 - 1
    torch.testing.assert_close(codec.decode(x), grey)
    torch.testing.assert_close(codec.decode(codec.encode(batch)), grey)


def test_the_digits_have_seventeen_levels() -> None:
    batch = Digits().whole().take(50)
    codec = DequantisedCodec(levels=17).build(None)
    assert batch.image is not None
    found = (codec.decode(codec.encode(batch, torch.Generator())) + 1) * 127.5
    assert torch.equal(found.round().to(torch.uint8), batch.image)


def test_a_uniform_density_costs_the_logarithm_of_the_levels() -> None:
    codec = DequantisedCodec(levels=17).build(None)
    nats = torch.tensor([64 * math.log(2.0)])  # -log of 1/2 a dimension, on [-1, 1]
    bits = bits_per_dim(nats, 64, codec.bin_width)
    torch.testing.assert_close(bits, torch.tensor([math.log2(17)]))


def test_a_batch_without_pictures_is_refused() -> None:
    with pytest.raises(DataError, match="no image"):
        DequantisedCodec().build(None).encode(Batch(key=("a",)))
