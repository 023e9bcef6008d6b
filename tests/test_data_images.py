"""Pictures as the world makes them: every kind is decoded or refused with a reason."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.data.images import Crop, decode_image, upright_size
from ldm.errors import DataError


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG written by hand: Pillow does not write all that it may be given."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (40, 20), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # shown rotated by 90 degrees
    assert decode_image(encoded(image, "JPEG", exif=exif)).shape == (3, 40, 20)
    assert upright_size(encoded(image, "JPEG", exif=exif)) == (40, 20)
    assert upright_size(encoded(image, "PNG")) == (20, 40)


def test_transparency_is_laid_on_white() -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 128))
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True})):
        pixels = decode_image(encoded(image, kind, **options))
        assert pixels[:, 0, 0].tolist() == [255] * 3
        assert pixels[:, 0, 1].tolist() == [127] * 3
    grey = decode_image(encoded(Image.new("LA", (1, 1), (0, 0))))
    assert grey.flatten().tolist() == [255] * 3


def test_palette_with_and_without_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert decode_image(encoded(image)).flatten().tolist() == [255, 0, 0, 0, 0, 255]
    clear = decode_image(encoded(image, transparency=1))
    assert clear[:, 0, 1].tolist() == [255] * 3


def test_16_bit_greys_are_scaled_not_clipped() -> None:
    wide = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    pixels = decode_image(encoded(Image.fromarray(wide)))
    assert pixels[0, 0].tolist() == [0, 1, 128, 255]


def test_16_bit_colour() -> None:
    row = b"\0" + struct.pack(">6H", 65535, 0, 32768, 0, 65535, 0)
    pixels = decode_image(png(2, 1, 16, 2, row))
    assert pixels[:, 0, 0].tolist() == [255, 0, 128]


def test_cmyk_grey_and_bilevel() -> None:
    red = decode_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert red[0].min() > 240 and red[1:].max() < 15
    assert decode_image(encoded(Image.new("L", (3, 2), 7))).unique().tolist() == [7]
    assert decode_image(encoded(Image.new("1", (3, 2), 1))).unique().tolist() == [255]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    assert decode_image(data)[:, 0, 0].tolist() == [255, 0, 0]


def test_crop_of_one_pixel_and_of_its_own_size() -> None:
    one = decode_image(encoded(Image.new("RGB", (1, 1), "red")), Crop(size=4))
    assert one.shape == (3, 4, 4) and one[0].min() == 255
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    same = decode_image(encoded(Image.fromarray(noise)), Crop(size=16))
    assert torch.equal(same, torch.from_numpy(noise).permute(2, 0, 1))


def test_crop_is_centred_and_antialiased() -> None:
    wide = np.zeros((16, 48, 3), dtype=np.uint8)
    wide[:, 16:32] = 255
    middle = decode_image(encoded(Image.fromarray(wide)), Crop(size=8))
    assert middle[:, :, 1:-1].min() == 255 and middle.min() > 230
    assert torch.equal(middle, middle.flip(-1))
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    middle = decode_image(encoded(Image.fromarray(stripes)), Crop(size=8))[:, 2:-2, 2:-2]
    assert (middle.int() - 127).abs().max() <= 2
    assert Crop(size=8).identity() != Crop(size=16).identity()


def test_bomb_is_refused_from_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = zlib.compress(bytes(1))  # no pixel data at all: the header alone decides
    for width in (9_000, 60_000):
        header = struct.pack(">IIBBBBB", width, width, 8, 2, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows)
        monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
        with pytest.raises(DataError, match="pixel limit"):
            decode_image(data)


def test_pixel_limit_is_inclusive() -> None:
    data = encoded(Image.new("RGB", (10, 10)))
    assert decode_image(data, pixel_limit=100).shape == (3, 10, 10)
    with pytest.raises(DataError, match="10 x 10"):
        decode_image(data, pixel_limit=99)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_cut_files_are_refused_wherever_cut(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    for share in (0.0, 0.02, 0.1, 0.5, 0.9):
        with pytest.raises(DataError):
            decode_image(data[: int(len(data) * share)])


def test_other_formats_are_refused() -> None:
    for kind in ("GIF", "BMP", "TIFF"):
        with pytest.raises(DataError, match="not a jpg, png or webp"):
            decode_image(encoded(Image.new("RGB", (4, 4)), kind))
