"""From a prompt to a PNG with a tiny random model: seeds, refusals, damaged files, the script."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from ldm.errors import CheckpointError, RequestError
from ldm.pipeline import TextToImage
from ldm.samplers import SOLVERS

ROOT = Path(__file__).resolve().parents[1]
WORDS = " ".join(["word"] * 500)


@pytest.fixture(scope="module")
def pipe(tiny_model: Path) -> TextToImage:
    pipe = TextToImage.from_pretrained(tiny_model)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(
    pipe: TextToImage, prompts: list[str], seeds: list[int], **options: object
) -> torch.Tensor:
    images: torch.Tensor = pipe(prompts, seed=seeds, output_type="pt", **options).images  # type: ignore[arg-type]
    return images


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_picture_does_not_depend_on_its_batch(pipe: TextToImage, solver: str) -> None:
    prompts = ["an apple", "a dog", "a cat"]
    together = draw(pipe, prompts, [5, 6, 7], solver=solver)
    for i, prompt in enumerate(prompts):
        alone = draw(pipe, [prompt], [5 + i], solver=solver)
        assert torch.allclose(together[i], alone[0], atol=1e-4)


def test_seed_prompt_and_scale_all_matter(pipe: TextToImage) -> None:
    base = draw(pipe, ["an apple"], [0])
    assert torch.equal(base, draw(pipe, ["an apple"], [0]))
    for other in (
        draw(pipe, ["an apple"], [1]),
        draw(pipe, ["a dog"], [0]),
        draw(pipe, ["an apple"], [0], guidance_scale=4.0),
        draw(pipe, ["an apple"], [0], prior_guidance_scale=4.0),
        draw(pipe, ["an apple"], [0], negative_prompt="a dog"),
        draw(pipe, ["an apple"], [0], num_inference_steps=7),
    ):
        assert not torch.allclose(base, other, atol=1e-4)


def test_num_images_per_prompt_counts_seeds_up(pipe: TextToImage) -> None:
    four = pipe(["an apple", "a dog"], num_images_per_prompt=2, seed=3, output_type="pt").images
    assert torch.allclose(four, draw(pipe, ["an apple"] * 2 + ["a dog"] * 2, [3, 4, 3, 4]))


def test_a_generator_decides_like_a_seed(pipe: TextToImage) -> None:
    def go() -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        images: torch.Tensor = pipe("an apple", generator=generator, output_type="pt").images
        return images

    assert torch.equal(go(), go())


def test_output_types_and_size(pipe: TextToImage) -> None:
    image = pipe("an apple", seed=0, height=48, width=32).images[0]
    assert image.size == (32, 48)
    assert pipe("an apple", seed=0, output_type="np").images.shape == (1, 32, 32, 3)
    assert pipe("an apple", seed=0, output_type="latent").images.shape == (1, 4, 4, 4)


def test_callback_sees_every_step(pipe: TextToImage) -> None:
    seen: list[int] = []

    def note(_: object, step: int, time: float, values: dict[str, torch.Tensor]) -> None:
        seen.append(step)
        assert values["latents"].shape == (1, 4, 4, 4)
        assert 0 <= time <= 1

    pipe("an apple", seed=0, num_inference_steps=5, callback_on_step_end=note)
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": ""}, "prompt 1 is empty"),
        ({"prompt": ["fine", "  "]}, "prompt 2 is empty"),
        ({"prompt": []}, "no prompt"),
        ({"solver": "dpm_2m"}, "no solver 'dpm_2m'. Did you mean 'dpmpp_2m'"),
        ({"height": 30}, "height 30 is not a positive multiple of 16; the nearest is 32"),
        ({"width": -16}, "width -16"),
        ({"num_inference_steps": 0}, "0 steps"),
        ({"guidance_scale": -1.0}, "guidance -1"),
        ({"candidates": 0}, "candidates = 0"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt = 0"),
        ({"seed": [1, 2]}, "2 seeds or generators were given for 1 pictures"),
        ({"output_type": "gif"}, "output_type 'gif'"),
    ],
)
def test_bad_requests_are_refused(
    pipe: TextToImage, options: dict[str, object], message: str
) -> None:
    with pytest.raises(RequestError, match=message.replace("(", r"\(")):
        pipe(**{"prompt": "an apple", "seed": 0, **options})  # type: ignore[arg-type]


def test_a_long_prompt_is_drawn_and_its_cut_is_told(
    pipe: TextToImage, caplog: pytest.LogCaptureFixture
) -> None:
    pipe(WORDS, seed=0)
    assert "not read" in caplog.text and "the model reads 16" in caplog.text


def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_a_missing_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"manifest\.json is missing"):
        TextToImage.from_pretrained(tmp_path)


@pytest.mark.parametrize("part", ["autoencoder", "clip", "prior", "decoder"])
def test_truncated_weights_are_named(tiny_model: Path, tmp_path: Path, part: str) -> None:
    folder = copy(tiny_model, tmp_path)
    victim = next((folder / part).glob("*.safetensors"))
    victim.write_bytes(victim.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=f"{part}.*is damaged"):
        TextToImage.from_pretrained(folder)


def test_a_missing_file_is_named(tiny_model: Path, tmp_path: Path) -> None:
    folder = copy(tiny_model, tmp_path)
    (folder / "prior" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"prior/model\.safetensors is missing"):
        TextToImage.from_pretrained(folder)


def test_parts_that_do_not_belong_together_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = copy(tiny_model, tmp_path)
    path = folder / "decoder" / "config.json"
    body = json.loads(path.read_text())
    body["made_with"]["autoencoder"] = "0" * 16
    path.write_text(json.dumps(body))
    from ldm.modelfolder import ModelIndex, write_index

    index = ModelIndex.read(folder)
    write_index(folder, index.image_size, index.samplers)
    with pytest.raises(CheckpointError, match="trained with autoencoder 0000000000000000"):
        TextToImage.from_pretrained(folder)


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/txt2img.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_script_writes_pngs_that_explain_themselves(tiny_model: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path), "--model", str(tiny_model), "--quiet"]
    done = script("a red apple", "-n", "2", "--seed", "4", "--grid", *out)
    assert done.returncode == 0, done.stderr
    paths = [Path(line) for line in done.stdout.splitlines()]
    assert [p.name for p in paths] == ["a-red-apple-4.png", "a-red-apple-5.png", "grid.png"]
    image = Image.open(paths[1])
    origin = json.loads(image.text["ldm"])  # type: ignore[attr-defined]
    assert (image.size, origin["prompt"], origin["seed"]) == ((32, 32), "a red apple", 5)
    assert origin["decoder"]["steps"] == 4 and len(origin["model"]) == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no prompt given"),
        (["a cat", "--solver", "magic"], "no solver 'magic'"),
        (["a cat", "--size", "big"], "write HEIGHTxWIDTH"),
        (["a cat", "--num", "0"], "ask for 1 picture or more"),
        (["a cat", "--model", "nowhere"], "no model in nowhere"),
        (["--from-file", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_the_script_fails_in_one_line(
    tiny_model: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    given = [] if "--model" in arguments else ["--model", str(tiny_model)]
    done = script(*arguments, *given, "--out", str(tmp_path))
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.png"))


def test_a_folder_that_cannot_be_one_is_told_before_anything_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    # The model is missing too: who is told of the folder first has not waited for a drawing.
    done = script("a cat", "--out", str(tmp_path / "taken"), "--model", "nowhere")
    assert done.returncode == 2
    assert "name a folder that can be written" in done.stderr and "Traceback" not in done.stderr
