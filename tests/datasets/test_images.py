"""Every encoding of a picture comes out as upright 8-bit RGB on white, or as a clear error."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from platonic_ray.datasets import decode_image
from platonic_ray.errors import DataError

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_transparent_pixels_become_white_and_half_transparent_ones_are_mixed() -> None:
    image = Image.new("RGBA", (3, 1), (*RED, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((2, 0), (*RED, 128))
    decoded = decode_image(encode(image))
    assert decoded.mode == "RGB"
    assert [decoded.getpixel((x, 0)) for x in range(3)] == [RED, WHITE, (255, 127, 127)]


def test_a_palette_with_a_transparent_color_becomes_white_there() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, 0, 0, 255])
    image.putpixel((1, 0), 1)
    decoded = decode_image(encode(image, transparency=1))
    assert [decoded.getpixel((x, 0)) for x in range(2)] == [RED, WHITE]


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_gray_modes_become_rgb(mode: str) -> None:
    assert decode_image(encode(Image.new(mode, (2, 2), 0 if mode != "LA" else (0, 255)))).getpixel(
        (0, 0)
    ) == (0, 0, 0)


def test_cmyk_becomes_rgb() -> None:
    red, green, blue = np.asarray(decode_image(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")))[
        4, 4
    ]
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_gray_is_scaled_not_cut(kind: str) -> None:
    image = Image.fromarray(np.array([[0, 257 * 100, 65535]], dtype=np.uint16))
    assert np.asarray(decode_image(encode(image, kind)))[0, :, 0].tolist() == [0, 100, 255]


def png_of_sixteen_bits(pixels: np.ndarray) -> bytes:
    """Write `[height, width, channels]` uint16 by hand: Pillow has no such mode to save from."""
    height, width, channels = pixels.shape
    kind = {2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_of_sixteen_bit_color_the_upper_eight_bits_are_taken() -> None:
    color = np.array([[[0, 100 << 8, 65535], [255, 256, 32767]]], np.uint16)
    assert np.asarray(decode_image(png_of_sixteen_bits(color))).tolist() == [[[0, 100, 255], [0, 1, 127]]]
    opaque, clear = (np.full((1, 2, 1), alpha, np.uint16) for alpha in (65535, 0))
    assert np.array_equal(
        decode_image(png_of_sixteen_bits(np.concatenate([color, opaque], -1))),
        decode_image(png_of_sixteen_bits(color)),
    )
    hidden = decode_image(png_of_sixteen_bits(np.concatenate([color, clear], -1)))
    assert np.asarray(hidden).min() == 255
    gray = np.array([[[100 << 8, 65535], [0, 0]]], np.uint16)
    assert np.asarray(decode_image(png_of_sixteen_bits(gray)))[0].tolist() == [[100] * 3, [255] * 3]


def test_exif_orientation_turns_the_image_upright() -> None:
    image = Image.new("RGB", (4, 2), WHITE)
    image.paste(RED, (0, 0, 1, 2))  # the left column
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise
    decoded = decode_image(encode(image, exif=exif))
    assert decoded.size == (2, 4)
    assert [decoded.getpixel((x, 0)) for x in range(2)] == [RED, RED]
    assert decoded.getpixel((0, 1)) == WHITE


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (2, 2), color) for color in (RED, WHITE)]
    encoded = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(encoded).getpixel((0, 0)) == RED


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", r"empty image \(0 bytes\)"),
        (b"a text, not an image", "not an image in a format that Pillow reads"),
        (encode(Image.effect_noise((64, 64), 50))[:900], "unreadable image"),
        (encode(Image.effect_noise((64, 64), 50), "JPEG")[:900], "unreadable image"),
        (encode(Image.new("F", (2, 2)), "TIFF"), "mode F has no agreed range"),
    ],
)
def test_broken_bytes_are_one_clear_error(encoded: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        decode_image(encoded)
