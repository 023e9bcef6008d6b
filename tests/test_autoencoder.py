"""The autoencoder itself: beside diffusers, its shapes, its files, its latents."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from autoencoder import (
    AutoencoderConfig,
    AutoencoderKL,
    DiagonalGaussian,
    Latents,
    fit_linear,
    measure_latents,
)

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
SMALL = AutoencoderConfig(
    block_out_channels=(16, 32), latent_channels=4, norm_num_groups=8, patch_size=2, sample_size=16
)
PEERS = [
    AutoencoderConfig(block_out_channels=(32, 64), norm_num_groups=16, scaling_factor=0.5),
    AutoencoderConfig(
        block_out_channels=(16, 16, 32),
        layers_per_block=2,
        latent_channels=8,
        norm_num_groups=8,
        act_fn="relu",
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.1,
        latents_mean=(0.25,) * 8,
        latents_std=(2.0,) * 8,
        sample_size=64,
    ),
]


def small(seed: int = 0) -> AutoencoderKL:
    torch.manual_seed(seed)
    return AutoencoderKL(SMALL).eval()


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("config", PEERS)
def test_is_diffusers_autoencoder(config: AutoencoderConfig, tmp_path: Path) -> None:
    """Same keys, shapes, fields and outputs, in both directions through the folder."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    ours = AutoencoderKL(config).eval()
    for parameter in ours.parameters():  # norms and biases away from ones and zeros
        parameter.data += 0.05 * torch.randn_like(parameter)
    ours.save_pretrained(tmp_path / "ours", dtype=torch.float32)
    peer = diffusers.AutoencoderKL.from_pretrained(tmp_path / "ours").eval()
    shapes = {k: v.shape for k, v in ours.state_dict().items()}
    assert shapes == {k: v.shape for k, v in peer.state_dict().items()}
    x = noise(2, 3, 32, 32).clamp(-1, 1)
    with torch.no_grad():
        posterior, theirs = ours.encode(x), peer.encode(x).latent_dist
        z = posterior.mode()
        torch.testing.assert_close(z, theirs.mean, rtol=0, atol=1e-5)
        torch.testing.assert_close(posterior.logvar, theirs.logvar, rtol=0, atol=1e-5)
        torch.testing.assert_close(ours.decode(z), peer.decode(z).sample, rtol=0, atol=1e-5)
    peer.save_pretrained(tmp_path / "peer")
    back = AutoencoderKL.from_pretrained(tmp_path / "peer")
    assert back.config == config
    assert all(torch.equal(v, peer.state_dict()[k]) for k, v in back.state_dict().items())
    theirs_json, ours_json = (
        json.loads((tmp_path / who / CONFIG).read_text()) for who in ("peer", "ours")
    )
    assert {
        k: v for k, v in theirs_json.items() if k not in ("_diffusers_version", "_name_or_path")
    } == ours_json


def test_patches_are_moved_not_changed() -> None:
    """Space to depth and back is the identity, and a patch becomes one position."""
    x = noise(2, 3, 12, 8)
    deep = F.pixel_unshuffle(x, 4)
    assert deep.shape == (2, 48, 3, 2)
    assert torch.equal(F.pixel_shuffle(deep, 4), x)
    assert torch.equal(deep[0, :16, 1, 1], x[0, 0, 4:8, 4:8].flatten())


@pytest.mark.parametrize("patch,widths", [(1, (16,)), (2, (16, 16)), (8, (16, 32)), (4, (16,))])
def test_shapes(patch: int, widths: tuple[int, ...]) -> None:
    config = replace(SMALL, patch_size=patch, block_out_channels=widths)
    model = AutoencoderKL(config)
    assert model.factor == patch * 2 ** (len(widths) - 1)
    x = noise(2, 3, 2 * model.factor, 3 * model.factor)
    posterior = model.encode(x)
    assert posterior.moments.shape == (2, 8, 2, 3)
    assert model.decode(posterior.mode()).shape == x.shape == model(x).shape


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"30 x 33.*multiples of 4.*32 x 32"):
        small().encode(noise(1, 3, 30, 33))
    with pytest.raises(ValueError, match=r"\[b 3 H W\].*\(1, 4, 32, 32\)"):
        small().encode(noise(1, 4, 32, 32))
    with pytest.raises(ValueError, match=r"\[b 4 h w\]"):
        small().decode(noise(1, 3, 4, 4))


def test_posterior_against_torch() -> None:
    moments = noise(3, 8, 2, 5)
    ours = DiagonalGaussian(moments)
    theirs = torch.distributions.Normal(ours.mean, ours.std)
    standard = torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(theirs, standard).sum(dim=(1, 2, 3))
    torch.testing.assert_close(ours.kl(), expected)
    assert DiagonalGaussian(torch.zeros(2, 4, 1, 1)).kl().abs().max() == 0.0
    torch.testing.assert_close(ours.moments, moments)


def test_posterior_sample() -> None:
    mean, logvar = torch.full((1, 1, 100, 100), 3.0), torch.full((1, 1, 100, 100), -1.0)
    posterior = DiagonalGaussian(torch.cat([mean, logvar], dim=1))
    first, again, other = (
        posterior.sample(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.mean().item() == pytest.approx(3.0, abs=0.03)
    assert first.var().item() == pytest.approx(torch.tensor(-1.0).exp().item(), rel=0.05)


def test_posterior_survives_extremes() -> None:
    wild = DiagonalGaussian(
        torch.cat([torch.zeros(1, 1, 1, 2), torch.tensor([[[[-1e9, 1e9]]]])], 1)
    )
    assert wild.logvar.tolist() == [[[[-30.0, 20.0]]]]
    assert wild.kl().isfinite().all() and wild.sample().isfinite().all()
    half = DiagonalGaussian(noise(1, 4, 2, 2).bfloat16())
    assert half.mean.dtype == torch.float32 == half.sample().dtype
    with pytest.raises(ValueError, match="mean, then log-variance"):
        DiagonalGaussian(torch.zeros(1, 3, 2, 2))


def test_latents_have_zero_mean_and_unit_spread() -> None:
    model = small()
    with torch.no_grad():  # a posterior that is neither centred nor narrow
        model.quant_conv.bias.copy_(torch.tensor([5.0, -2.0, 0.0, 1.0, 0.0, -1.0, -3.0, 1.0]))
    data = noise(64, 3, 32, 32)
    mean, std = measure_latents(model, data.split(24))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        drawn = model.encode(data).sample(generator)
    torch.testing.assert_close(mean.float(), drawn.mean(dim=(0, 2, 3)), atol=0.05, rtol=0)
    torch.testing.assert_close(std.float(), drawn.std(dim=(0, 2, 3)), atol=0.05, rtol=0)
    model.set_statistics(mean, std)
    space = Latents(model)
    with torch.no_grad():
        z = space.encode(data, generator)
        assert z.mean(dim=(0, 2, 3)).abs().max() < 0.05
        assert (z.std(dim=(0, 2, 3)) - 1).abs().max() < 0.05
        moments = model.encode(data).moments
        same = torch.Generator().manual_seed(7), torch.Generator().manual_seed(7)
        torch.testing.assert_close(
            space.from_moments(moments, same[0]), space.encode(data, same[1])
        )
        torch.testing.assert_close(
            space.decode(space.encode(data[:2])), model(data[:2]), atol=1e-5, rtol=1e-4
        )
    with pytest.raises(ValueError, match=r"\[b 8 h w\]"):
        space.from_moments(moments[:, :4])


def test_latents_of_published_scale() -> None:
    """(z - shift) * scale, where no statistics were measured."""
    model = AutoencoderKL(replace(SMALL, shift_factor=0.5, scaling_factor=0.25))
    moments = torch.cat([torch.full((1, 4, 1, 1), 2.5), torch.zeros(1, 4, 1, 1)], 1)
    assert Latents(model).from_moments(moments).flatten().tolist() == [0.5] * 4


def linear() -> AutoencoderKL:
    torch.manual_seed(0)
    config = replace(SMALL, linear_path=True)
    return AutoencoderKL(config).eval()


def test_linear_path_is_principal_components() -> None:
    """Fitted, the whole model is the projection on the first components, about the colour means."""
    model = linear()
    mixing = noise(8, 48) * torch.linspace(3.0, 0.1, 8)[:, None]  # squares of rank 8
    squares = noise(40, 8, 6, 6).permute(0, 2, 3, 1) @ mixing
    data = F.pixel_shuffle(squares.permute(0, 3, 1, 2), 4) + 0.3
    fit_linear(model, data.split(16))
    flat = F.pixel_unshuffle(data, 4).permute(0, 2, 3, 1).reshape(-1, 48).double()
    centre = flat.reshape(-1, 3, 16).mean(dim=(0, 2)).repeat_interleave(16)
    _, _, rows = torch.linalg.svd(flat - centre, full_matrices=False)
    projected = (flat - centre) @ rows[:4].T @ rows[:4] + centre
    with torch.no_grad():
        posterior = model.encode(data)
        y = model.decode(posterior.mode())
    ours = F.pixel_unshuffle(y, 4).permute(0, 2, 3, 1).reshape(-1, 48).double()
    torch.testing.assert_close(ours, projected, atol=1e-3, rtol=1e-3)
    measured = posterior.mean.square().mean(dim=(0, 2, 3)).sqrt().double()
    std = ((flat - centre) @ rows[:4].T).square().mean(0).sqrt()
    torch.testing.assert_close(measured, (std / std.mean()).sqrt(), atol=1e-2, rtol=0)
    assert (posterior.logvar == -7.0).all()


def test_linear_path_learns_and_travels(tmp_path: Path) -> None:
    """The silent layers get gradients; the folder keeps the path; diffusers' class is not named."""
    model = linear()
    x = noise(8, 3, 16, 16)
    fit_linear(model, [x])
    (model.decode(model.encode(x).sample()) - x).square().mean().backward()
    last = model.quant_conv.weight.grad, model.decoder.conv_out.weight.grad
    assert all(g.abs().sum() > 0 for g in last)
    model.save_pretrained(tmp_path)
    assert AutoencoderKL.from_pretrained(tmp_path).config.linear_path
    assert json.loads((tmp_path / CONFIG).read_text())["_class_name"] == "PatchAutoencoderKL"
    with pytest.raises(ValueError, match="linear_path=True"):
        fit_linear(small(), [x])
    with pytest.raises(ValueError, match="at least one batch"):
        fit_linear(linear(), [])


def test_measuring_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        measure_latents(small(), [])


def test_round_trip_and_fingerprint(tmp_path: Path) -> None:
    model = small()
    model.set_statistics(noise(4).double(), noise(4).double().abs() + 0.1)
    model.save_pretrained(tmp_path)
    back = AutoencoderKL.from_pretrained(tmp_path)
    assert back.config == model.config and not back.training
    assert all(t.dtype == torch.float16 for t in load_file(tmp_path / WEIGHTS).values())
    assert all(t.dtype == torch.float32 for t in back.state_dict().values())
    assert sorted(p.name for p in tmp_path.iterdir()) == [CONFIG, WEIGHTS]
    assert back.fingerprint() == model.fingerprint()
    assert len(model.fingerprint()) == 16


def test_fingerprint_sees_one_bit_and_the_config(tmp_path: Path) -> None:
    model = small()
    before = model.fingerprint()
    weight = model.decoder.conv_out.weight
    with torch.no_grad():
        stored = weight.half()
        stored.view(torch.int16)[0, 0, 0, 0] ^= 1
        weight.copy_(stored)
    assert model.fingerprint() != before
    other = small()
    other.config = replace(SMALL, scaling_factor=2.0)
    assert other.fingerprint() != before == small().fingerprint()


def saved(folder: Path) -> Path:
    small().save_pretrained(folder)
    return folder


def test_truncated_weights(tmp_path: Path) -> None:
    path = saved(tmp_path) / WEIGHTS
    whole = path.read_bytes()
    for kept in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=rf"{WEIGHTS} is cut or damaged"):
            AutoencoderKL.from_pretrained(tmp_path)


def test_missing_extra_and_misshapen_tensors(tmp_path: Path) -> None:
    path = saved(tmp_path) / WEIGHTS
    good = load_file(path)
    name = "decoder.conv_in.bias"
    save_file({k: v for k, v in good.items() if k != name}, path)
    with pytest.raises(ValueError, match=rf"{WEIGHTS}.*1 tensors missing \({name}\)"):
        AutoencoderKL.from_pretrained(tmp_path)
    save_file({**good, "rogue": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"1 tensors not expected \(rogue\)"):
        AutoencoderKL.from_pretrained(tmp_path)
    save_file({**good, name: torch.zeros(7)}, path)
    with pytest.raises(ValueError, match=rf"wrong shape \({name} is \(7,\), not \(32,\)\)"):
        AutoencoderKL.from_pretrained(tmp_path)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{CONFIG} cannot be read"):
        AutoencoderKL.from_pretrained(tmp_path)
    (saved(tmp_path) / WEIGHTS).unlink()
    torch.save({}, tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="safetensors only"):
        AutoencoderKL.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"patch_sise": 2}, "'patch_sise'; did you mean 'patch_size'"),
        ({"zzz": 2}, "known keys"),
        ({"block_out_channels": [20, 32]}, "multiple of norm_num_groups = 8"),
        ({"block_out_channels": []}, "at least one"),
        ({"block_out_channels": 16}, "must be a tuple"),
        ({"down_block_types": ["Other2D"] * 2}, "DownEncoderBlock2D"),
        ({"act_fn": "tanh"}, "choose from"),
        ({"patch_size": 0}, "at least 1"),
        ({"latents_mean": [0.0] * 4}, "together"),
        ({"latents_mean": [0.0] * 3, "latents_std": [1.0] * 3}, "4 latent channels"),
        ({"latents_mean": [0.0] * 4, "latents_std": [0.0] * 4}, "positive"),
    ],
)
def test_bad_config(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = saved(tmp_path) / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message) as caught:
        AutoencoderKL.from_pretrained(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "null", "\x00"])
def test_config_that_is_no_config(tmp_path: Path, text: str) -> None:
    (saved(tmp_path) / CONFIG).write_text(text)
    with pytest.raises(ValueError, match=CONFIG):
        AutoencoderKL.from_pretrained(tmp_path)


def test_diverged_weights_are_not_saved(tmp_path: Path) -> None:
    for value in (1e6, float("nan"), float("inf")):
        model = small()
        model.decoder.conv_in.bias.data[0] = value
        with pytest.raises(ValueError, match=r"decoder\.conv_in\.bias"):
            model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_config_has_every_field_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = set(diffusers.AutoencoderKL().config) - {"down_block_types", "up_block_types"}
    ours = {f.name for f in fields(AutoencoderConfig)}
    assert ours == {k for k in theirs if not k.startswith("_")} | {"patch_size", "linear_path"}
    published = {"_class_name": "AutoencoderKL", "block_out_channels": [32]}
    assert AutoencoderConfig.from_json(published).scaling_factor == 0.18215


def test_package_imports_nothing_of_ldm() -> None:
    for path in (Path(__file__).parent.parent / "autoencoder").glob("*.py"):
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        imported = {w[1].split(".")[0] for w in lines if w[:1] in (["import"], ["from"])}
        assert "ldm" not in imported, path
