"""The README's path on the fixture shards with tiny parts: train, export, encode, draw, refuse."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import AUTOENCODER, CLIP, DECODER, PRIOR, WIDTH

from autoencoder import AutoencoderTraining, ReconstructionLossConfig
from ldm import encoding, export, recipe
from ldm.data.groups import ShardConfig
from ldm.errors import CheckpointError, ConfigError, DataError
from ldm.pipeline import TextToImage
from ldm.recipe import Recipe, TaskConfig
from ldm.samplers import Sampler
from ldm.stage import Stage
from ldm.tasks import ClipTraining, StageTraining
from ldm.training import LoopConfig, OptimConfig

FIXTURE = Path(__file__).parent / "fixtures" / "emoji"
CPU = torch.device("cpu")


def make(
    task: TaskConfig, source: Path, fields: Sequence[str], size: int | None = None, images: int = 16
) -> Recipe:
    return Recipe(
        task=task,
        data=ShardConfig(
            sources=(str(source),),
            batch_size=8,
            fields=tuple(fields),  # type: ignore[arg-type]
            size=size,
        ),
        optim=OptimConfig(lr=1e-3, warmup_images=8),
        loop=LoopConfig(images=images, log_every=8, sample_every=16, save_every=8),
    )


class Workshop:
    """The folders of one pass through all stages."""

    def __init__(self, root: Path) -> None:
        self.root, self.model, self.encoded = root, root / "model", root / "encoded"
        self.recipes: dict[str, Recipe] = {}

    def train(self, part: str, made: Recipe) -> None:
        self.recipes[part] = made
        recipe.run(made, self.root / part, device=CPU, progress=False)
        export.export_part(self.root / part, part, self.model)

    def encode(self, out: Path) -> None:
        parts = (str(self.model / "autoencoder"), str(self.model / "clip"))
        encoding.encode(FIXTURE / "heldout", out, *parts, 32, "cpu")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    shop = Workshop(tmp_path_factory.mktemp("workshop"))
    loss = ReconstructionLossConfig(perceptual=0.0)
    sizes = dataclasses.replace(AUTOENCODER, latents_mean=None, latents_std=None)
    training = AutoencoderTraining(autoencoder=sizes, loss=loss, measure=16)
    shop.train("autoencoder", make(training, FIXTURE / "train", ["image"], 32))
    shop.train("clip", make(ClipTraining(clip=CLIP), FIXTURE / "train", ["image", "caption"], 32))
    shop.encode(shop.encoded)
    clip, autoencoder = str(shop.model / "clip"), str(shop.model / "autoencoder")
    prior = StageTraining(stage=PRIOR, clip=clip, shape=(WIDTH,), measure=16)
    shop.train("prior", make(prior, shop.encoded, ["image_embedding", "caption"]))
    decoder = StageTraining(
        stage=DECODER, clip=clip, autoencoder=autoencoder, shape=(4, 4, 4), preview=Sampler(steps=2)
    )
    fields = ["latent", "image_embedding", "caption"]
    shop.train("decoder", make(decoder, shop.encoded, fields))
    export.finish(shop.model, 32, Sampler(steps=2), Sampler(steps=2))
    return shop


def test_what_was_trained_draws(workshop: Workshop) -> None:
    pipe = TextToImage.from_pretrained(workshop.model)
    pipe.set_progress_bar_config(disable=True)
    images = pipe(["a cat", "a dog"], seed=[0, 1], output_type="pt").images
    assert images.shape == (2, 3, 32, 32) and images.isfinite().all()


def test_runs_leave_logs_pictures_and_their_recipe(workshop: Workshop) -> None:
    for part in ("autoencoder", "decoder"):
        run = workshop.root / part
        assert (run / "samples" / "000000016.png").exists()
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        assert [line["images"] for line in lines] == [8, 16]
        assert json.loads((run / "recipe.json").read_text())["kind"] == "Recipe"


def test_a_run_goes_on_and_another_recipe_is_refused(workshop: Workshop) -> None:
    before = workshop.recipes["prior"]
    longer = dataclasses.replace(before, loop=dataclasses.replace(before.loop, images=24))
    trainer = recipe.run(longer, workshop.root / "prior", device=CPU, progress=False)
    assert (trainer.images, trainer.batches) == (24, 3)
    other = dataclasses.replace(before, data=dataclasses.replace(before.data, batch_size=4))
    with pytest.raises(ConfigError, match="holds a run with another data"):
        recipe.run(other, workshop.root / "prior", device=CPU, progress=False)


def test_a_compiled_prior_learns_the_same(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Traced and differentiated as ever, but not built: that takes half a minute.
    compiled_by = Stage.compile
    monkeypatch.setattr(Stage, "compile", lambda self: compiled_by(self, backend="aot_eager"))
    plain = workshop.recipes["prior"]
    loop = dataclasses.replace(plain.loop, images=16, compile=True)
    compiled = dataclasses.replace(plain, loop=loop)
    trainer = recipe.run(compiled, workshop.root / "compiled", device=CPU, progress=False)
    stage = trainer.task.module
    assert isinstance(stage, Stage) and stage.denoiser.network._compiled_call_impl is not None
    exported = export.export_part(workshop.root / "compiled", "prior", workshop.root / "other")
    for name, tensor in load_file(workshop.model / "prior" / "model.safetensors").items():
        torch.testing.assert_close(load_file(exported / "model.safetensors")[name], tensor)


def test_embeddings_were_measured(workshop: Workshop) -> None:
    prior = TextToImage.from_pretrained(workshop.model).prior
    assert prior.codec.scale.max() < 1.0  # type: ignore[attr-defined]
    assert not torch.allclose(prior.codec.mean, torch.zeros(WIDTH))  # type: ignore[attr-defined]


def test_shards_of_other_weights_are_refused(workshop: Workshop) -> None:
    path = workshop.encoded / "manifest.json"
    text = path.read_text()
    fingerprint = json.loads(text)["extra"]["encoding"]["clip"]
    path.write_text(text.replace(fingerprint, "0" * len(fingerprint)))
    try:
        with pytest.raises(DataError, match=r"encoded with clip 0+, but the clip at hand"):
            recipe.run(
                workshop.recipes["prior"], workshop.root / "again", device=CPU, progress=False
            )
    finally:
        path.write_text(text)


def test_encoding_refuses_a_folder_in_use(workshop: Workshop) -> None:
    with pytest.raises(DataError, match="is not empty"):
        workshop.encode(workshop.encoded)


def test_exports_name_what_is_missing(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no checkpoint yet"):
        export.export_part(tmp_path, "prior", tmp_path)
    with pytest.raises(ConfigError, match="is no part of a model"):
        export.export_part(workshop.root / "prior", "priest", tmp_path)
    with pytest.raises(CheckpointError, match="has no autoencoder, clip, prior, decoder"):
        export.finish(tmp_path, 32, Sampler(), Sampler())


def test_every_recipe_of_configs_builds_and_round_trips() -> None:
    from ldm import config

    for name in (n for n in recipe.names() if not n.startswith("papers.")):
        made = recipe.load(name)
        assert config.from_dict(json.loads(json.dumps(config.to_dict(made))), Recipe) == made
    with pytest.raises(ConfigError, match="Did you mean 'emoji_prior'"):
        recipe.load("emoji_priors")
    with pytest.raises(ConfigError, match="Did you mean 'images'"):
        recipe.load("emoji_prior", ["loop.image=3"])
