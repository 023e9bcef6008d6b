"""Stages: they learn, they save and load exactly, and they refuse what does not fit."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tiny import DECODER, PRIOR, WIDTH, stir

from autoencoder import AutoencoderConfig, AutoencoderKL, Latents
from ldm import codec
from ldm.conditioning import LabelsConfig, UnclipConditionerConfig
from ldm.data.batch import Batch, TextFeatures
from ldm.diffusion import Ddim, Flow, LinearFlow, Mse, Noise, UniformGrid
from ldm.errors import CheckpointError, ConfigError, DataError
from ldm.networks.gated_mlp import GatedMlpConfig
from ldm.networks.unet import UNetConfig
from ldm.samplers import Sampler
from ldm.stage import PixelCodec, PrincipalLatentCodec, Stage, StageConfig


def text(b: int) -> TextFeatures:
    generator = torch.Generator().manual_seed(b)
    pooled = torch.nn.functional.normalize(torch.randn(b, WIDTH, generator=generator), dim=-1)
    tokens = torch.randn(b, 16, 32, generator=generator)
    return TextFeatures(tokens, pooled, torch.ones(b, 16, dtype=torch.bool))


def test_a_stage_learns_eight_pictures_by_heart() -> None:
    """Labels 0..7 to eight flat pictures: after training, each label draws its own picture."""
    torch.manual_seed(0)
    config = StageConfig(
        codec=PixelCodec(),
        conditioner=LabelsConfig(num_classes=8, dim=32),
        network=UNetConfig(
            in_channels=3, out_channels=3, channels=(32,), blocks_per_level=1, vector_dim=32
        ),
        process=LinearFlow(),
        prediction=Flow(),
        objective=Mse(),
    )
    stage, generator = config.build(), torch.Generator().manual_seed(0)
    corners = torch.tensor([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)]) * 255
    image = corners.byte()[:, :, None, None].expand(8, 3, 4, 4)
    batch = Batch(key=tuple("abcdefgh"), image=image, label=torch.arange(8))
    optimizer = torch.optim.AdamW(stage.parameters(), lr=3e-3)
    many = batch.replace(
        key=batch.key * 8,
        image=image.repeat(8, 1, 1, 1),
        label=batch.label.repeat(8),  # type: ignore[union-attr]
    )
    for _ in range(150):
        optimizer.zero_grad()
        stage.loss(many, generator)["loss"].mean().backward()
        optimizer.step()
    sampler = Sampler(solver=Ddim(), grid=UniformGrid(), steps=10)
    drawn = stage.codec.decode(stage.eval().sample(batch, sampler, Noise(range(8)), (3, 4, 4)))
    right = (drawn.mean((2, 3)) > 0) == (corners > 0)
    assert right.all(), f"{int((~right).sum())} of 24 channel signs are wrong"


def test_save_and_load_give_the_same_samples(tmp_path: Path) -> None:
    stage = stir(PRIOR.build()).eval()
    stage.codec.measure_vectors([torch.randn(50, WIDTH)])  # type: ignore[attr-defined]
    stage.load_state_dict({k: v.half().float() for k, v in stage.state_dict().items()})
    stage.save_pretrained(tmp_path, {"clip": "abc"})
    loaded = Stage.from_pretrained(tmp_path)
    batch, sampler = Batch(key=("a", "b"), text=text(2)), Sampler(steps=3, guidance=2.0)
    first, second = (s.sample(batch, sampler, Noise([0, 1]), (WIDTH,)) for s in (stage, loaded))
    assert torch.equal(first, second)
    assert loaded.made_with == {"clip": "abc"}
    assert loaded.fingerprint() == stage.fingerprint()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", 99, "format 99"),
        ("sha256", "0", "is damaged"),
    ],
)
def test_a_changed_field_is_refused(
    tmp_path: Path, field: str, value: object, message: str
) -> None:
    PRIOR.build().save_pretrained(tmp_path, {})
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(CheckpointError, match=message):
        Stage.from_pretrained(tmp_path)


def test_another_configuration_than_the_weights_is_refused(tmp_path: Path) -> None:
    PRIOR.build().save_pretrained(tmp_path, {})
    path = tmp_path / "config.json"
    body = json.loads(path.read_text())
    body["stage"]["network"]["depth"] = 2
    path.write_text(json.dumps(body))
    with pytest.raises(CheckpointError, match=r"Missing key.*blocks\.1"):
        Stage.from_pretrained(tmp_path)


def test_latent_stages_ask_for_their_autoencoder() -> None:
    with pytest.raises(ConfigError, match="give it the autoencoder's codec"):
        DECODER.build()


def test_codecs_invert_and_normalise() -> None:
    image = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    pixels = codec.Pixels()
    x0 = pixels.encode(Batch(key=("a", "b"), image=image))
    assert x0.abs().max() <= 1
    assert torch.equal(((pixels.decode(x0) + 1) * 127.5).round().byte(), image)
    embeddings = codec.Embeddings(WIDTH)
    unit = torch.nn.functional.normalize(torch.randn(500, WIDTH) + 1.0, dim=-1)
    embeddings.measure_vectors(unit.split(100))
    encoded = embeddings.encode(Batch(key=("",) * 500, image_embedding=unit))
    assert torch.allclose(encoded.mean(0), torch.zeros(WIDTH), atol=1e-5)
    assert torch.allclose(encoded.var(0).mean(), torch.tensor(1.0), atol=1e-4)
    assert torch.allclose(embeddings.decode(encoded), unit, atol=1e-5)
    with pytest.raises(DataError, match="the batch has no image_embedding"):
        embeddings.encode(Batch(key=("a",)))


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_embeddings_are_whitened_along_their_principal_directions(whitening: float) -> None:
    spread = torch.logspace(0, -2, WIDTH)
    turned = torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0]
    x = (torch.randn(4000, WIDTH) * spread) @ turned.T + 3.0
    embeddings = codec.Embeddings(WIDTH, whitening)
    embeddings.measure_vectors([x])
    encoded = embeddings.encode(Batch(key=("",) * 4000, image_embedding=x))
    covariance = torch.cov(encoded.T)
    assert torch.allclose(covariance, covariance.diag().diag(), atol=1e-3)
    exponent = torch.log(covariance[0, 0] / covariance[-1, -1]) / 2 / math.log(100)
    assert math.isclose(exponent, 1 - whitening, abs_tol=0.05)


def test_embeddings_in_fewer_directions_than_entries_still_encode() -> None:
    few = torch.randn(3, WIDTH)
    embeddings = codec.Embeddings(WIDTH)
    embeddings.measure_vectors([few])
    encoded = embeddings.encode(Batch(key=("",) * 3, image_embedding=few))
    assert encoded.isfinite().all() and encoded.abs().max() < 10 * WIDTH
    with pytest.raises(ConfigError, match=r"whitening = 1\.5: give 0"):
        codec.Embeddings(WIDTH, 1.5)


def test_stored_moments_and_pictures_give_the_same_latents() -> None:
    model = AutoencoderKL(
        AutoencoderConfig(block_out_channels=(16,), norm_num_groups=4, patch_size=4)
    )
    latents = codec.Latents(Latents(model))
    image = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        moments = model.encode(codec.Pixels().encode(Batch(key=("a", "b"), image=image))).moments
    stored = latents.encode(Batch(key=("a", "b"), latent=moments))
    assert torch.allclose(stored, latents.encode(Batch(key=("a", "b"), image=image)), atol=1e-6)


def test_a_gated_mlp_on_principal_latents_trains_draws_and_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    autoencoder = AutoencoderKL(
        AutoencoderConfig(
            block_out_channels=(16,), norm_num_groups=4, patch_size=4, latent_channels=2
        )
    ).eval()
    latents = codec.Latents(Latents(autoencoder))
    told = UnclipConditionerConfig(
        embed_dim=WIDTH, text_dim=8, context_length=5, context_dim=12, drop_image=0.5,
        drop_token=0.1, pooled_text=True, image_noise=0.5, assumed_noise=0.2,
    )  # fmt: skip
    config = StageConfig(
        codec=PrincipalLatentCodec(grid=(2, 4, 4), kept=10),
        conditioner=told,
        network=GatedMlpConfig(
            dim=10, width=16, hidden=16, depth=2, cond_dim=8, vector_dim=told.vector_dim,
            context_dim=12, attention_blocks=(1,), attention_dim=8, head_dim=4,
        ),
        process=LinearFlow(),
        prediction=Flow(),
        objective=Mse(),
    )  # fmt: skip
    stage = config.build(latents)
    text = TextFeatures(
        torch.randn(40, 5, 8), torch.randn(40, WIDTH), torch.ones(40, 5, dtype=torch.bool)
    )
    batch = Batch(
        key=("",) * 40,
        image=torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8),
        image_embedding=torch.randn(40, WIDTH),
        text=text,
    )
    stage.codec.measure([batch])
    optimizer = torch.optim.Adam(stage.parameters(), lr=1e-2)
    losses = []
    for step in range(60):
        loss = stage.loss(batch, torch.Generator().manual_seed(step % 3))["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    stage.save_pretrained(tmp_path, {}, "int8")
    loaded = Stage.from_pretrained(tmp_path, latents=latents)
    assert torch.equal(loaded.codec.directions, stage.codec.directions)
    sampler = Sampler(solver=Ddim(), grid=UniformGrid(), steps=3, guidance=2.0)

    def draw(of: Stage, rows: slice) -> torch.Tensor:
        some = batch.replace(
            key=batch.key[rows], image=None, image_embedding=batch.image_embedding[rows],
            text=text[rows],
        )  # fmt: skip
        noise = Noise(range(40)[rows])
        with torch.no_grad():
            return of.sample(some, sampler, noise, of.codec.shape(16, 16))

    together, alone = draw(loaded, slice(0, 4)), draw(loaded, slice(2, 3))
    assert together.shape == (4, 10) and torch.allclose(together[2:3], alone, atol=1e-5)
    assert loaded.codec.decode(together).shape == (4, 3, 16, 16)
    assert torch.allclose(draw(stage.eval(), slice(0, 4)), together, atol=0.1)
