"""The measures of improved DDPM's study, and how little its cosine differs from the paper's."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from configs.papers.improved_ddpm import COSINE, LINEAR
from ldm.diffusion import CosineChain, Eps, LinearChain
from ldm.papers.loss_noise import spread


def test_noise_of_a_gradient_is_its_spread_about_the_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = 0.5 * torch.randn(300, 400, generator=generator)
    assert spread(noise) == pytest.approx(0.5 * 400**0.5, rel=0.05)
    assert spread(3 * noise + 7.0) == pytest.approx(3 * spread(noise), rel=1e-4)


def test_the_cosine_differs_from_the_published_one_in_its_last_step_alone() -> None:
    published = CosineChain(num_steps=COSINE.num_steps)
    differs = (COSINE.betas() != published.betas()).nonzero().flatten().tolist()
    assert differs == [COSINE.num_steps - 1]
    last = torch.ones(1, dtype=torch.float64)
    ours, theirs = (chain.alpha_sigma(last)[0].item() for chain in (COSINE, published))
    assert ours == pytest.approx(theirs * ((1 - 0.9) / (1 - 0.999)) ** 0.5)
    for chain in (COSINE, published):
        Eps().check(chain)


def test_the_linear_chain_ends_where_the_published_one_ends() -> None:
    last = torch.ones(1, dtype=torch.float64)
    ours, published = (chain.logsnr(last).item() for chain in (LINEAR, LinearChain()))
    assert ours == pytest.approx(published, abs=0.6)
    assert dataclasses.replace(LINEAR, num_steps=1000, beta_start=1e-4, beta_end=0.02) == (
        LinearChain()
    )
