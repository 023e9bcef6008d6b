"""The stream: same batches whatever the workers and the starting point; nothing lost in silence."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.data.batch import Batch
from ldm.data.collect import scan
from ldm.data.reader import read_shard
from ldm.data.shards import ShardConfig, ShardStream
from ldm.data.writer import Sample, write_shards
from ldm.errors import DataError

FIXTURE = Path(__file__).parent / "fixtures" / "emoji"
COUNT, PER_SHARD = 45, 8


def picture(value: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), (value % 256, 0, 0)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """45 samples in 6 shards; picture and captions tell which sample it is."""
    samples = [Sample(picture(i), "png", (f"s{i}", f"a {i}", f"b {i}")) for i in range(COUNT)]
    write_shards(samples, tmp_path / "set", split="train", per_shard=PER_SHARD)
    return tmp_path / "set"


def stream(folder: Path, **options: object) -> ShardStream:
    rank, world_size = options.pop("rank", 0), options.pop("world_size", 1)
    settings = {"batch_size": 4, "group": 2, **options}
    config = ShardConfig(sources=(str(folder),), **settings)
    return ShardStream(config, rank=rank, world_size=world_size)


def keys(batches: list[Batch]) -> list[str]:
    return [key for batch in batches for key in batch.key]


def write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def made(folder: Path, members: Mapping[str, bytes]) -> Path:
    """A folder with one shard of these members, and a manifest that tells the truth."""
    folder.mkdir(exist_ok=True)
    write_tar(folder / "00000.tar", members)
    scan(folder, "train")
    return folder


# 1. Order


def test_batches_are_the_same_from_any_start_with_any_workers(shards: Path) -> None:
    straight = list(islice(stream(shards).batches(), 34))
    for start in (0, 3, 11, 25):
        for workers in (0, 1, 2):
            resumed = stream(shards, workers=workers).batches(start_batch=start)
            for want, got in zip(straight[start : start + 9], resumed, strict=False):
                assert want.key == got.key and want.caption == got.caption
                assert torch.equal(want.image, got.image)


def test_each_epoch_has_every_sample_once_in_another_order(shards: Path) -> None:
    order = keys(list(islice(stream(shards, batch_size=5).batches(), 27)))
    epochs = [order[i * COUNT : (i + 1) * COUNT] for i in range(3)]
    assert all(len(set(e)) == COUNT for e in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    again = keys(list(islice(stream(shards, batch_size=5).batches(), 9)))
    other = keys(list(islice(stream(shards, batch_size=5, seed=1).batches(), 9)))
    assert again == epochs[0] != other


def test_captions_vary_over_epochs_and_do_not_depend_on_the_batch(shards: Path) -> None:
    def chosen(size: int) -> list[dict[str, str]]:
        flat = [
            pair
            for b in islice(stream(shards, batch_size=size).batches(), 3 * COUNT // size)
            for pair in zip(b.key, b.caption, strict=True)
        ]
        return [dict(flat[i * COUNT : (i + 1) * COUNT]) for i in range(3)]

    epochs = chosen(5)
    assert epochs == chosen(9)
    assert epochs[0] != epochs[1] != epochs[2]
    assert {c[0] for c in epochs[0].values()} == {"s", "a", "b"}


@pytest.mark.parametrize("world_size", [2, 3])
def test_each_sample_once_an_epoch_over_ranks_and_workers(shards: Path, world_size: int) -> None:
    met: Counter[str] = Counter()
    for rank in range(world_size):
        one = stream(shards, rank=rank, world_size=world_size, workers=2, batch_size=1)
        met.update(keys(list(islice(one.batches(), one.order.start(1)))))
    assert len(met) == COUNT and set(met.values()) == {1}


def test_more_ranks_than_shards_is_refused(shards: Path) -> None:
    with pytest.raises(DataError, match=r"6 shards .* for 7 ranks"):
        stream(shards, rank=0, world_size=7)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_epoch_is_every_sample_once_in_order(shards: Path, workers: int) -> None:
    batches = list(stream(shards, workers=workers, batch_size=7).epoch())
    assert [len(b) for b in batches] == [7] * 6 + [3]
    assert [c for b in batches for c in b.caption] == [f"s{i}" for i in range(COUNT)]
    assert all(b.image[0, 0, 0, 0] == int(b.caption[0][1:]) for b in batches)


def test_resuming_reads_no_earlier_group(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counting(source: str, name: str, wanted: set[int] | None = None) -> object:
        read.append(name)
        return read_shard(source, name, wanted)

    monkeypatch.setattr("ldm.data.groups.read_shard", counting)
    next(stream(shards, group=1, batch_size=5).batches(start_batch=90))
    assert len(read) <= 2


def test_cache_reads_each_shard_once_and_changes_nothing(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = list(islice(stream(shards).batches(), 40))
    cached = stream(shards, cache=True).batches()
    first = list(islice(cached, 12))
    monkeypatch.setattr("ldm.data.groups.read_shard", lambda *_: pytest.fail("read again"))
    rest = list(islice(cached, 28))
    for want, got in zip(plain, first + rest, strict=True):
        assert want.key == got.key and want.caption == got.caption
        assert torch.equal(want.image, got.image)
    with pytest.raises(DataError, match="workers=2"):
        stream(shards, cache=True, workers=2)


def test_global_random_state_is_left_alone_and_stream_can_be_sent(shards: Path) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    next(stream(shards).batches())
    assert torch.equal(before, torch.get_rng_state())
    copy = pickle.loads(pickle.dumps(stream(shards)))
    assert next(copy.batches()).key == next(stream(shards).batches()).key


# 2. Damage


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_header(path: Path) -> None:
    """Overwrite the header of the sixth sample's first file: tarfile stops there in silence."""
    with tarfile.open(path) as tar:
        member = next(m for m in tar if m.name.startswith("000010005"))
    data = bytearray(path.read_bytes())
    data[member.offset : member.offset + 512] = b"\xff" * 512
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_page(path: Path) -> None:
    path.write_bytes(b"<html>404 not found</html>" * 100)


DAMAGES: list[Callable[[Path], None]] = [
    truncate,
    damage_header,
    empty,
    replace_by_page,
    Path.unlink,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_shard_is_an_error_that_names_it(
    shards: Path, damage: Callable[[Path], None], workers: int
) -> None:
    damage(shards / "00001.tar")
    with pytest.raises(DataError, match=r"00001\.tar") as caught:
        list(islice(stream(shards, workers=workers).batches(), 12))
    assert "Traceback" not in str(caught.value)


def test_damaged_header_tells_expected_and_found(shards: Path) -> None:
    damage_header(shards / "00001.tar")
    with pytest.raises(DataError, match=r"holds 5 samples, its manifest says 8"):
        list(stream(shards).epoch())


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("workers", [0, 2])
def test_policy_warn_goes_on_and_counts_what_is_lost(
    shards: Path, damage: Callable[[Path], None], workers: int
) -> None:
    damage(shards / "00001.tar")
    lossy = stream(shards, on_damage="warn", max_bad_fraction=0.5, workers=workers)
    met = keys(list(lossy.epoch()))
    assert len(met) == len(set(met)) == COUNT - lossy.report().num_skipped < COUNT
    assert list(lossy.report().damaged) == [str(shards / "00001.tar")]
    lost = lossy.report().num_skipped
    endless = list(islice(lossy.batches(), 12))
    assert all(len(b) == 4 for b in endless)
    assert set(keys(endless)) == set(met)
    assert lossy.report(0).num_skipped == lost
    assert "damaged shards" in lossy.report(0).summary()


def test_replacements_are_the_same_from_any_start_with_any_workers(shards: Path) -> None:
    damage_header(shards / "00001.tar")
    options = {"on_damage": "warn", "max_bad_fraction": 0.5}
    straight = [b.key for b in islice(stream(shards, **options).batches(), 20)]
    for workers in (0, 1, 2):
        resumed = stream(shards, workers=workers, **options).batches(start_batch=5)
        assert [b.key for b in islice(resumed, 10)] == straight[5:15]


def test_too_many_bad_samples_stop_the_run(shards: Path) -> None:
    damage_header(shards / "00001.tar")
    with pytest.raises(DataError, match=r"max_bad_fraction=0\.01 of 45"):
        list(stream(shards, on_damage="warn").epoch())


def test_skipped_samples_are_counted_by_reason(tmp_path: Path) -> None:
    good, bad_json = picture(1), json.dumps({"captions": [1]}).encode()
    members = {f"{i}.png": good for i in range(1, 4)} | {
        "4.png": good, "4.txt": b"fine",
        "5.txt": b"no picture",
        "6.png": good[:45], "6.txt": b"cut",
        "7.png": good, "7.txt": b"\xff\xfe",
        "8.png": good, "8.json": bad_json,
        "9.png": good, "9.txt": b" \0 ",
    }  # fmt: skip
    one = stream(made(tmp_path / "odd", members), max_bad_fraction=1.0)
    assert keys(list(one.epoch())) == ["4"]
    counted = one.report().skipped
    assert counted["no caption"] == 4
    assert counted["caption is not utf-8"] == counted["picture cannot be decoded"] == 1
    assert counted["no picture (png, jpg, jpeg, webp)"] == 1
    assert one.report().num_skipped == 8
    assert next(one.batches()).key == ("4",) * 4
    free = stream(tmp_path / "odd", max_bad_fraction=1.0, require_caption=False)
    assert keys(list(free.epoch())) == ["1", "2", "3", "4", "9"]


# 3. Hostile and foreign shards


def test_nothing_is_unpickled_or_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (canary,)  # type: ignore[return-value]

    bomb = pickle.dumps(Bomb())
    objects = io.BytesIO()
    np.save(objects, np.array([Bomb()], dtype=object), allow_pickle=True)
    names = ("pkl", "pyd", "pickle", "pth", "pt", "npz", "cls", "mp", "ten")
    members = {f"0.{n}": bomb for n in names} | {"0.png": picture(1), "0.txt": b"a"}
    members |= {"1.png": picture(1), "1.txt": b"b", "1.latent.npy": objects.getvalue()}
    folder = made(tmp_path / "bad", members)
    list(stream(folder).epoch())
    latents = stream(folder, fields=("latent",), max_bad_fraction=1.0)
    assert list(latents.epoch()) == []
    assert latents.report().skipped["latent.npy is not a 3-dimensional float array"] == 1
    assert not canary.exists()


def test_commands_and_unknown_schemes_are_refused(shards: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for source in (f"pipe:touch {canary}; cat {{name}}", "file:///etc", "s3://b/x", "gs://b/x"):
        with pytest.raises(DataError):
            ShardConfig(sources=(source,))
    assert not canary.exists()
    command = ShardConfig(
        sources=(f"pipe:cat {shards}/{{name}}",), allow_pipe=True, batch_size=4, group=2
    )
    assert next(ShardStream(command).batches()).key == next(stream(shards).batches()).key


def test_manifest_cannot_name_files_elsewhere(shards: Path) -> None:
    path = shards / "manifest.json"
    path.write_text(path.read_text().replace('"00001.tar"', '"../../00001.tar"'))
    with pytest.raises(DataError, match="without folders"):
        stream(shards)


def test_strange_keys_are_only_names(tmp_path: Path) -> None:
    long = "x" * 300
    members = {}
    for key in ("../../up", "/abs/olute", long, "ä ö"):
        members |= {f"{key}.PNG": picture(3), f"{key}.TXT": b"ok"}
    folder = made(tmp_path / "keys", members)
    before = sorted(tmp_path.rglob("*"))
    met = keys(list(stream(folder).epoch()))
    assert len(met) == 4 and met[2] == long
    assert sorted(tmp_path.rglob("*")) == before


def test_http_source(shards: Path) -> None:
    import functools
    import http.server
    import threading

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(shards))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = f"http://127.0.0.1:{server.server_port}"
        config = ShardConfig(sources=(source,), batch_size=4, group=2)
        assert next(ShardStream(config).batches()).key == next(stream(shards).batches()).key
        (shards / "00001.tar").unlink()
        with pytest.raises(DataError, match=r"127.0.0.1:\d+/00001.tar holds 0 samples.*404"):
            list(ShardStream(config).epoch())
        with pytest.raises(DataError, match=r"nowhere/manifest.json cannot be fetched.*404"):
            ShardStream(ShardConfig(sources=(f"{source}/nowhere",)))
        server.shutdown()


# 4. Fields


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def test_latents_embeddings_and_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(3, 8, 2, 2)).astype(np.float16)
    members = {}
    for i in range(3):
        members[f"{i}.latent.npy"] = npy(latents[i])
        members[f"{i}.clip.npy"] = npy(np.ones(5, np.float16))
        members[f"{i}.json"] = json.dumps({"label": i, "captions": ["x"]}).encode()
    fields = ("latent", "image_embedding", "label", "caption")
    (batch,) = stream(made(tmp_path / "l", members), fields=fields).epoch()
    assert torch.equal(batch.latent, torch.from_numpy(latents).float())
    assert batch.image_embedding.shape == (3, 5) and batch.label.tolist() == [0, 1, 2]
    assert batch.image is None and batch.caption == ("x", "x", "x")
    assert len(batch.replace(latent=None).to("cpu")) == 3


@pytest.mark.parametrize(
    "data",
    [
        npy(np.zeros((2, 2, 2), np.float16))[:-1],
        npy(np.full((2, 2, 2), np.nan, np.float16)),
        npy(np.zeros((2, 2), np.float16)),
        npy(np.zeros((2, 2, 2), np.int64)),
        npy(np.zeros((2, 2, 2), np.float16)).replace(b"(2, 2, 2)", b"(9**9,2)"),
        npy(np.zeros((2, 2, 2), np.float16)).replace(b"(2, 2, 2)", b"(999999,)"),
        b"nonsense",
    ],
)
def test_bad_arrays_are_skipped(tmp_path: Path, data: bytes) -> None:
    folder = made(tmp_path / "a", {"0.latent.npy": data})
    one = stream(folder, fields=("latent",), max_bad_fraction=1.0)
    assert list(one.epoch()) == [] and one.report().num_skipped == 1


def test_pictures_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("RGB", (9, 5)).save(out, "JPEG")
    members = {"0.png": picture(0), "0.txt": b"a", "1.jpg": out.getvalue(), "1.txt": b"b"}
    folder = made(tmp_path / "sizes", members)
    with pytest.raises(DataError, match="set `size`"):
        list(stream(folder).epoch())
    (batch,) = stream(folder, size=4).epoch()
    assert batch.image.shape == (2, 3, 4, 4) and batch.image.dtype == torch.uint8


def test_fixture_streams_end_to_end() -> None:
    batch = next(stream(FIXTURE / "train", batch_size=16, size=32).batches())
    assert batch.image.shape == (16, 3, 32, 32) and len(set(batch.key)) == 16
    assert all(batch.caption)
    total = sum(len(b) for part in ("train", "heldout") for b in stream(FIXTURE / part).epoch())
    assert total == 190
