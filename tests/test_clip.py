"""The CLIP adapter against open_clip itself, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ldm.conditioning import Clip, TextTowerConfig
from ldm.conditioning.clip_open import OpenClip, as_clip
from ldm.conditioning.clip_training import ClipTaskConfig
from ldm.conditioning.preprocess import Preprocess
from ldm.conditioning.tokenizer import MERGES_FILE, BpeTokenizer
from ldm.errors import CheckpointError, ConfigError

open_clip = pytest.importorskip("open_clip")

TINY = ClipTaskConfig(
    embed_dim=24,
    image_size=16,
    patch_size=8,
    vision_width=32,
    vision_layers=1,
    vision_head_width=16,
    text=TextTowerConfig(context_length=12, vocab_size=800, width=32, heads=2, layers=2),
)
CAPTIONS = ["a red apple, noto style", "a cat", "", "one two three four five six seven eight nine"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    TINY.build().save(path)
    return path


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "clip"))


def pictures(b: int = 3, height: int = 40, width: int = 32) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (b, 3, height, width), generator=g, dtype=torch.uint8)


def test_folder_opens_in_plain_open_clip_with_equal_features(folder: Path) -> None:
    model = open_clip.create_model(f"local-dir:{folder}", require_pretrained=True).eval()
    merges = str(folder / MERGES_FILE)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}", bpe_path=merges)
    clip, ids = Clip.load(folder), tokenizer(CAPTIONS)
    features = clip.text(CAPTIONS)
    out = model.forward_intermediates(text=ids, text_indices=1, normalize_intermediates=True)
    assert (features.pooled - model.encode_text(ids, normalize=True)).abs().max() < 1e-5
    assert (features.tokens - out["text_intermediates"][0]).abs().max() < 1e-5
    assert features.mask.sum(1).tolist() == (ids.argmax(1) + 1).tolist()
    assert (features.pooled.norm(dim=-1) - 1).abs().max() < 1e-6


def test_light_and_whole_adapter_agree(folder: Path) -> None:
    model = open_clip.create_model(f"local-dir:{folder}", require_pretrained=True)
    tokenizer = BpeTokenizer(vocab_size=800, context_length=12)
    whole = as_clip(OpenClip(model, tokenizer, Preprocess(size=16), "cpu"))
    light = Clip.load(f"local-dir:{folder}")
    for name in ("tokens", "pooled", "mask"):
        a, b = (getattr(clip.text(CAPTIONS), name).float() for clip in (light, whole))
        assert (a - b).abs().max() < 1e-5
    assert (light.image(pictures()) - whole.image(pictures())).abs().max() < 1e-5


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize(("height", "width"), [(40, 32), (31, 67), (9, 12), (16, 16)])
def test_preprocessing_is_open_clips(mode: str, height: int, width: int) -> None:
    config = open_clip.transform.PreprocessCfg(size=16, resize_mode=mode)
    theirs = open_clip.transform.image_transform_v2(config, is_train=False)
    image = F.interpolate(pictures(1, 8, 8).float(), (height, width), mode="bicubic").clamp(0, 255)
    image = image.round().byte()
    expected = theirs(Image.fromarray(image[0].permute(1, 2, 0).numpy().astype(np.uint8)))
    ours = Preprocess.from_dict(dataclasses.asdict(config))(image)[0]
    assert ours.shape == expected.shape
    # A grey level is 0.015 here: PIL filters in fixed point and rounds after each axis.
    assert (ours - expected).abs().max() < 0.05
    assert (ours - expected).abs().mean() < 0.005


def test_a_trained_file_name_and_a_tag_are_needed() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'ViT-B-32'"):
        Clip.load("ViT-B-33")
    with pytest.raises(ConfigError, match="needs the tag of its weights"):
        Clip.load("ViT-B-32")
    with pytest.raises(CheckpointError, match="did not load"):
        Clip.load("ViT-B-32:no_such_tag")


def test_an_open_clip_model_by_name_works(folder: Path, tmp_path: Path) -> None:
    name, path = "tiny-for-this-test", tmp_path / "tiny-for-this-test.json"
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    config["text_cfg"]["vocab_size"] = 49408
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)
    model = open_clip.create_model(name)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    clip = Clip.load(name, pretrained=str(tmp_path / "weights.pt"))
    expected = model.eval().encode_text(open_clip.get_tokenizer(name)(CAPTIONS), normalize=True)
    assert (clip.text(CAPTIONS).pooled - expected).abs().max() < 1e-5
    assert clip.context_length == 12 and len(clip.truncated(["many words " * 9])) == 1
    assert clip.image(pictures()).shape == (3, 24)


def test_truncated_names_the_captions_that_are_cut(folder: Path) -> None:
    clip = Clip.load(folder)
    (cut,) = clip.truncated(["a cat", "it is a long story of a very big house", "a dog"])
    assert cut.index == 1 and cut.limit == 12
    assert (cut.kept + cut.lost).replace(" ", "") == "itisalongstoryofaverybighouse"
    with pytest.raises(ValueError, match="list of strings"):
        clip.text("a cat")


def test_fingerprint_follows_the_weights_not_the_place(folder: Path, copied: Path) -> None:
    first = Clip.load(folder).fingerprint()
    assert Clip.load(copied).fingerprint() == first
    weights = copied / "open_clip_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert Clip.load(copied).fingerprint() != first


@pytest.mark.parametrize("name", ["open_clip_config.json", "open_clip_model.safetensors"])
def test_a_missing_file_is_an_error(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        Clip.load(copied)
    with pytest.raises(CheckpointError, match="is missing"):
        Clip.load("local-dir:/no/such/folder")


@pytest.mark.parametrize("size", [0, 7, 3000, -1])
def test_truncated_weights_are_an_error(copied: Path, size: int) -> None:
    weights = copied / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="damaged or incomplete"):
        Clip.load(copied)


def test_weights_of_another_shape_and_broken_settings_are_errors(copied: Path) -> None:
    path = copied / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"]["layers"] = 3
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="does not belong to its configuration"):
        Clip.load(copied)
    path.write_text("{}")
    with pytest.raises(CheckpointError, match="not an open_clip configuration"):
        Clip.load(copied)
    path.write_text("{")
    with pytest.raises(CheckpointError, match="not an open_clip configuration"):
        Clip.load(copied)


def test_pictures_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        Preprocess(size=16)(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="allowed: shortest"):
        Preprocess(resize_mode="stretch")
