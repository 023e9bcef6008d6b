"""Sheets of pictures for people to look at.

n pictures; s side in pixels
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

GAP, LABEL, LINES = 2, 9, 3


def sheet(rows: Sequence[Tensor], captions: Sequence[str], *, columns: int = 12) -> Image.Image:
    """Bands of `columns` captions, each with its pictures from every row one below the other.

    Args:
        rows: uint8 [n 3 s s] each, picture i of every row belonging to caption i.
    """
    from PIL import Image, ImageDraw, ImageFont

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
