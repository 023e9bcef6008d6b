"""Where training writes its numbers and pictures: JSONL always, TensorBoard where installed."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

from torch import Tensor

logger = logging.getLogger(__name__)

FILE = "log.jsonl"


class RunLog:
    """Scalars to `log.jsonl` and TensorBoard, pictures to `samples/` and TensorBoard."""

    def __init__(self, folder: Path, tensorboard: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.start = time.monotonic()
        self.file = (folder / FILE).open("a", buffering=1)
        self.writer = _tensorboard(folder) if tensorboard else None

    def scalars(self, values: dict[str, float], images: int) -> None:
        """One line of numbers after `images` images."""
        line = {"images": images, "seconds": round(time.monotonic() - self.start, 1), **values}
        self.file.write(json.dumps(line) + "\n")
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, images)

    def pictures(self, grid: Tensor, images: int) -> Path:
        """A picture grid, uint8 [3 h w]; returns the path of the PNG."""
        from PIL import Image

        path = self.folder / "samples" / f"{images:09d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(grid.permute(1, 2, 0).cpu().numpy()).save(path)
        if self.writer is not None:
            self.writer.add_image("samples", grid, images)
        return path

    def close(self) -> None:
        """Flush and close the files."""
        self.file.close()
        if self.writer is not None:
            self.writer.close()


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.warning("TensorBoard is not installed (pip install tensorboard): JSONL only")
        return None
    return SummaryWriter(str(folder / "tensorboard"))


def logged_seconds(folder: Path) -> float:
    """How long the run in `folder` has trained to its last logged line, all starts together."""
    path = folder / FILE
    if not path.exists():
        return 0.0
    told = [json.loads(line)["seconds"] for line in path.read_text().splitlines()]
    ends = [now for now, then in zip(told, [*told[1:], 0.0], strict=True) if then < now]
    return float(sum(ends))
