"""manifest.json beside the shards: how many samples and which bytes each of them holds.

Only the manifest can tell that a shard lost samples in the middle: a damaged header ends the
reading of a tar silently.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ldm.errors import DataError
from ldm.files import sha256_of, write_atomically

FORMAT = 1
NAME = "manifest.json"


@dataclass(frozen=True)
class ShardEntry:
    """One shard: file name, number of samples, bytes of the file, sha256 of the file."""

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json; `extra` holds what else its writer wants to tell."""

    split: str
    shards: tuple[ShardEntry, ...]
    licences: Mapping[str, int] = field(default_factory=dict)
    versions: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        return sum(s.samples for s in self.shards)

    def save(self, folder: Path) -> None:
        """Write manifest.json into `folder`, whole or not at all."""
        body = {"format": FORMAT, "samples": self.samples} | asdict(self)
        write_atomically(folder / NAME, (json.dumps(body, indent=1) + "\n").encode())


def parse_manifest(text: str | bytes, where: str) -> Manifest:
    """A manifest from its JSON text; `where` is named in errors."""
    try:
        body = json.loads(text)
        version = body["format"]
        if version != FORMAT:
            raise DataError(f"{where} has format {version!r}; this version reads {FORMAT}")
        shards = tuple(_entry(s, where) for s in body["shards"])
        return Manifest(
            split=str(body["split"]),
            shards=shards,
            licences=dict(body.get("licences", {})),
            versions=tuple(body.get("versions", ())),
            extra=dict(body.get("extra", {})),
        )
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where} is not a manifest of shards: {error!r}") from error


def load_manifest(folder: Path) -> Manifest:
    """The manifest of a local folder of shards."""
    path = folder / NAME
    if not path.exists():
        raise DataError(
            f"no {NAME} in {folder}; write one with: "
            f"python scripts/make_shards.py --write-manifest {folder}"
        )
    return parse_manifest(path.read_bytes(), str(path))


def verify(folder: Path, *, hashes: bool = True) -> None:
    """Compare every shard with the manifest, bytes and sha256; DataError lists all differences.

    `hashes=False` looks at the files' sizes only, which reads nothing.
    """
    faults: list[str] = []
    for entry in load_manifest(folder).shards:
        path = folder / entry.name
        if not path.exists():
            faults.append(f"{entry.name} is missing")
        elif path.stat().st_size != entry.bytes:
            faults.append(f"{entry.name} has {path.stat().st_size} bytes, expected {entry.bytes}")
        elif hashes and sha256_of(path) != entry.sha256:
            faults.append(f"{entry.name} has another sha256 than when it was written")
    if faults:
        raise DataError(f"shards in {folder} differ from their manifest: {'; '.join(faults)}")


def _entry(body: Mapping[str, Any], where: str) -> ShardEntry:
    entry = ShardEntry(
        str(body["name"]), int(body["samples"]), int(body["bytes"]), str(body["sha256"])
    )
    if entry.samples < 0 or Path(entry.name).name != entry.name or entry.name in ("", ".", ".."):
        raise DataError(
            f"{where} lists shard {entry.name!r} with {entry.samples} samples; a shard is a file "
            "name without folders and has 0 or more samples"
        )
    return entry
