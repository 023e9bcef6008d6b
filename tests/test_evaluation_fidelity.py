"""Fidelity: torch-fidelity's own figures, of inputs that are what they are said to be."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from test_evaluation_report import Oracle
from torch import Tensor, nn

from autoencoder.efficientnet import default_weights
from ldm.errors import DataError, LdmError, RequestError
from ldm.evaluation import fidelity
from ldm.evaluation.fidelity import compare_folders, draw_many, folders, part, spread, table
from ldm.evaluation.fidelity.drawing import read_prompts
from ldm.evaluation.fidelity.extractors import NAMES, PUBLISHED, Network, load_network
from ldm.evaluation.fidelity.inputs import open_pictures
from ldm.evaluation.fidelity.metrics import Settings, check_metrics
from ldm.evaluation.pairs import in_another_style
from ldm.evaluation.real import RealPictures, load_real
from ldm.evaluation.section import Bench, Options, Section
from ldm.pipeline import TextToImage

ROOT = Path(__file__).resolve().parents[1]
FIXTURE = ROOT / "tests" / "fixtures" / "emoji"
FEW = Settings(isc_splits=2, kid_subsets=20, kid_subset_size=6)


@pytest.fixture(scope="module")
def real() -> RealPictures:
    return load_real(FIXTURE)


@pytest.fixture(scope="module")
def pictures(real: RealPictures) -> Tensor:
    return real.images(range(24))


def write(folder: Path, images: Tensor) -> Path:
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(folder / f"{i:02d}.png")
    return folder


class Pooled(nn.Module):
    """48 colours of a picture as features, 6 as logits: quick, and different for all pictures."""

    features_list = ("pooled", "logits")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        small = F.adaptive_avg_pool2d(x.float() / 255, 4).flatten(1)
        return small, 9 * small[:, :6]


def quick(name: str = "effnet-lite0", classes: int = 6) -> Network:
    return Network(
        name=name, weights="ab" * 32, published=True, classes=classes, square=True,
        module=Pooled(), device=torch.device("cpu"),
    )  # fmt: skip


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (folders, part):
        monkeypatch.setattr(module, "load_network", lambda *given: quick())


def values(section: Section, row: str = "samples") -> dict[str, float]:
    return {column.split("-")[0]: f.value for column, f in section.rows[row].items()}


# 1. The figures are torch-fidelity's


def torch_fidelity(module: str, *arguments: object) -> dict[str, float]:
    command = [sys.executable, "-m", module, "--cpu", "--json", "--silent", "--no-cache"]
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    return found


def in_their_words(section: Section) -> dict[str, float]:
    names = {
        "FID": "frechet_inception_distance",
        "KID": "kernel_inception_distance_mean",
        "IS": "inception_score_mean",
    }
    return {names.get(k, k): v for k, v in values(section).items()}


def test_figures_are_those_of_the_command_line(pictures: Tensor, tmp_path: Path) -> None:
    a = write(tmp_path / "a", pictures[:11])
    b = write(tmp_path / "b", pictures[11:])
    theirs = torch_fidelity(
        "ldm.evaluation.fidelity.effnet", "--feature-extractor", "effnet-lite0", "--input1", a,
        "--input2", b, "--fid", "--kid", "--isc", "--prc", "--kid-subset-size", 6,
        "--kid-subsets", 20, "--isc-splits", 2,
    )  # fmt: skip
    section = compare_folders(a, b, settings=FEW, quiet=True)
    ours = in_their_words(section)
    assert set(ours) <= set(theirs) and len(ours) == 5
    assert ours == {name: theirs[name] for name in ours}
    assert list(section.rows["samples"]) == [
        "FID-effnetlite0", "KID-effnetlite0", "IS-effnetlite0", "precision-effnetlite0",
        "recall-effnetlite0",
    ]  # fmt: skip
    assert all(f.low is not None and f.n == 11 for f in section.rows["samples"].values())


def random_inception(path: Path) -> Path:
    """An Inception file of kaiming's random weights: torch's own leave the features dead."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        patch.setattr(torch, "load", lambda *given, **more: {})
        network = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path="x")
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_inception(tmp_path_factory.mktemp("inception") / "inception.pth")


@pytest.mark.slow
def test_inception_from_a_file_gives_the_command_lines_figures(
    pictures: Tensor, inception: Path, tmp_path: Path
) -> None:
    a, b = write(tmp_path / "a", pictures[:5]), write(tmp_path / "b", pictures[5:10])
    theirs = torch_fidelity(
        "torch_fidelity.fidelity", "--feature-extractor", "inception-v3-compat",
        "--feature-extractor-weights-path", inception, "--input1", a, "--input2", b, "--fid",
        "--kid", "--isc", "--prc", "--kid-subset-size", 3, "--isc-splits", 2,
    )  # fmt: skip
    section = compare_folders(
        a, b, extractor="inception-v3-compat", weights=inception, quiet=True,
        settings=Settings(isc_splits=2, kid_subset_size=3),
    )  # fmt: skip
    ours = in_their_words(section)
    assert ours == {name: theirs[name] for name in ours}
    assert ours["frechet_inception_distance"] > 1
    assert all("-inception-" in column for column in section.rows["samples"])


def test_only_the_published_inception_is_called_fid(
    pictures: Tensor, inception: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load_network("inception-v3-compat", inception)
    assert network.column("FID") == f"FID-inception-{network.weights[:8]}"
    features = network(pictures[:2])
    assert features.shape == (2, 2048 + 1008) and network.compared(features).std() > 0.1
    monkeypatch.setitem(PUBLISHED, "inception-v3-compat", network.weights)
    published = load_network("inception-v3-compat", inception)
    assert [published.column(m) for m in ("FID", "IS")] == ["FID", "IS"]
    assert published.column("precision") == "precision-inception"
    assert network.identity()["weights"] == network.weights[:16]


def test_itself_is_at_zero_and_a_shifted_one_is_not(
    pictures: Tensor, quickly: None, caplog: pytest.LogCaptureFixture
) -> None:
    same = values(compare_folders(pictures, pictures.clone(), settings=FEW, quiet=True))
    assert abs(same["FID"]) < 1e-4 and same["KID"] < 0.01
    assert same["precision"] == same["recall"] == 1
    section = compare_folders(255 - pictures, pictures, settings=FEW, quiet=True)
    shifted, floor = values(section), values(section, table.FLOOR)
    assert shifted["FID"] > 2 * floor["FID"] and shifted["KID"] > 10 * abs(floor["KID"])
    assert section.rows[table.FLOOR]["FID-effnetlite0"].n == 12
    assert floor["precision"] < 1  # the two halves have no picture in common
    assert section.rows["samples"]["FID-effnetlite0"].low > floor["FID"]
    assert "fewer pictures than the 48 features" in caplog.text
    assert any("fewer pictures than the 48 features" in note for note in section.notes)


# 2. The intervals


def test_the_spread_is_that_of_torch_fidelitys_figures_over_halves() -> None:
    from torch_fidelity import metric_fid, metric_kid, metric_prc

    generator = torch.Generator().manual_seed(0)
    for n, width in ((30, 4), (18, 40)):  # more and fewer pictures than features
        x = torch.randn(n, width, generator=generator)
        y = 1 + torch.randn(n // 2, width, generator=generator)

        def fid(half: Tensor, y: Tensor = y) -> float:
            pair = [metric_fid.fid_features_to_statistics(f) for f in (half, y)]
            return float(
                metric_fid.fid_statistics_to_metric(*pair, False)[metric_fid.KEY_METRIC_FID]
            )

        def kid(half: Tensor, y: Tensor = y) -> float:
            return float(metric_kid.kernel_mmd(half.numpy(), y.numpy()))

        def near(half: Tensor, y: Tensor = y) -> tuple[float, float]:
            found: tuple[float, float] = metric_prc.calculate_precision_recall_part(half, y, 2)
            return found

        assert spread.of_fid(x, y) == pytest.approx(spread.of_halves(x, fid), rel=1e-3)
        assert spread.of_kid(x, y) == pytest.approx(spread.of_halves(x, kid), rel=1e-3)
        both = tuple(spread.of_halves(x, lambda half, i=i: near(half)[i]) for i in (0, 1))
        assert spread.of_prc(x, y, 2) == pytest.approx(both)


@pytest.mark.parametrize("n", [9, 400, 6000])
def test_the_spread_of_a_mean_is_its_standard_error(n: int) -> None:
    x = torch.randn(n, 1, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    error = spread.of_halves(x, lambda half: half.mean().item())
    assert error == pytest.approx(x.std().item() / n**0.5, rel=0.3)
    assert spread.of_halves(x[:3], lambda half: half.mean().item()) is None


# 3. Inputs


def test_shards_and_files_of_the_same_pictures_are_the_same(
    real: RealPictures, tmp_path: Path
) -> None:
    (tmp_path / "files").mkdir()
    for i, place in enumerate(real.of("heldout")):
        (tmp_path / "files" / f"{i:04d}.png").write_bytes(real[place].data)
    (tmp_path / "files" / "notes.txt").write_text("not a picture")
    files, shards = open_pictures(tmp_path / "files"), open_pictures(FIXTURE / "heldout")
    assert files.identity() == shards.identity() and len(files) == 16
    one, other = torch.cat(list(files.batches(5))), torch.cat(list(shards.batches(16)))
    assert torch.equal(one, other) and torch.equal(one, real.images(real.of("heldout")))
    small = open_pictures(tmp_path / "files", resize=20)
    assert torch.cat(list(small.batches(9))).shape == (16, 3, 20, 20)
    assert small.size == (20, 20) and small.identity() != files.identity()
    from_tensor = open_pictures(one, resize=20)
    assert torch.equal(torch.cat(list(from_tensor.batches(9))), torch.cat(list(small.batches(9))))
    (tmp_path / "files" / "0003.png").write_bytes((tmp_path / "files" / "0004.png").read_bytes())
    assert open_pictures(tmp_path / "files").digest != files.digest


def test_wrong_folders_are_told(pictures: Tensor, quickly: None, tmp_path: Path) -> None:
    good = write(tmp_path / "good", pictures[:8])
    (tmp_path / "empty" / "below").mkdir(parents=True)

    def refused(folder: Path | Tensor, match: str) -> None:
        with pytest.raises(DataError, match=match):
            compare_folders(folder, good, settings=FEW, quiet=True)
        with pytest.raises(DataError, match=match):
            compare_folders(good, folder, settings=FEW, quiet=True)

    refused(tmp_path / "none", "none does not exist")
    (tmp_path / "dangling").mkdir()
    (tmp_path / "dangling" / "away.png").symlink_to(tmp_path / "nowhere.png")
    refused(tmp_path / "dangling", r"away\.png cannot be read")
    refused(tmp_path / "empty", r"no pictures .* in .*empty; its 1 folders are not looked into")
    refused(write(tmp_path / "one", pictures[:1]), "one holds 1 picture: .* at least 2")
    refused(pictures[:1], "holds 1 picture: ")
    refused(pictures.float(), "must be uint8")
    # torch-fidelity takes models as .pth, and fails on them with today's numpy.
    (tmp_path / "model.pth").write_bytes(b"")
    refused(tmp_path / "model.pth", r"model\.pth is a file: give a folder")
    shards = tmp_path / "shards"
    shutil.copytree(FIXTURE / "heldout", shards)
    (shards / "00000.tar").write_bytes((shards / "00000.tar").read_bytes()[:9000])
    refused(shards, r"00000\.tar has 9000 bytes")


def test_mixed_sizes_are_named_and_can_be_resized(
    pictures: Tensor, quickly: None, tmp_path: Path
) -> None:
    folder = write(tmp_path / "mixed", pictures[:8])
    Image.new("RGB", (50, 40)).save(folder / "05.png")
    with pytest.raises(DataError, match=r"00\.png is 64 x 64, .*05\.png is 50 x 40.*--resize"):
        compare_folders(folder, pictures, settings=FEW, quiet=True)
    section = compare_folders(folder, pictures, settings=FEW, resize=32, quiet=True)
    assert section.protocol["resize"]["filter"] == "bicubic"
    assert section.protocol["resize"]["size"] == 32


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_damaged_files_are_named(
    pictures: Tensor, quickly: None, tmp_path: Path, kind: str
) -> None:
    folder = write(tmp_path / "folder", pictures[:8])
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(buffer, "JPEG" if kind == "jpg" else "PNG")
    (folder / f"07a.{kind}").write_bytes(buffer.getvalue()[:1500])
    with pytest.raises(DataError, match=rf"07a\.{kind}: picture cannot be decoded"):
        compare_folders(folder, pictures, settings=FEW, quiet=True)
    (folder / f"07a.{kind}").write_bytes(b"<html>404</html>")
    with pytest.raises(DataError, match=rf"07a\.{kind}: picture is not a jpg, png or webp"):
        compare_folders(folder, pictures, settings=FEW, quiet=True)


def test_what_moves_the_figures_is_told(pictures: Tensor, quickly: None, tmp_path: Path) -> None:
    folder = write(tmp_path / "folder", pictures[:8])
    Image.new("RGB", (64, 64)).save(folder / "08.jpg")
    notes = compare_folders(folder, pictures[..., :32, :32], settings=FEW, quiet=True).notes
    assert any("1 of the 9 pictures" in note and "loses detail" in note for note in notes)
    assert any("64 x 64 pixels and the reference has 32 x 32" in note for note in notes)


# 4. Networks and their weights


def test_other_weights_are_another_network_and_another_cache(
    pictures: Tensor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = torch.load(default_weights(), weights_only=True)
    state["_conv_head.weight"] = state["_conv_head.weight"].flip(0)
    torch.save(state, tmp_path / "other.pth")
    own, other = load_network(), load_network(weights=tmp_path / "other.pth")
    assert own.column("KID") == "KID-effnetlite0"
    assert other.column("KID") == f"KID-effnetlite0-{other.weights[:8]}"
    few, cache = open_pictures(pictures[:4]), tmp_path / "cache"
    kept = [table.features_of(few, network, cache, 4, True) for network in (own, other)]
    assert not torch.equal(kept[0], kept[1])
    files = sorted(cache.iterdir())
    assert len(files) == 2 and {f.suffix for f in files} == {".safetensors"}
    # A file that says another thing than its name is not believed.
    shutil.copy(files[0], files[1])
    again = [table.features_of(few, network, cache, 4, True) for network in (own, other)]
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))
    assert "it was made from something else" in caplog.text


class Bomb:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("canary"),)


@pytest.mark.parametrize("name", ["effnet-lite0", "inception-v3-compat"])
def test_weights_that_could_run_code_are_not_opened(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bomb.pth").write_bytes(pickle.dumps({"weight": Bomb()}))
    with pytest.raises(RequestError, match=r"bomb\.pth is no plain file of weights"):
        load_network(name, tmp_path / "bomb.pth")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["inception-v3-compat", "clip-vit-b-32", "dinov2-vit-s-14"])
def test_without_a_network_the_way_out_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_fidelity import feature_extractor_clip, feature_extractor_inceptionv3

    def offline(*given: Any, **more: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.delenv("XFORMERS_DISABLED", raising=False)
    for module in (feature_extractor_clip, feature_extractor_inceptionv3):
        monkeypatch.setattr(module, "load_state_dict_from_url", offline)
    monkeypatch.setattr(torch.hub, "load", offline)
    with pytest.raises(RequestError, match=r"no route to host.*or use effnet-lite0") as told:
        load_network(name)
    assert ("give the file" in str(told.value)) == (not name.startswith("dino"))
    import os

    assert "XFORMERS_DISABLED" not in os.environ


def test_wrong_networks_and_weights_are_told(tmp_path: Path) -> None:
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    import ldm.evaluation.fidelity.effnet

    assert set(NAMES) == set(FEATURE_EXTRACTORS_REGISTRY) - {"vgg16"}
    torch.save({"weight": torch.zeros(2)}, tmp_path / "small.pth")
    cases = [
        ("effnet-lite", None, "Did you mean 'effnet-lite0'"),
        ("inception-v3-compat", tmp_path / "none.pth", "there is no file .*none"),
        ("inception-v3-compat", tmp_path / "small.pth", r"small\.pth holds no weights of inc"),
        ("clip-vit-b-32", tmp_path / "small.pth", r"small\.pth holds no weights of clip"),
        ("effnet-lite0", tmp_path / "small.pth", r"small\.pth is not EfficientNet-lite0"),
        ("dinov2-vit-s-14", tmp_path / "small.pth", "takes no file for dinov2"),
    ]
    for name, path, match in cases:
        with pytest.raises(RequestError, match=match):
            load_network(name, path)
    assert ldm.evaluation.fidelity.effnet.EffnetLite0.can_be_compiled() is False


def test_wrong_settings_are_told(pictures: Tensor, quickly: None) -> None:
    with pytest.raises(RequestError, match="Did you mean 'kid'"):
        check_metrics(["kidd"], quick())
    with pytest.raises(RequestError, match="logits of a classifier, which dinov2"):
        check_metrics(["isc"], quick("dinov2-vit-s-14", classes=0))
    with pytest.raises(RequestError, match=r"takes squares.*64 x 32"):
        quick()(pictures[:, :, :32])
    cases: list[tuple[Settings, str, str]] = [
        (Settings(kid_subset_size=30), "kid", "subsets of 30 pictures from 24 judged and 24 real"),
        (Settings(isc_splits=30), "isc", "30 splits of 24 pictures"),
        (Settings(neighbours=24), "prc", "at least 25 pictures"),
    ]
    for settings, metric, match in cases:
        with pytest.raises(LdmError, match=match):
            compare_folders(pictures, pictures, [metric], settings=settings, quiet=True)
    broken = torch.full((4, 54), torch.nan)
    with pytest.raises(DataError, match="not finite"):
        table.tabulate(quick(), {"x": broken}, broken, ["fid"], FEW)
    assert Settings().fitted(5000).kid_subset_size == 1000
    assert Settings().fitted(300).kid_subset_size == 150


# 5. The part of the evaluation


def test_a_model_that_draws_the_wrong_pictures_is_further_off(
    real: RealPictures, quickly: None
) -> None:
    places = list(range(len(real)))
    found = {}
    for name, answer in (
        ("perfect", places),
        ("other", in_another_style(real, places, seed=0)),
        ("one", [0] * len(real)),
    ):
        pipe: Any = Oracle(real, answer)
        section = fidelity.evaluate(Bench(pipe, real, Options(pairs=12, quiet=True)))
        found[name] = section.rows
    rows = found["perfect"]
    assert list(rows) == [
        f"{split}: {row}"
        for split in ("train", "heldout")
        for row in (part.GENERATED, part.RECONSTRUCTED, table.FLOOR)
    ]
    # The oracle's autoencoder changes nothing, and it knows all pictures.
    assert rows["train: generated"] == rows[f"train: {part.RECONSTRUCTED}"]
    assert rows["train: generated"]["precision-effnetlite0"].value == 1
    assert rows["train: generated"]["FID-effnetlite0"].n == 12
    one = found["one"]["train: generated"]
    assert one["FID-effnetlite0"].value > 2 * rows["train: generated"]["FID-effnetlite0"].value
    assert one["recall-effnetlite0"].value < rows["train: generated"]["recall-effnetlite0"].value
    assert found["other"] != rows
    assert section.protocol["pictures"]["heldout"] == {"N": 12, "reference": 16}
    assert section.protocol["network"]["weights"] == "ab" * 8


@pytest.mark.parametrize("side", [128, 160])
def test_the_judges_features_of_real_pictures_serve(
    real: RealPictures, tmp_path: Path, side: int
) -> None:
    few = RealPictures(real.items[:5], "few")
    pipe: Any = SimpleNamespace(image_size=side, device=torch.device("cpu"))
    bench, network = Bench(pipe, few, Options(quiet=True, cache=tmp_path)), load_network()
    features = part._real_features(bench, network, [3, 1])
    assert features.shape == (2, 2280)
    torch.testing.assert_close(features, network(few.images([3, 1], side)), rtol=1e-3, atol=1e-3)


# 6. Drawing many


def test_many_pictures_are_the_same_whoever_draws_them(tiny_model: Path, tmp_path: Path) -> None:
    pipe = TextToImage.from_pretrained(tiny_model)
    pipe.set_progress_bar_config(disable=True)
    prompts = ["a dog", "a red apple", "a dog", "the sea", "a hat"]

    def draw(folder: str, **more: Any) -> list[Path]:
        given = {"batch_size": 2, "quiet": True, "num_inference_steps": 2, **more}
        return draw_many(pipe, prompts, tmp_path / folder, seed=3, **given)

    def drawn(folder: str) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in (tmp_path / folder).glob("*.png")}

    assert draw("alone") == []
    whole = drawn("alone")
    assert list(sorted(whole)) == [f"{i:06d}.png" for i in range(5)]
    assert whole["000000.png"] != whole["000002.png"]  # another seed
    assert [p.name for p in draw("shared", rank=0, world=2)] == ["000002.png", "000003.png"]
    assert draw("shared", rank=1, world=2) == [] and drawn("shared") == whole
    (tmp_path / "shared" / "000003.png").unlink()
    untouched = (tmp_path / "shared" / "000002.png").stat().st_mtime_ns
    assert draw("shared") == [] and drawn("shared") == whole
    assert (tmp_path / "shared" / "000002.png").stat().st_mtime_ns == untouched
    with pytest.raises(RequestError, match=r"other settings \(decoder: .*'steps': 2.*'steps': 3"):
        draw("shared", num_inference_steps=3)
    with pytest.raises(RequestError, match="batch_size: 2 there, 4 asked"):
        draw("shared", batch_size=4)
    with pytest.raises(RequestError, match="rank from 0 to 1"):
        draw("shared", rank=2, world=2)
    (tmp_path / "shared" / "drawing.json").write_text("[]")
    with pytest.raises(RequestError, match=r"drawing\.json is no file of settings"):
        draw("shared")
    assert len(open_pictures(tmp_path / "alone")) == 5


def test_torchrun_says_which_process_this_is(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = TextToImage.from_pretrained(tiny_model)
    pipe.set_progress_bar_config(disable=True)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    missing = draw_many(
        pipe, ["a", "b"], tmp_path / "x", batch_size=1, quiet=True, num_inference_steps=1
    )
    assert [p.name for p in missing] == ["000000.png"]
    (tmp_path / "prompts.txt").write_text("a dog\n\n  a cat \n")
    assert read_prompts(tmp_path / "prompts.txt") == ["a dog", "a cat"]
    (tmp_path / "prompts.txt").write_text("\n")
    with pytest.raises(RequestError, match="holds no prompt"):
        read_prompts(tmp_path / "prompts.txt")
