"""A model folder: the four parts of a text-to-image model, and the index that holds them together.

manifest.json  format, image size, default samplers, sha256 of every file
autoencoder/   clip/   prior/   decoder/
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ldm import config
from ldm.errors import CheckpointError
from ldm.files import sha256_of
from ldm.samplers import Sampler

FORMAT = 1
INDEX = "manifest.json"
PARTS = ("autoencoder", "clip", "prior", "decoder")


@dataclass(frozen=True)
class ModelIndex:
    """What manifest.json says.

    Attributes:
        folder: where it lies.
        image_size: side in pixels of the pictures that the model was trained on.
        samplers: default settings of "prior" and "decoder".
        files: sha256 of each file, by its path in the folder.
    """

    folder: Path
    image_size: int
    samplers: Mapping[str, Sampler]
    files: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the sums of all files."""
        text = json.dumps(dict(self.files), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def read(cls, folder: Path) -> ModelIndex:
        """Read the index.

        Raises:
            CheckpointError: there is no model here, or its index cannot be read.
        """
        path = folder / INDEX
        if not path.exists():
            raise CheckpointError(
                f"no model in {folder}: {INDEX} is missing. Give the folder of a model with "
                f"--model, or make one with scripts/export.py"
            )
        try:
            body = json.loads(path.read_text())
            samplers: dict[str, Sampler] = {
                name: config.from_dict(value, Sampler, f"{path}: {name}")
                for name, value in body["samplers"].items()
            }
            if body["format"] != FORMAT:
                raise CheckpointError(f"{path}: format {body['format']}; this reads {FORMAT}")
            return cls(folder, int(body["image_size"]), samplers, body["files"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path} cannot be read: {error!r}") from error

    def verify(self) -> None:
        """Compare every file with its sum.

        Raises:
            CheckpointError: naming each file that is missing or damaged.
        """
        faults = []
        for name, expected in self.files.items():
            path = self.folder / name
            if not path.exists():
                faults.append(f"{path} is missing")
            elif sha256_of(path) != expected:
                faults.append(f"{path} is damaged (its sha256 is not the one in {INDEX})")
        if faults:
            raise CheckpointError("; ".join(faults) + ". Fetch the model again.")


def write_index(folder: Path, image_size: int, samplers: Mapping[str, Sampler]) -> ModelIndex:
    """Write manifest.json for the four parts in `folder`."""
    paths = sorted(p for part in PARTS for p in (folder / part).rglob("*") if p.is_file())
    files = {p.relative_to(folder).as_posix(): sha256_of(p) for p in paths}
    body = {
        "format": FORMAT,
        "image_size": image_size,
        "samplers": {name: config.to_dict(sampler) for name, sampler in samplers.items()},
        "files": files,
    }
    (folder / INDEX).write_text(json.dumps(body, indent=1) + "\n")
    return ModelIndex.read(folder)
