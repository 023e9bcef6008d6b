"""The contrastive task learns, and is open_clip's loss where captions differ."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from ldm.conditioning import Clip, TextTowerConfig
from ldm.conditioning.clip_training import (
    ClipTaskConfig,
    augmented,
    retrieval,
    same_caption,
)
from ldm.data.batch import Batch, TextFeatures
from ldm.errors import ConfigError

open_clip = pytest.importorskip("open_clip")

WORDS = ("cat", "dog", "sun", "moon", "car", "tree", "apple", "house")
TINY = ClipTaskConfig(
    embed_dim=32,
    image_size=16,
    patch_size=8,
    vision_width=32,
    vision_layers=1,
    vision_head_width=16,
    text=TextTowerConfig(context_length=12, vocab_size=1500, width=32, heads=2, layers=1),
    min_scale=1.0,
    shift=0.0,
)


def eight_pairs(size: int = 16) -> Batch:
    g = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (8, 3, 2, 2), generator=g, dtype=torch.uint8)
    image = image.repeat_interleave(size // 2, 2).repeat_interleave(size // 2, 3)
    return Batch(key=WORDS, image=image, caption=tuple(f"a picture of the {w}" for w in WORDS))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_eight_pairs_are_learned_and_survive_the_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(TINY, min_scale=0.9, shift=0.02)
    task, batch, g = config.build(), eight_pairs(), generator()
    (player,) = task.players()
    optimiser = torch.optim.AdamW(player.parameters, 3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        terms = player.loss(batch, g)
        terms["loss"].mean().backward()
        optimiser.step()
    task.save(tmp_path)
    assert batch.image is not None and batch.caption is not None
    for clip in (task.clip(), Clip.load(tmp_path)):
        recalls = retrieval(clip, batch.image, batch.caption)
        assert recalls["image_to_text@1"] == recalls["text_to_image@1"] == 1.0
    assert task.samples(batch, g) is None


def test_with_distinct_captions_the_loss_is_open_clips() -> None:
    task, batch = TINY.build(), eight_pairs()
    terms = task.loss(batch, generator())
    assert batch.image is not None and batch.caption is not None
    ids = task.tokenizer(batch.caption)
    image = task.model.encode_image(task.preprocess(batch.image), normalize=True)
    text = task.model.encode_text(ids, normalize=True)
    expected = open_clip.ClipLoss()(image, text, task.model.logit_scale.exp())
    assert terms["loss"].shape == (8,)
    assert (terms["loss"].mean() - expected).abs() < 1e-5


def test_pictures_with_equal_captions_share_the_target() -> None:
    task, batch = TINY.build(), eight_pairs()
    captions = ("a", "b", "a", "c", "a", "b", "d", "e")
    terms = task.loss(batch.replace(caption=captions), generator())
    assert batch.image is not None
    image = task.encode_image(batch.image.float())
    text = task.encode_text(captions, image.device)
    logits = task.model.logit_scale.exp() * image @ text.T
    for i, caption in enumerate(captions):
        right = [j for j, other in enumerate(captions) if other == caption]
        to_text = -logits[i].log_softmax(0)[right].mean()
        to_image = -logits[:, i].log_softmax(0)[right].mean()
        assert (terms["loss"][i] - (to_text + to_image) / 2).abs() < 1e-5
    assert same_caption(["a", "b", "a"]).tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]


def test_the_temperature_is_held() -> None:
    task = TINY.build()
    with torch.no_grad():
        task.model.logit_scale.fill_(9.0)
    assert abs(float(task.loss(eight_pairs(), generator())["scale"]) - 100) < 1e-3


def test_draws_come_from_the_generator_alone() -> None:
    task = dataclasses.replace(TINY, patch_size=4, patch_dropout=0.5, shift=0.1).build()
    first = task.loss(eight_pairs(), generator())["loss"]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert torch.equal(task.loss(eight_pairs(), generator())["loss"], first)
    assert torch.equal(torch.get_rng_state(), state)
    other = task.loss(eight_pairs(), torch.Generator().manual_seed(5))["loss"]
    assert not torch.equal(other, first)


def test_augmentation_moves_within_its_bounds() -> None:
    ramp = torch.arange(0, 256, 4, dtype=torch.uint8).expand(64, 3, 64, 64).contiguous()
    still = dataclasses.replace(TINY, min_scale=1.0, shift=0.0)
    assert (augmented(ramp, still, generator()) - ramp).abs().max() < 1e-2
    moved = dataclasses.replace(TINY, min_scale=1.0, shift=0.125)
    difference = augmented(ramp, moved, generator())[:, 0, :, 32] - ramp[:, 0, :, 32]
    assert difference.abs().max() <= 8 * 4 + 1e-2 and difference.abs().max() > 16
    mean = augmented(ramp, moved, generator()).mean((1, 2, 3))
    assert mean.std() > 1  # each sample its own draw


def test_patch_dropout_is_for_training_only(tmp_path: Path) -> None:
    task = dataclasses.replace(TINY, patch_size=4, patch_dropout=0.5).build()
    task.save(tmp_path)
    image = eight_pairs().image
    assert image is not None
    once, twice = task.clip().image(image), task.clip().image(image)
    assert torch.equal(once, twice) and task.module.training
    assert "patch_dropout" not in (tmp_path / "open_clip_config.json").read_text()


class Known:
    """A stand-in for a Clip whose embeddings are given."""

    def __init__(self, image: torch.Tensor, text: torch.Tensor) -> None:
        self._image, self._text = image, text

    def image(self, image: torch.Tensor) -> torch.Tensor:
        return self._image[image[:, 0, 0, 0].long()]

    def text(self, captions: list[str]) -> TextFeatures:
        rows = self._text[[ord(c) - ord("a") for c in captions]]
        return TextFeatures(rows[:, None], rows, torch.ones(len(rows), 1, dtype=torch.bool))


def index_images(*index: int) -> torch.Tensor:
    return torch.tensor(index, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


def test_retrieval_counts_ranks_within_groups() -> None:
    eye = torch.eye(4)
    swapped = eye[[1, 0, 2, 3]]
    clip, images = Known(swapped, eye), index_images(0, 1, 2, 3)
    recalls = retrieval(clip, images, "abcd")  # type: ignore[arg-type]
    assert recalls["image_to_text@1"] == 0.5 and recalls["image_to_text@5"] == 1
    apart = retrieval(clip, images, "abcd", ["x", "y", "x", "y"], batch_size=3)  # type: ignore[arg-type]
    assert apart["candidates"] == 2 and apart["image_to_text@1"] == 0.5
    constant = Known(torch.ones(4, 2), torch.ones(4, 2))
    assert retrieval(constant, images, "abcd")["text_to_image@1"] == 0  # type: ignore[arg-type]
    assert retrieval(constant, images, "aaaa")["text_to_image@1"] == 1  # type: ignore[arg-type]


def test_bad_settings_are_named() -> None:
    for change, message in [
        ({"patch_size": 7}, "not a multiple"),
        ({"patch_dropout": 1.0}, "patch_dropout"),
        ({"min_scale": 0.0}, "min_scale"),
    ]:
        with pytest.raises(ConfigError, match=message):
            dataclasses.replace(TINY, **change)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="multiple of heads"):
        TextTowerConfig(width=32, heads=3)
    with pytest.raises(ValueError, match="image and caption"):
        TINY.build().loss(Batch(key=("a",)), generator())
