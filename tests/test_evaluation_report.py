"""The whole evaluation on the fixture pictures, of models whose quality is known."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.data.batch import TextFeatures
from ldm.data.manifest import load_manifest
from ldm.errors import DataError, RequestError
from ldm.evaluation.pairs import in_another_style
from ldm.evaluation.real import RealPictures, load_real
from ldm.evaluation.run import evaluate
from ldm.evaluation.section import Options

ROOT = Path(__file__).resolve().parents[1]
FIXTURE = ROOT / "tests" / "fixtures" / "emoji"
FOUR = ["reconstruction", "clip", "prior", "pictures"]


@pytest.fixture(scope="module")
def real() -> RealPictures:
    return load_real(FIXTURE)


class Oracle:
    """A model that knows every picture by heart: `answer` tells which one it gives for which."""

    device, image_size, bf16 = torch.device("cpu"), 64, False

    def __init__(self, real: RealPictures, answer: list[int], fingerprint: str = "0123") -> None:
        # Pictures are cached under the model's name: other answers are another model.
        self.fingerprint = f"{fingerprint}{hash(tuple(answer))}"
        place = {p.caption: i for i, p in reversed(list(enumerate(real)))}
        self.pictures = {caption: real.images([answer[i]]) for caption, i in place.items()}
        self.clip = SimpleNamespace(
            image=self._see, text=self._read, fingerprint=lambda: fingerprint
        )
        self.space = SimpleNamespace(encode=lambda x: x, decode=lambda z: z, model=self.clip)
        sampler = SimpleNamespace(describe=lambda: {"kind": "Sampler", "steps": 7})
        self.index = SimpleNamespace(samplers={"prior": sampler})
        self.samplers = lambda **given: SimpleNamespace(prior=sampler, decoder=sampler)

    def __call__(self, prompts: list[str], *, seed: list[int], **settings: Any) -> Any:
        assert len(prompts) == len(seed) and settings.pop("output_type") == "pt"
        return SimpleNamespace(images=torch.cat([self.pictures[p] for p in prompts]) / 255)

    def imagine(
        self, prompts: list[str], *, seed: list[int], all_candidates: bool, **settings: Any
    ) -> Tensor:
        assert all_candidates and len(prompts) == len(seed)
        right = self._read(prompts).pooled
        return torch.stack([-right, right], dim=1)

    def _see(self, image: Tensor) -> Tensor:
        small = F.adaptive_avg_pool2d(image.float() / 127.5 - 1, 8).flatten(1)
        return F.normalize(small - small.mean(dim=1, keepdim=True), dim=1)

    def _read(self, captions: list[str]) -> TextFeatures:
        pooled = self._see(torch.cat([self.pictures[c] for c in captions]))
        mask = torch.ones(len(captions), 1, dtype=torch.bool)
        return TextFeatures(pooled[:, None], pooled, mask)


def options(cache: Path) -> Options:
    return Options(pairs=12, batch_size=16, grid=5, cache=cache, quiet=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def sections(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "emoji.json").read_text())["sections"]
    return found


def test_a_perfect_model_is_perfect(real: RealPictures, cache: Path, tmp_path: Path) -> None:
    pipe: Any = Oracle(real, list(range(len(real))))
    written = evaluate(pipe, FIXTURE, tmp_path, options(cache), FOUR, "python scripts/evaluate.py")
    assert {p.name for p in written} == {
        "emoji.json", "emoji.md", "emoji.html", "emoji-reconstruction.png",
        "emoji-pictures-train.png", "emoji-pictures-heldout.png",
    }  # fmt: skip
    found = sections(tmp_path)
    pictures = found["pictures"]["rows"]
    for split in ("train", "heldout"):
        assert pictures[f"{split}: generated"] == pictures[f"{split}: real"]
        assert pictures[f"{split}: generated"]["concept top-1"]["value"] == 1
        assert pictures[f"{split}: same concept in another style (floor)"]["style"]["value"] < 0.3
        assert pictures[f"{split}: chance"]["style"]["value"] == 1 / 4
    assert pictures["heldout: all real pictures"]["concept top-1"]["n"] == 16
    assert list(found) == ["reconstruction", "clip", "prior", "pictures"]
    assert found["reconstruction"]["rows"]["all"]["PSNR"]["value"] == 100
    assert found["clip"]["rows"]["all"]["picture → caption @1"]["value"] == 1
    cosine = {name: row["cosine"]["value"] for name, row in found["prior"]["rows"].items()}
    assert cosine["prior, best of 2"] == cosine["text embedding"] == pytest.approx(1)
    assert cosine["prior, 1 sample"] == pytest.approx(-1)  # the oracle's first answer is its worst
    assert -0.9 < cosine["shuffled captions"] < 0.9
    assert 0 < cosine["mean training embedding"] < cosine["nearest training caption"] < 1
    text = (tmp_path / "emoji.md").read_text()
    assert "EfficientNet-lite0" in text and "FID" not in text and "python scripts" in text
    assert Image.open(tmp_path / "emoji-pictures-train.png").width == 5 * 66
    assert len(found["pictures"]["details"]) == 24


@pytest.mark.parametrize("ignored", ["style", "concept"])
def test_a_model_that_ignores_half_of_the_caption_is_found_out(
    real: RealPictures, cache: Path, tmp_path: Path, ignored: str
) -> None:
    answer = in_another_style(real, range(len(real)), seed=0)
    if ignored == "concept":
        answer = [real.of("train", p.style)[i % 38] for i, p in enumerate(real)]
    pipe: Any = Oracle(real, answer)
    evaluate(pipe, FIXTURE, tmp_path, options(cache), ["pictures"], "")
    rows = sections(tmp_path)["pictures"]["rows"]
    made = {column: figure["value"] for column, figure in rows["train: generated"].items()}
    if ignored == "style":
        assert made["style"] < 0.1
        floor = rows["train: same concept in another style (floor)"]
        assert {c: f["value"] for c, f in floor.items()} == made
    else:
        assert made["style"] == 1 and made["concept top-5"] < 0.5


def test_report_keeps_parts_of_the_same_model_only(
    real: RealPictures, cache: Path, tmp_path: Path
) -> None:
    same = list(range(len(real)))
    for part, fingerprint, expected in (
        ("clip", "a", {"clip"}),
        ("reconstruction", "a", {"clip", "reconstruction"}),
        ("reconstruction", "b", {"reconstruction"}),
    ):
        pipe: Any = Oracle(real, same, fingerprint)
        evaluate(pipe, FIXTURE, tmp_path, options(cache), [part], "")
        assert sections(tmp_path).keys() == expected


def test_wrong_data_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no train pictures.*make_shards\.py"):
        load_real(tmp_path / "nothing")
    data = tmp_path / "emoji"
    shutil.copytree(FIXTURE, data)
    shutil.rmtree(data / "heldout")
    with pytest.raises(DataError, match="no heldout pictures"):
        load_real(data)
    shutil.copytree(FIXTURE / "train", data / "heldout")
    with pytest.raises(DataError, match="holds the split 'train'"):
        load_real(data)
    shard = data / "train" / load_manifest(data / "train").shards[0].name
    shard.write_bytes(shard.read_bytes()[:20_000])
    with pytest.raises(DataError, match=shard.name):
        load_real(data)
    with pytest.raises(ValueError, match="split 'test' is unknown"):
        load_real(FIXTURE).of("test")


def test_wrong_options_are_told(real: RealPictures, tmp_path: Path) -> None:
    pipe: Any = Oracle(real, list(range(len(real))))
    with pytest.raises(RequestError, match="at least 2 pairs"):
        evaluate(pipe, FIXTURE, tmp_path, Options(pairs=1), FOUR, "")
    script = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), "--model", str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "error: no model in" in done.stderr


def test_the_script_evaluates_a_model_folder(tiny_model: Path, cache: Path, tmp_path: Path) -> None:
    asked = (
        "--suite quick --pairs 4 --batch-size 8 --steps 2 --prior-steps 4 --guidance 1.5 "
        "--solver ddim --quiet"
    )
    script = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), *asked.split()]
    script += ["--model", str(tiny_model), "--data", str(FIXTURE), "--cache", str(cache)]
    done = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == sorted(
        f"results/{p.name}" for p in (tmp_path / "results").iterdir()
    )
    found = sections(tmp_path / "results")
    settings = found["pictures"]["protocol"]["settings"]
    assert settings["decoder"]["steps"] == 2 and settings["decoder"]["guidance"] == 1.5
    assert settings["prior"]["steps"] == 4 == found["prior"]["protocol"]["prior"]["steps"]
    assert found["reconstruction"]["rows"]["all"]["PSNR"]["value"] < 20
    assert found["pictures"]["rows"]["train: generated"]["concept top-1"]["n"] == 4
