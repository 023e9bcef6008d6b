"""Where shards come from: paths, http(s) and, only if asked for, commands; tar -> raw samples.

Nothing in a shard is unpickled or run: files of other kinds than those listed are not even read.
"""

from __future__ import annotations

import logging
import re
import shlex
import tarfile
import urllib.request
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

from ldm.data import images
from ldm.data.manifest import NAME, Manifest, ShardEntry, load_manifest, parse_manifest
from ldm.errors import DataError

logger = logging.getLogger(__name__)

READABLE = (*images.EXTENSIONS, "txt", "json", "latent.npy", "clip.npy")
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]+):")
_ATTEMPTS = 3
_TIMEOUT_S = 60


@dataclass(frozen=True)
class Raw:
    """The files of one sample, by extension in lower case, undecoded."""

    key: str
    files: dict[str, bytes]


@dataclass
class ShardContent:
    """What reading a shard gave: the wanted samples by place, how many there were, what broke."""

    samples: dict[int, Raw] = field(default_factory=dict)
    found: int = 0
    fault: str | None = None


def check_source(source: str, *, allow_pipe: bool = False) -> None:
    """Refuse sources that are neither a folder, nor http(s), nor an allowed command."""
    scheme = _scheme(source)
    if scheme in ("", "http", "https"):
        return
    if scheme != "pipe":
        raise DataError(f"{source!r}: scheme {scheme!r} is not read; give a folder or http(s)")
    if not allow_pipe:
        raise DataError(f"{source!r} would run a command; pass allow_pipe=True if you trust it")
    if "{name}" not in source:
        raise DataError(f"{source!r} needs {{name}} where a shard's file name goes")


def is_folder(source: str) -> bool:
    """Whether a source is a local folder."""
    return not _scheme(source)


def full_name(source: str, name: str) -> str:
    """Where a shard is, for messages."""
    return source.replace("{name}", name) if _scheme(source) == "pipe" else f"{source}/{name}"


def read_manifest(source: str) -> Manifest:
    """The manifest of a checked source."""
    if not _scheme(source):
        return load_manifest(Path(source))
    where = full_name(source, NAME)
    try:
        with _opened(source, NAME) as file:
            text = file.read()
    except (OSError, HTTPException) as error:
        raise DataError(f"{where} cannot be fetched: {_message(error)}") from error
    return parse_manifest(text, where)


def read_shard(source: str, name: str, wanted: Collection[int] | None = None) -> ShardContent:
    """Read one shard; `wanted` are the places of the samples to keep, None keeps all.

    Never raises on a damaged shard: what was readable is there, `fault` says what was not.
    """
    attempts = _ATTEMPTS if _scheme(source) in ("http", "https") else 1
    content = ShardContent()
    for _ in range(attempts):
        content = ShardContent()
        try:
            with _opened(source, name) as file:
                _collect(file, content, wanted)
            return content
        except (tarfile.TarError, OSError, EOFError, ValueError, HTTPException) as error:
            content.fault = _message(error)
    return content


def read_whole(source: str, entry: ShardEntry) -> list[Raw]:
    """Every sample of a shard, in order.

    Raises:
        DataError: the shard does not hold what its manifest says.
    """
    content = read_shard(source, entry.name)
    if content.fault or content.found != entry.samples:
        fault = f" ({content.fault})" if content.fault else ""
        raise DataError(
            f"{full_name(source, entry.name)} holds {content.found} samples, its manifest says "
            f"{entry.samples}{fault}: make the shards again"
        )
    return [content.samples[i] for i in sorted(content.samples)]


def _collect(file: IO[bytes], content: ShardContent, wanted: Collection[int] | None) -> None:
    from webdataset.tariterators import base_plus_ext, group_by_keys, tar_file_iterator

    current: list[str | None] = [None]
    places: dict[str, int] = {}

    def select(path: str) -> bool:
        key, extension = base_plus_ext(path)
        if key is None:
            return False
        if key != current[0]:
            current[0] = key
            places[key] = content.found
            content.found += 1
        keep = wanted is None or places[key] in wanted
        return keep and extension.lower() in READABLE

    def named() -> Iterator[dict[str, Any]]:
        for item in tar_file_iterator(file, select_files=select):
            yield {**item, "__url__": ""}

    for sample in group_by_keys(named()):
        key = sample["__key__"]
        files = {k: v for k, v in sample.items() if not k.startswith("__")}
        content.samples[places[key]] = Raw(key, files)


def _message(error: Exception) -> str:
    # webdataset extends the arguments of what it passes on: the first one is the message.
    if error.args and isinstance(error.args[0], str):
        return error.args[0]
    return str(error) or type(error).__name__


def _scheme(source: str) -> str:
    match = _SCHEME.match(source)
    return match.group(1).lower() if match else ""


def _opened(source: str, name: str) -> IO[bytes]:
    scheme = _scheme(source)
    if scheme == "pipe":
        from webdataset.gopen import gopen

        return gopen(source.replace("{name}", shlex.quote(name)))
    if scheme:
        url = f"{source.rstrip('/')}/{name}"
        return urllib.request.urlopen(url, timeout=_TIMEOUT_S)
    return (Path(source) / name).open("rb")
