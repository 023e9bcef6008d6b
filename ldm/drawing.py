"""From the options of scripts/txt2img.py to PNG files that say how they were made."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm.errors import RequestError

if TYPE_CHECKING:
    from ldm.pipeline import TextToImage

METADATA_KEY = "ldm"


@dataclass(frozen=True)
class Order:
    """One picture that is asked for."""

    prompt: str
    seed: int


def draw(options: argparse.Namespace, *, started: float) -> Iterator[Path]:
    """Draw everything that the options ask for; yields the path of each file as it is written.

    Raises:
        RequestError: an option is out of its range.
        CheckpointError: the model is missing or damaged.
    """
    orders = list(plan(prompts(options), options.num, options.seed))
    size = parse_size(options.size)
    if options.batch_size < 1:
        raise RequestError(f"--batch-size {options.batch_size}: give 1 or more")
    _make(options.out)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    clock = _Clock(started)
    pipe = _load(options)
    clock.mark("imports and weights")
    written, sheet = 0, []
    for first in range(0, len(orders), options.batch_size):
        chunk = orders[first : first + options.batch_size]
        output = pipe(
            [o.prompt for o in chunk],
            seed=[o.seed for o in chunk],
            **_settings(options, size),
        )
        for order, image in zip(chunk, output.images, strict=True):
            yield save(image, options.out, order, {**output.settings, "model": pipe.fingerprint})
            written += 1
        sheet.extend(output.images)
    clock.mark("drawing")
    if options.grid:
        yield save_grid(sheet, options.out, options.num)
    if not options.quiet:
        print(f"{written} in {clock.summary()}", file=sys.stderr)


def prompts(options: argparse.Namespace) -> list[str]:
    """Prompts of the command line and of the file, in this order."""
    found = list(options.prompt)
    if options.from_file is not None:
        try:
            lines = options.from_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"--from-file {options.from_file}: {error}") from error
        found += [line.strip() for line in lines if line.strip()]
    if not found:
        raise RequestError('no prompt given; try: python scripts/txt2img.py "a red apple"')
    return found


def plan(texts: list[str], num: int, seed: int) -> Iterator[Order]:
    """Picture i of each prompt has seed + i."""
    if num < 1:
        raise RequestError(f"--num {num}: ask for 1 picture or more")
    if seed < 0:
        raise RequestError(f"--seed {seed}: give 0 or more")
    for text in texts:
        for i in range(num):
            yield Order(text, seed + i)


def parse_size(text: str | None) -> tuple[int, int] | None:
    """'128x96' to (height, width); None stays None."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)[xX](\d+)", text.strip())
    if not match:
        raise RequestError(f"--size {text!r}: write HEIGHTxWIDTH, for example 128x128")
    return int(match[1]), int(match[2])


def save(image: Any, folder: Path, order: Order, settings: dict[str, Any]) -> Path:
    """Write one PNG with its origin inside; never over another file."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    origin = {"prompt": order.prompt, "seed": order.seed, **settings}
    info.add_itxt(METADATA_KEY, json.dumps(origin, ensure_ascii=False))
    path = _free(folder, f"{_slug(order.prompt)}-{order.seed}")
    image.save(path, pnginfo=info)
    return path


def save_grid(images: list[Any], folder: Path, columns: int) -> Path:
    """All pictures on one sheet, a row for each prompt (or as square as it gets)."""
    from PIL import Image

    columns = columns if columns > 1 else max(1, round(len(images) ** 0.5))
    w, h = images[0].size
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (w + 2) - 2, rows * (h + 2) - 2), "white")
    for i, image in enumerate(images):
        sheet.paste(image, ((i % columns) * (w + 2), (i // columns) * (h + 2)))
    path = _free(folder, "grid")
    sheet.save(path)
    return path


def explain(path: Path) -> str:
    """What a PNG of ours says of itself, as indented JSON.

    Raises:
        RequestError: the file cannot be read or carries nothing of ours.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            text = getattr(image, "text", {}).get(METADATA_KEY)
    except (OSError, UnidentifiedImageError) as error:
        raise RequestError(f"{path}: {error}") from error
    if text is None:
        raise RequestError(f"{path} carries no settings: it was not written by txt2img.py")
    return json.dumps(json.loads(text), indent=2, ensure_ascii=False)


def _load(options: argparse.Namespace) -> TextToImage:
    import torch

    from ldm.pipeline import TextToImage

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    pipe = TextToImage.from_pretrained(options.model, device=device, precision=options.precision)
    pipe.set_progress_bar_config(disable=options.quiet)
    return pipe


def _settings(options: argparse.Namespace, size: tuple[int, int] | None) -> dict[str, Any]:
    """Arguments of the pipeline's call; what was not given keeps the model's default."""
    given = {
        "negative_prompt": options.negative,
        "num_inference_steps": options.steps,
        "guidance_scale": options.guidance,
        "prior_num_inference_steps": options.prior_steps,
        "prior_guidance_scale": options.prior_guidance,
        "solver": options.solver,
        "height": size[0] if size else None,
        "width": size[1] if size else None,
    }
    return {k: v for k, v in given.items() if v is not None}


def _slug(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60] or "picture"


def _make(folder: Path) -> None:
    """Make the folder before anything is drawn that could not be kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"--out {folder}: {error}; name a folder that can be written") from error
    if not os.access(folder, os.W_OK):
        raise RequestError(f"--out {folder} cannot be written; name another folder")


def _free(folder: Path, stem: str) -> Path:
    """A path in the folder that no file has yet."""
    path, i = folder / f"{stem}.png", 1
    while path.exists():
        path, i = folder / f"{stem}-{i}.png", i + 1
    return path


class _Clock:
    """Where the wall time went."""

    def __init__(self, started: float) -> None:
        self.started = self.last = started
        self.spans: list[tuple[str, float]] = []

    def mark(self, name: str) -> None:
        now = time.perf_counter()
        self.spans.append((name, now - self.last))
        self.last = now

    def summary(self) -> str:
        spans = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.spans)
        return f"{self.last - self.started:.1f} s ({spans})"
