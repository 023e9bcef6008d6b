"""Codes of the clean picture: what they cost, where the time goes, when noise is drawn."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ldm.conditioning import CleanPictureConfig, Cond
from ldm.data.batch import Batch
from ldm.diffusion import (
    Between,
    CodeHead,
    CodeKl,
    CodeL1,
    Denoiser,
    Mse,
    Sum,
    V,
    VPCosine,
)
from ldm.networks.encoder import EncoderConfig
from ldm.networks.flat import FlatConfig, FlatEncoderConfig
from ldm.networks.represented import Represented, RepresentedConfig
from ldm.networks.unet import UNetConfig

D = 5


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def config(*, timed: bool = False, said: int = D) -> RepresentedConfig:
    trunk = UNetConfig(
        in_channels=1,
        out_channels=said,
        channels=(8, 8),
        blocks_per_level=1,
        head_dim=8,
        resample="conv",
        norm_groups=4,
    )
    return RepresentedConfig(
        network=FlatConfig(shape=(1, 8, 8), width=32, depth=1, vector_dim=D),
        encoder=EncoderConfig(trunk=trunk, grid=8, timed=timed),
    )


def stirred(network: Represented) -> Represented:
    """Layers that start at zero made to matter."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


def denoiser(**changes: object) -> Denoiser:
    network = stirred(config(**changes).build())
    return Denoiser(network, VPCosine(), V(), head=CodeHead(channels=1))


def x0() -> torch.Tensor:
    return torch.randn(4, 1, 8, 8, generator=generator())


@pytest.mark.parametrize("timed", [False, True])
def test_the_code_changes_with_the_time_only_where_it_is_timed(timed: bool) -> None:
    network = denoiser(timed=timed).network
    early, late = (network.code(x0(), torch.full((4,), t)) for t in (10.0, 900.0))
    assert early.shape == (4, D)
    assert torch.equal(early, late) != timed


@pytest.mark.parametrize("timed", [False, True])
def test_a_flat_encoder_hears_the_time_only_where_it_is_timed(timed: bool) -> None:
    encoder = FlatEncoderConfig(shape=(1, 8, 8), out_dim=D, timed=timed)
    network = stirred(dataclasses.replace(config(), encoder=encoder).build())
    early, late = (network.code(x0(), torch.full((4,), t)) for t in (10.0, 900.0))
    assert early.shape == (4, D) and early.abs().sum() > 0
    assert torch.equal(early, late) != timed
    with pytest.raises(ValueError, match="time"):
        network.encoder(x0(), None if timed else torch.zeros(4))


def test_l1_of_the_code() -> None:
    model = denoiser()
    objective = Sum(parts=((1.0, Mse()), (0.25, CodeL1())))
    cond = Cond(concat=x0())
    terms = objective(model, x0(), cond, generator())
    by_hand = model.network.code(x0(), torch.zeros(4)).abs().sum(1)
    torch.testing.assert_close(terms["code_l1"], by_hand)
    torch.testing.assert_close(terms["loss"], terms["mse"] + 0.25 * by_hand)
    assert terms["loss"].requires_grad


def test_kl_of_the_code_against_torch() -> None:
    model = denoiser(said=2 * D)
    cond = Cond(concat=x0(), vector=torch.zeros(4, D))
    terms = CodeKl()(model, x0(), cond, generator())
    mean, logvar = model.network.said(x0(), torch.zeros(4)).chunk(2, dim=1)
    q = torch.distributions.Normal(mean, (logvar / 2).exp())
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(terms["code_kl"], kl)


def test_a_gaussian_code_is_drawn_in_training_and_its_mean_elsewhere() -> None:
    conditioner = CleanPictureConfig(channels=1, side=8, noise=D).build()
    image = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8, generator=generator())
    batch = Batch(key=("",) * 4, image=image)
    still, noisy = conditioner(batch), conditioner(batch, generator=generator())
    assert still.vector is not None and not still.vector.any()
    assert noisy.vector is not None and noisy.vector.std() > 0.5
    torch.testing.assert_close(still.concat, image.float() / 127.5 - 1)
    model, t = denoiser(said=2 * D), torch.full((4,), 0.5)
    network = model.network
    mean_only = network.network(x0(), 1000 * t, Cond(vector=network.code(still.concat, 1000 * t)))
    torch.testing.assert_close(model.head(model.raw(x0(), t, still))[0], mean_only)
    assert not torch.equal(model.head(model.raw(x0(), t, noisy))[0], mean_only)


def test_nothing_said_is_nothing_encoded() -> None:
    conditioner = CleanPictureConfig(channels=1, side=8).build()
    null = conditioner.null(3)
    assert null.vector is None and null.concat is not None and null.concat.shape == (3, 1, 8, 8)


def test_misfits_are_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        dataclasses.replace(config(), network=FlatConfig(shape=(1, 8, 8), vector_dim=3))
    with pytest.raises(ValueError, match="clean picture"):
        denoiser()(x0(), torch.full((4,), 0.5), Cond())
    with pytest.raises(ValueError, match="PlainHead"):
        CodeHead(channels=1)(torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match="order"):
        Between(low=0.5, high=0.2)


def test_times_between() -> None:
    process = VPCosine()
    t, weight = Between(low=0.25, high=0.5)(process, 10_000, generator())
    span = process.t_max - process.t_min
    ends = [process.t_min + f * span for f in (0.25, 0.5)]
    assert t.min() >= ends[0] and t.max() <= ends[1] and (weight == 1).all()
    assert t.mean().item() == pytest.approx(sum(ends) / 2, abs=2e-3)
