"""The codebook and the autoencoder around it: closed forms, gradients, restarts, files."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from autoencoder import (
    AutoencoderConfig,
    AutoencoderKL,
    AutoencoderVQ,
    Latents,
    Quantiser,
    ReconstructionLossConfig,
    VQConfig,
    VQTraining,
    measure_latents,
    usage,
)

SIZES = AutoencoderConfig(
    in_channels=1,
    out_channels=1,
    block_out_channels=(8, 8),
    latent_channels=3,
    norm_num_groups=4,
    patch_size=2,
)
SMALL = VQConfig(sizes=SIZES, codes=7)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def small() -> AutoencoderVQ:
    torch.manual_seed(0)
    return SMALL.build().eval()


def pictures(n: int = 3) -> torch.Tensor:
    return torch.rand(n, 1, 16, 16, generator=generator()) * 2 - 1


def test_nearest_code_and_losses_by_hand() -> None:
    """Two codes, two vectors: equations 1 and 3 of arXiv 1711.00937 with pencil and paper."""
    quantiser = Quantiser(2, 2, None)
    with torch.no_grad():
        quantiser.codes.copy_(torch.tensor([[0.0, 0.0], [4.0, 0.0]]))
    z = torch.tensor([[1.0, 1.0], [3.0, 0.0]]).T.reshape(1, 2, 1, 2).requires_grad_()
    found = quantiser(z)
    assert found.chosen.tolist() == [[[0, 1]]]
    assert found.z.tolist() == [[[[0.0, 4.0]], [[0.0, 0.0]]]]
    assert found.codebook.item() == found.commitment.item() == pytest.approx(3 / 4)
    (to_z,) = torch.autograd.grad(found.z.sum(), z, retain_graph=True)
    assert torch.equal(to_z, torch.ones_like(z))  # straight through
    (to_codes,) = torch.autograd.grad(found.codebook.sum(), quantiser.codes, retain_graph=True)
    assert to_codes.tolist() == [[-0.5, -0.5], [0.5, 0.0]]  # 2 (e - z) / 4
    (to_z,) = torch.autograd.grad(found.commitment.sum(), z, retain_graph=True)
    assert to_z.flatten().tolist() == [0.5, -0.5, 0.5, 0.0]  # 2 (z - e) / 4
    for term, other in ((found.codebook, z), (found.commitment, quantiser.codes)):
        grads = torch.autograd.grad(term.sum(), other, allow_unused=True, retain_graph=True)
        assert grads[0] is None or not grads[0].any()


def test_unused_codes_are_placed_on_vectors_of_the_batch() -> None:
    z = torch.randn(4, 3, 2, 2, generator=generator())
    rows = z.movedim(1, -1).flatten(0, -2)
    quantiser = Quantiser(5, 3, patience=2)
    quantiser(z, generator())
    at_once = torch.cdist(quantiser.codes.detach(), rows).min(1).values
    assert at_once.max() == 0  # the first batch places all
    with torch.no_grad():
        quantiser.codes[4] = 100.0
    quantiser(z, generator())
    quantiser(z, generator())
    assert quantiser.codes[4, 0] == 100.0 and int(quantiser.idle[4]) == 2
    quantiser(z, generator())
    assert quantiser.codes[4].abs().max() < 10
    before = quantiser.codes.detach().clone()
    quantiser.idle.fill_(9)
    quantiser(z)  # without a generator nothing moves
    assert torch.equal(before, quantiser.codes)


def test_usage_of_known_frequencies() -> None:
    assert usage(torch.tensor([0, 1, 2, 3]), 8) == (0.5, pytest.approx(4.0))
    share, perplexity = usage(torch.tensor([[0, 0, 0], [1, 0, 0]]), 2)
    entropy = -(5 / 6) * math.log(5 / 6) - (1 / 6) * math.log(1 / 6)
    assert share == 1.0 and perplexity == pytest.approx(math.exp(entropy))


def test_indices_and_back() -> None:
    model, x = small(), pictures()
    index = model.indices(x)
    assert index.shape == (3, 4, 4) and index.max() < 7
    through, found = model(x)
    torch.testing.assert_close(model.from_indices(index), through)
    torch.testing.assert_close(model.decode(model.vectors(x)), through)
    assert torch.equal(found.chosen, index)


def test_latents_are_those_before_the_codebook() -> None:
    model, x = small(), pictures()
    mean, std = measure_latents(model, [x])
    torch.testing.assert_close(mean.float(), model.vectors(x).mean((0, 2, 3)))
    model.set_statistics(mean, std)
    space = Latents(model)
    z = space.encode(x, generator())
    torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(space.decode(z), model(x)[0], atol=1e-5, rtol=0)


def test_a_folder_gives_the_same_model(tmp_path: Path) -> None:
    model, x = small(), pictures()
    model.set_statistics(torch.zeros(3), torch.ones(3))
    model.save_pretrained(tmp_path)
    back = AutoencoderVQ.from_pretrained(tmp_path)
    assert back.vq == model.vq and back.fingerprint() == model.fingerprint()
    assert torch.equal(back(x)[0], model(x)[0])
    with pytest.raises(ValueError, match="config"):
        AutoencoderKL.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="_class_name"):
        AutoencoderKL(SIZES).save_pretrained(tmp_path / "kl")
        AutoencoderVQ.from_pretrained(tmp_path / "kl")


def test_wrong_settings_are_refused() -> None:
    for changes in ({"codes": 1}, {"patience": 0}):
        with pytest.raises(ValueError, match=next(iter(changes))):
            VQConfig(sizes=SIZES, **changes)


def test_training_learns_and_uses_its_codes() -> None:
    torch.manual_seed(0)
    loss = ReconstructionLossConfig(gradients=0.0, perceptual=0.0)
    task = VQTraining(autoencoder=SMALL, loss=loss).build(SimpleNamespace())
    images = torch.zeros(8, 1, 16, 16, dtype=torch.uint8)
    images[::2, :, ::2] = 255
    batch = SimpleNamespace(image=images)
    (player,) = task.players()
    optimiser, rng, seen = torch.optim.Adam(player.parameters, 3e-3), generator(), []
    for _ in range(40):
        terms = player.loss(batch, rng)
        optimiser.zero_grad()
        terms["loss"].mean().backward()
        optimiser.step()
        seen.append(float(terms["psnr"].mean()))
    assert seen[-1] > seen[0] + 5
    task.module.eval()
    assert len(task.model.indices(images.float() / 127.5 - 1).unique()) > 1
