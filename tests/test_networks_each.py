"""What is special about each network, and the embeddings they share."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from networks_cases import CASES, DIT, FULL, PRIOR, TINY, WIDTH, B, inputs, perturbed
from torch import nn

from ldm.conditioning.cond import Cond
from ldm.networks.blocks import ResBlock
from ldm.networks.dit import DIT_SIZES, DiT, dit_config
from ldm.networks.embeddings import TimeEmbedding, fourier_features, sinusoid, sinusoid_2d
from ldm.networks.encoder import Encoder, EncoderConfig
from ldm.networks.prior import PriorTransformer
from ldm.networks.unet import UNet
from ldm.networks.unet_sizes import ADM_SIZES, adm_config

# Embeddings


def test_sinusoid_is_the_published_formula() -> None:
    time, width = torch.tensor([0.0, 3.0]), 8
    expected = [
        [wave(t / 10_000 ** (i / 4)) for wave in (torch.cos, torch.sin) for i in range(4)]
        for t in time
    ]
    torch.testing.assert_close(sinusoid(time, width), torch.tensor(expected))


def test_fourier_features_and_grid_positions() -> None:
    x = torch.rand(2, 3, 4)
    features = fourier_features(x, (1, 2))
    assert features.shape == (2, 12, 4)
    torch.testing.assert_close(features[:, :3], torch.sin(2 * torch.pi * x))
    torch.testing.assert_close(features[:, 9:], torch.cos(4 * torch.pi * x))
    positions = sinusoid_2d(3, 5, 8)
    assert positions.shape == (15, 8) and len(positions.unique(dim=0)) == 15
    # twice as far apart, every position is the one at twice its row and column
    spread = sinusoid_2d(2, 2, 8, apart=2.0)
    assert torch.equal(spread, sinusoid_2d(3, 3, 8)[[0, 2, 6, 8]])


def test_odd_widths_are_refused() -> None:
    for make in (lambda: sinusoid(torch.zeros(1), 5), lambda: TimeEmbedding(12)):
        with pytest.raises(ValueError, match=r"5|12"):
            make()


# U-Net


@pytest.mark.parametrize(("resize", "side"), [(-1, 2), (0, 4), (1, 8)])
def test_residual_block_is_the_published_formula(resize: int, side: int) -> None:
    """AdaGN(h, y) = y_s GroupNorm(h) + y_b, with both branches resized before a convolution."""
    block = perturbed(ResBlock(4, 6, 8, groups=2, resize=resize))
    x, time = torch.randn(2, 4, 4, 4), torch.randn(2, 8)
    new = {-1: lambda h: h.unflatten(2, (2, 2)).unflatten(4, (2, 2)).mean((3, 5)),
           0: lambda h: h,
           1: lambda h: h.repeat_interleave(2, 2).repeat_interleave(2, 3)}[resize]  # fmt: skip
    y_s, y_b = block.modulation(F.silu(time)).chunk(2, dim=1)
    h = block.norm_out(block.conv_in(new(F.silu(block.norm_in(x)))))
    h = (1 + y_s)[:, :, None, None] * h + y_b[:, :, None, None]
    expected = block.skip(new(x)) + block.conv_out(F.silu(h))
    assert expected.shape == (2, 6, side, side)
    torch.testing.assert_close(block(x, time), expected)


def test_preparing_once_equals_calling() -> None:
    case = CASES["unet with everything"]
    network, (x, time, cond) = perturbed(case.build()), inputs(case)
    prepared = network.prepare(cond)
    for step in (0.0, 1.0):
        assert torch.equal(network.run(x, time + step, prepared), network(x, time + step, cond))


def test_cross_attentions_have_keys_of_their_own() -> None:
    network = perturbed(UNet(FULL))
    x, time, cond = inputs(CASES["unet with everything"])
    y, prepared = network(x, time, cond), network.prepare(cond)
    assert len(prepared.context.keys_values) == 2 * 2 + 1 + 2 * 3  # down, middle, up
    for slot, part in enumerate(prepared.context.keys_values):
        changed = list(prepared.context.keys_values)
        changed[slot] = part + 1
        context = prepared.context._replace(keys_values=tuple(changed))
        assert not torch.equal(network.run(x, time, prepared._replace(context=context)), y)


def test_unet_refuses_what_it_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        replace(TINY, attention_levels=(2,))
    with pytest.raises(ValueError, match="go together"):
        replace(TINY, context_dim=4)
    with pytest.raises(ValueError, match="groups"):
        replace(TINY, norm_groups=5)
    with pytest.raises(ValueError, match="head_dim is 64"):
        UNet(replace(TINY, head_dim=64, attention_levels=(0,)))
    with pytest.raises(ValueError, match="multiples of 2"):
        UNet(TINY)(torch.zeros(1, 2, 8, 7), torch.zeros(1), Cond())


@pytest.mark.parametrize(("size", "millions"), [(64, 296), (128, 422), (256, 554), (512, 559)])
def test_adm_sizes_have_the_published_parameters(size: int, millions: int) -> None:
    """Table 4 of arXiv 2105.05233; the class table, 1000 rows, is the conditioner's here."""
    with torch.device("meta"):
        network = UNet(adm_config(size))
    classes = 1000 * 4 * ADM_SIZES[size][2]
    count = sum(p.numel() for p in network.parameters()) + classes
    assert round(count / 1e6) == millions


# Prior


def test_prior_is_causal() -> None:
    """What a token becomes depends on none behind it: the gradient of each later one is zero."""
    network = perturbed(PriorTransformer(PRIOR))
    sequence = torch.randn(1, 9, PRIOR.width, requires_grad=True)
    h = sequence
    for block in network.blocks:
        h = block(h, None)
    for position in range(9):
        (gradient,) = torch.autograd.grad(h[:, position].sum(), sequence, retain_graph=True)
        reached = (gradient[0] != 0).any(dim=-1)
        assert reached[: position + 1].all() and not reached[position + 1 :].any()


def test_prior_takes_texts_of_any_length_up_to_its_own() -> None:
    network = perturbed(PriorTransformer(PRIOR))
    x, time, cond = inputs(CASES["prior"])
    padded = replace(
        cond,
        tokens=torch.cat([cond.tokens, torch.full((B, 2, WIDTH), 9.0)], dim=1),
        mask=torch.cat([cond.mask, torch.zeros(B, 2, dtype=torch.bool)], dim=1),
    )
    torch.testing.assert_close(network(x, time, padded), network(x, time, cond))
    long = Cond(vector=cond.vector, tokens=torch.zeros(B, 8, WIDTH))
    with pytest.raises(ValueError, match="at most 7"):
        network(x, time, long)


def test_prior_reads_the_direction_of_the_text_embedding_alone() -> None:
    network = perturbed(PriorTransformer(PRIOR))
    x, time, cond = inputs(CASES["prior"])
    louder = replace(cond, vector=17 * cond.vector)
    torch.testing.assert_close(network(x, time, louder), network(x, time, cond))


# DiT


@pytest.mark.parametrize(("size", "millions"), [("S", 33), ("B", 130), ("L", 458), ("XL", 675)])
def test_dit_sizes_have_the_published_parameters(size: str, millions: int) -> None:
    """Table 1 of arXiv 2212.09748, patch 2, with the 1001 class rows that are no part here."""
    config = dit_config(size, 2, in_channels=4, out_channels=8)
    with torch.device("meta"):
        network = DiT(config)
    count = sum(p.numel() for p in network.parameters()) + 1001 * DIT_SIZES[size][1]
    assert round(count / 1e6) == millions


def test_dit_blocks_start_as_the_identity_and_can_leave_it() -> None:
    network, (x, time, cond) = DiT(DIT), inputs(CASES["dit"])
    block, h = network.blocks[0], torch.randn(B, 6, DIT.width)
    assert torch.equal(block(h, network.time(time), None, None), h)
    nn.init.normal_(network.out.weight)
    network(x, time, cond).square().sum().backward()
    assert all(b.modulation.weight.grad.abs().max() > 0 for b in network.blocks)


# Encoder


def encoder(timed: bool) -> Encoder:
    trunk = replace(TINY, attention_levels=(1,), out_channels=5)
    return perturbed(Encoder(EncoderConfig(trunk=trunk, grid=8, timed=timed)))


def test_encoder_with_and_without_time() -> None:
    x, time = torch.randn(B, 2, 8, 8), torch.tensor([0.0, 500.0, 999.0])
    timed, timeless = encoder(True), encoder(False)
    y = timed(x, time)
    assert y.shape == timeless(x).shape == (B, 5)
    assert not torch.allclose(timed(x, time + 50), y)
    torch.testing.assert_close(timed(x[[1]], time[[1]]), y[[1]])
    with pytest.raises(ValueError, match="needs a time"):
        timed(x)
    with pytest.raises(ValueError, match="takes no time"):
        timeless(x, time)
    with pytest.raises(ValueError, match="8"):
        timeless(torch.zeros(1, 2, 4, 4))


def test_encoder_gives_gradients_to_the_picture_and_to_its_weights() -> None:
    network, x = encoder(True), torch.randn(B, 2, 8, 8, requires_grad=True)
    network(x, torch.full((B,), 400.0))[:, 0].sum().backward()
    assert (x.grad != 0).any()
    for name, parameter in network.named_parameters():
        assert (parameter.grad != 0).any(), name
