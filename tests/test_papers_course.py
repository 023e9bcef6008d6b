"""Outlines as conditioning; the best Gaussian that samples are compared with."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ldm.conditioning.edges import EdgesConfig, outlines
from ldm.data.batch import Batch
from ldm.errors import ConfigError
from ldm.papers.stages import gaussian_like


def test_outlines_of_a_square() -> None:
    x = torch.zeros(1, 2, 6, 6)
    x[:, 1, 2:5, 2:5] = 0.5
    found = outlines(x)
    assert found.shape == (1, 1, 6, 6)
    assert found[0, 0, 3].tolist() == [0.0, 0.5, 0.5, 0.0, 0.5, 0.5]
    assert found[0, 0, 0].tolist() == [0.0] * 6
    torch.testing.assert_close(outlines(1 - x), found)  # bright on dark, dark on bright
    torch.testing.assert_close(outlines(x.mT), found.mT)


def test_outlines_reach_the_grid_of_latents_without_loss() -> None:
    image = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    batch = Batch(key=("a", "b", "c"), image=image)
    fine = EdgesConfig(channels=1, side=8).build()(batch).concat
    coarse = EdgesConfig(channels=1, side=8, shrink=4).build()(batch).concat
    assert fine is not None and coarse is not None and coarse.shape == (3, 16, 2, 2)
    torch.testing.assert_close(F.pixel_shuffle(coarse, 4), fine)


def test_outlines_are_dropped_and_absent_alike() -> None:
    conditioner = EdgesConfig(channels=1, side=8, drop=1.0).build()
    batch = Batch(key=("a",) * 2, image=torch.full((2, 1, 8, 8), 9, dtype=torch.uint8))
    dropped = conditioner(batch, generator=torch.Generator().manual_seed(0)).concat
    null = conditioner.null(2).concat
    assert dropped is not None and null is not None and torch.equal(dropped, null)
    with pytest.raises(ConfigError, match="multiple"):
        EdgesConfig(channels=1, side=10, shrink=4)


def test_the_gaussian_has_mean_and_covariance() -> None:
    x = 0.1 * torch.randn(40_000, 1, 1, 3, generator=torch.Generator().manual_seed(0))
    x[..., 1] += 0.5 * x[..., 0] + 0.2
    y = gaussian_like(x, 1)
    torch.testing.assert_close(y.mean(0), x.mean(0), atol=3e-3, rtol=0)
    cov = [torch.cov(v.flatten(1).T) for v in (x, y)]
    torch.testing.assert_close(cov[1], cov[0], atol=3e-4, rtol=0)
