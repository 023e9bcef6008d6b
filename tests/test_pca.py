"""Principal directions: of vectors, of a whole grid of latents, and how many are needed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from autoencoder import AutoencoderConfig, AutoencoderKL, Latents
from ldm import codec
from ldm.data.batch import Batch
from ldm.errors import ConfigError, DataError, RequestError
from ldm.pca import directions_holding, principal
from ldm.stage import PrincipalLatentCodec

CONFIG = AutoencoderConfig(
    block_out_channels=(16,), norm_num_groups=4, patch_size=4, latent_channels=2,
    latents_mean=(0.5, -0.5), latents_std=(2.0, 3.0),
)  # fmt: skip
GRID = (2, 3, 4)


def latents() -> codec.Latents:
    return codec.Latents(Latents(AutoencoderKL(CONFIG).eval()))


def batch_of(mean: Tensor) -> Batch:
    """Stored moments whose posterior mean, normalised, is `mean` [b d]."""
    grid = mean.unflatten(1, GRID)
    shift, scale = (torch.tensor(v)[:, None, None] for v in ((0.5, -0.5), (2.0, 3.0)))
    moments = torch.cat([grid * scale + shift, torch.zeros_like(grid)], dim=1)
    return Batch(key=("",) * len(mean), latent=moments)


def low_rank(m: int, rank: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(24, rank, generator=generator))[0]
    spread = torch.logspace(1, 0, rank)
    return (torch.randn(m, rank, generator=generator) * spread) @ basis.T + 1.0


def test_directions_that_hold_a_share_of_the_variance() -> None:
    variances = torch.tensor([6.0, 3.0, 1.0, 0.0])
    assert [directions_holding(variances, s) for s in (0.5, 0.6, 0.61, 0.9, 0.95, 1.0)] == [
        1, 1, 2, 2, 3, 3,
    ]  # fmt: skip


def test_latents_of_few_directions_come_back_exactly_from_as_many_numbers() -> None:
    flat = low_rank(200, 5)
    space = codec.PrincipalLatents(latents(), GRID, kept=5)
    space.measure([batch_of(flat[:100]), batch_of(flat[100:])])
    x0 = space.encode(batch_of(flat))
    assert x0.shape == (200, 5)
    assert torch.allclose(space.restore(x0), flat, atol=1e-4)
    assert torch.allclose(x0.mean(0), torch.zeros(5), atol=1e-4)
    assert math.isclose(x0.var(0).mean().item(), 1.0, rel_tol=1e-4)
    ratio = x0.std(0)[0] / x0.std(0)[-1]
    truth = principal(flat).variances.sqrt()
    assert math.isclose(ratio.item(), (truth[0] / truth[4]).sqrt().item(), rel_tol=1e-3)


def test_a_cut_leaves_out_the_weakest_directions() -> None:
    flat = low_rank(300, 6)
    space = codec.PrincipalLatents(latents(), GRID, kept=4)
    space.measure([batch_of(flat)])
    error = (space.restore(space.encode(batch_of(flat))) - flat).square().sum(1).mean()
    left_out = principal(flat).variances[4:].sum() * 299 / 300
    assert math.isclose(error.item(), left_out.item(), rel_tol=1e-3)


def test_decoding_is_the_autoencoders_on_the_restored_latents() -> None:
    flat, inner = low_rank(50, 5), latents()
    space = codec.PrincipalLatents(inner, GRID, kept=24)
    space.measure([batch_of(flat)])
    with torch.no_grad():
        image = space.decode(space.encode(batch_of(flat[:2])))
        assert torch.allclose(image, inner.decode(flat[:2].unflatten(1, GRID)), atol=1e-4)
    assert image.shape == (2, 3, 12, 16)
    assert space.shape(12, 16) == (24,)


def test_a_drawn_posterior_keeps_its_density_under_the_rotation() -> None:
    inner, flat = latents(), low_rank(60, 5) + 0.1 * torch.randn(60, 24)
    space = codec.PrincipalLatents(inner, GRID, kept=24)
    space.measure([batch_of(flat)])
    moments = batch_of(flat[:4]).latent
    assert moments is not None
    moments[:, 2:] = torch.randn(4, 2, 3, 4)
    plain = inner.draw(moments, torch.Generator().manual_seed(3))
    turned = space.draw(moments, torch.Generator().manual_seed(3))
    assert torch.allclose(space.restore(turned.x0), plain.x0.flatten(1), atol=1e-3)
    # p(x0) = p(z) |dz/dx0|, and dz/dx0 is a rotation of diag(scale).
    expected = plain.log_q + space.scale.double().log().sum()
    assert torch.allclose(turned.log_q, expected, atol=1e-2)


def test_the_density_along_one_direction_is_that_of_a_weighted_sum() -> None:
    space = codec.PrincipalLatents(latents(), GRID, kept=1)
    space.measure([batch_of(low_rank(60, 5))])
    moments = batch_of(torch.zeros(1, 24)).latent
    assert moments is not None
    logvar = torch.randn(1, 2, 3, 4)
    moments[:, 2:] = logvar
    drawn = space.draw(moments, torch.Generator().manual_seed(0))
    scale = torch.tensor([2.0, 3.0])[:, None, None]  # the autoencoder's latents_std
    variance = (logvar.exp() / scale.square()).flatten() @ space.directions[:, 0].square()
    std = variance.sqrt() / space.scale[0]
    centre = space.project(torch.zeros(1, 24))[0, 0]
    density = torch.distributions.Normal(centre, std).log_prob(drawn.x0[0, 0])
    assert math.isclose(drawn.log_q.item(), density.item(), rel_tol=1e-4)
    assert math.isclose(drawn.spread, std.item(), rel_tol=1e-4)


def test_other_sizes_grids_and_cuts_are_refused() -> None:
    space = codec.PrincipalLatents(latents(), GRID, kept=5)
    with pytest.raises(RequestError, match="draws 12 x 16 pixels only, not 16 x 16"):
        space.shape(16, 16)
    with pytest.raises(DataError, match=r"latents \[2, 3, 4\], the batch brings \[2, 3, 3\]"):
        space.encode(Batch(key=("a",), latent=torch.zeros(1, 4, 3, 3)))
    with pytest.raises(ConfigError, match="keep 1 to 24 of 24"):
        codec.PrincipalLatents(latents(), GRID, kept=25)
    with pytest.raises(ConfigError, match="give it the autoencoder's codec"):
        PrincipalLatentCodec(grid=GRID, kept=5).build(None)
