"""Sheets of pictures for people to look at.

n pictures; s side in pixels
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

GAP, LABEL, LINES = 2, 9, 3
LARGEST = 128


def sheet(
    rows: Sequence[Tensor],
    captions: Sequence[str],
    *,
    columns: int = 12,
    largest: int | None = LARGEST,
) -> Image.Image:
    """Bands of `columns` captions, each with its pictures from every row one below the other.

    Args:
        rows: uint8 [n 3 s s] each, picture i of every row belonging to caption i.
        largest: side in pixels that larger images are reduced to, by averaging areas; None
            shows every pixel.
    """
    from PIL import Image, ImageDraw, ImageFont

    rows = [_reduced(row[: len(captions)], largest) for row in rows]
    n, side = len(captions), rows[0].shape[-1]
    columns = max(1, min(columns, n))
    head = LINES * (LABEL + 2) + GAP
    band = head + len(rows) * (side + GAP)
    page = Image.new("RGB", (columns * (side + GAP), -(-n // columns) * band), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(LABEL)
    for i, caption in enumerate(captions):
        left, top = i % columns * (side + GAP), i // columns * band
        lines = textwrap.wrap(caption, max(8, side // 5))[:LINES]
        draw.multiline_text((left + 1, top), "\n".join(lines), "black", font, spacing=1)
        for j, row in enumerate(rows):
            picture = Image.fromarray(row[i].permute(1, 2, 0).contiguous().numpy())
            page.paste(picture, (left, top + head + j * (side + GAP)))
    return page


def _reduced(images: Tensor, largest: int | None) -> Tensor:
    """uint8 [n 3 s s] -> the same with sides of `largest` at most."""
    if largest is None or images.shape[-1] <= largest:
        return images
    return F.adaptive_avg_pool2d(images.float(), largest).round().byte()
