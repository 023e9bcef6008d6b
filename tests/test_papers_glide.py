"""The shapes' world and its judge, exact posteriors, and GLIDE's conditioning."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from autoencoder.pixels import from_uint8
from ldm.conditioning import TextTowerConfig
from ldm.conditioning.caption import CaptionConfig
from ldm.conditioning.cond import Cond
from ldm.conditioning.masked import MaskedConfig, rectangles
from ldm.data.batch import Batch
from ldm.data.shapes import (
    SIZES,
    Shapes,
    attributes_of,
    captions,
    is_held_out,
    label_of,
    world,
)
from ldm.diffusion import VPCosine
from ldm.diffusion.guidance import gradient_of
from ldm.errors import DataError
from ldm.networks.dit import DiTConfig
from ldm.papers.glide_known import misfit, outside
from ldm.papers.shape_exact import ExactShapes
from ldm.papers.shape_judge import judge

TINY = TextTowerConfig(context_length=8, vocab_size=600, width=16, heads=2, layers=1)


def test_the_world_is_finite_and_its_pictures_differ() -> None:
    found = world()
    assert found.image.shape == (2700, 3, 16, 16)
    assert len(found.image.flatten(1).unique(dim=0)) == 2700
    every = attributes_of(torch.arange(100))
    assert torch.equal(label_of(every), torch.arange(100))
    assert len(set(captions(every))) == 100
    assert captions(torch.tensor([[0, 0, 0]])) == ("a red circle at the top left",)


def test_held_out_combinations_are_not_trained_on_but_their_pairs_are() -> None:
    every = attributes_of(torch.arange(100))
    trained = every[~is_held_out(every)]
    assert len(trained) == 80
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert len(trained[:, [i, j]].unique(dim=0)) == SIZES[i] * SIZES[j]
    labels = Shapes().whole().label
    assert labels is not None
    assert not is_held_out(attributes_of(labels)).any()


def test_mistaken_and_terse_captions_come_at_their_rates() -> None:
    plain, wrong = Shapes().whole(), Shapes(mistaken=0.2).whole()
    short = Shapes(terse=0.3).whole()
    assert plain.caption and wrong.caption and short.caption
    differ = [a != b for a, b in zip(plain.caption, wrong.caption, strict=True)]
    # one in 80 of the mistaken has the right caption by chance
    assert sum(differ) / len(differ) == pytest.approx(0.2 * 79 / 80, abs=0.03)
    cut = [len(text.split()) == 3 for text in short.caption]
    assert sum(cut) / len(cut) == pytest.approx(0.3, abs=0.03)


def test_usual_greys_come_as_often_as_asked_and_captions_stay_even() -> None:
    data, found = Shapes(usual=3, mistaken=0.1), world()
    times = data.rows().bincount(minlength=len(found.label))
    trained = ~is_held_out(found.attributes)
    assert not times[~trained].any()
    assert (times[trained & found.usual] == 3).all() and (times[trained & ~found.usual] == 1).all()
    labels = data.whole().label
    assert labels is not None
    assert set(labels.bincount().tolist()) == {0, 9 * (3 + 1 + 1)}
    with pytest.raises(DataError, match="usual is 0"):
        Shapes(usual=0)


def test_exact_guidance_leans_to_the_usual_grey() -> None:
    """p(caption | x_t) is the higher where the background is usual with the caption's colour."""
    process, found = VPCosine(), world()
    even, leaning = ExactShapes(process), ExactShapes(process, Shapes(usual=3, mistaken=0.1))
    assert len(leaning.pictures()[0]) == 80 * 9 * 5
    red = (found.label == 1) & (found.details[:, 0] == 4)
    t = torch.full((3,), 0.99, dtype=torch.float64)
    # pictures of the three greys without noise: at this time they say little but their grey
    x = process.at(t, from_uint8(found.image[red]))[0] * from_uint8(found.image[red])
    wanted = torch.tensor([1, 1, 1])
    assert torch.equal(found.usual[red], torch.tensor([True, False, False]))
    flat = even.log_prob(wanted)(x, t)
    asked = leaning.log_prob(wanted)(x, t)
    assert asked.argmax() == 0
    assert asked[0] - asked[1:].max() > flat[0] - flat[1:].max() + 0.005


def test_the_judge_names_noised_pictures() -> None:
    found = world()
    rows = torch.arange(0, 2700, 9)
    x = from_uint8(found.image[rows])
    seen = judge(x)
    assert torch.equal(seen.attributes, found.attributes[rows])
    assert torch.equal(seen.details, found.details[rows])
    assert seen.distance.max() < 1e-6
    noised = x + 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    assert judge(noised).accuracy(found.attributes[rows]) > 0.99


def test_the_exact_posterior_of_a_caption_is_bayes_rule() -> None:
    process, found = VPCosine(), world()
    exact = ExactShapes(process, Shapes(mistaken=0.1))
    pictures, labels = exact.pictures()
    t = torch.tensor([0.8, 0.6], dtype=torch.float64)
    noise = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    x = process.perturb(from_uint8(found.image[[30, 700]]), t, noise).double()
    alpha, sigma = process.at(t, x)
    gaps = x[:, None] - alpha[:, None] * pictures.double()[None]
    likelihood = (-gaps.square().flatten(2).sum(2) / (2 * sigma.flatten(1).square())).softmax(1)
    wanted = labels[[20, 900]]
    told = 0.9 * (labels[None] == wanted[:, None]).double() + 0.1 / 80
    by_hand = (likelihood * told).sum(1).log()
    assert (exact.log_prob(wanted)(x, t) - by_hand).abs().max() < 1e-4
    gradient = gradient_of(exact.log_prob(wanted), x, t)
    step = 1e-4 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).double()
    rise = exact.log_prob(wanted)(x + step, t) - exact.log_prob(wanted)(x - step, t)
    assert (rise - 2 * (gradient * step).flatten(1).sum(1)).abs().max() < 1e-5
    # Tweedie: the caption moves the mean by sigma^2/alpha times that gradient
    moved = exact.denoise(wanted)(x, t).x0 - exact.denoise(None)(x, t).x0
    assert (moved - sigma.square() / alpha * gradient).abs().max() < 1e-5


def test_a_dropped_caption_is_the_empty_one() -> None:
    torch.manual_seed(0)
    caption = CaptionConfig(text=TINY, dim=12, drop=1.0).build()
    said = Batch(key=("", ""), caption=("a cat", "red"))
    dropped = caption(said, generator=torch.Generator().manual_seed(0))
    null = caption.null(2)
    assert torch.equal(dropped.vector, null.vector) and torch.equal(dropped.tokens, null.tokens)
    kept = caption(said)
    assert not torch.allclose(kept.vector, null.vector)
    # beyond the end of the text stands the learned padding
    assert torch.equal(null.tokens[0, 2:], caption.padding[2:])


def test_the_text_transformer_learns_in_every_part() -> None:
    torch.manual_seed(0)
    caption = CaptionConfig(text=TINY, dim=12).build()
    cond = caption(Batch(key=("", ""), caption=("a cat", "a red dog")))
    (cond.vector.square().sum() + (cond.tokens**3).sum()).backward()
    for name, parameter in caption.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_the_mask_says_which_pixels_are_known() -> None:
    masked = MaskedConfig(side=8).build()
    image = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    alpha = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    alpha[:, :, :3] = 255
    concat = masked(Batch(key=("", ""), image=torch.cat([image, alpha], 1))).concat
    assert concat is not None
    assert torch.equal(concat[:, 3:, :3], torch.ones(2, 1, 3, 8)) and not concat[:, :, 3:].any()
    assert torch.equal(concat[:, :3, :3], from_uint8(image)[:, :, :3])
    assert not masked.null(2).concat.any()
    whole = masked(Batch(key=("", ""), image=image)).concat
    assert whole[:, 3].all()


def test_erased_rectangles_cover_what_they_should() -> None:
    config = MaskedConfig(side=16, least=0.25)
    holes = rectangles(2000, config, torch.Generator().manual_seed(0))
    rows, columns = holes.amax(3).sum((1, 2)), holes.amax(2).sum((1, 2))
    assert torch.equal(holes.sum((1, 2, 3)), rows * columns)
    assert rows.min() >= 4 and rows.max() == 16
    # sides are uniform from 4 to 16: their product has the mean 10 * 10
    assert float(holes.sum((1, 2, 3)).mean()) == pytest.approx(100, rel=0.05)


def test_a_dit_reads_what_is_joined_to_x() -> None:
    torch.manual_seed(0)
    plain = DiTConfig(in_channels=3, out_channels=3, patch_size=2, depth=1, width=16, heads=2)
    network = dataclasses.replace(plain, concat_channels=2).build()
    torch.nn.init.normal_(network.out.weight)
    x, time = torch.randn(2, 3, 4, 4), torch.tensor([1.0, 500.0])
    concat = torch.randn(2, 2, 4, 4)
    first, other = (network(x, time, Cond(concat=c)) for c in (concat, concat.flip(0)))
    assert not torch.allclose(first, other)
    with pytest.raises(ValueError, match="2 channels"):
        network(x, time, Cond())


def test_misfit_is_zero_for_a_right_picture_and_sees_the_hole_alone() -> None:
    found, rows = world(), torch.tensor([5, 1500])
    x, wanted = from_uint8(found.image[rows]), found.attributes[rows]
    known = outside(wanted[:, 2])
    grey = found.details[rows][:, 1]
    assert misfit(x, wanted, grey, ~known) < 1e-6
    assert misfit(torch.where(known, x + 1, x), wanted, grey, ~known) < 1e-6
    assert misfit(torch.where(known, x, x + 0.5), wanted, grey, ~known) > 0.1
