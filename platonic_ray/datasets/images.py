"""Encoded images to RGB pixels: the one way every model of this project sees an image file."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from platonic_ray.errors import DataError

SIXTEEN_BITS_TO_EIGHT = 257  # 65535 / 255


def decode_image(encoded: bytes) -> Image.Image:
    """Return an encoded image (PNG, JPEG, WebP, …) as a Pillow image of mode RGB, 8 bits a channel.

    Turned upright by its EXIF orientation; transparency composited on white; the first frame of an
    animation; palette, gray and CMYK converted; 16-bit gray scaled by 1/257, of 16-bit color and of 16-bit
    gray with transparency the upper 8 bits taken, as Pillow reads them. Color profiles are not applied.

    :raises DataError: saying what is wrong, if the bytes are not an image, are cut off, or hold
        pixels without an agreed range (floats, 32-bit integers).

    >>> out = io.BytesIO()
    >>> Image.new("RGBA", (2, 1), (255, 0, 0, 0)).save(out, "PNG")
    >>> decode_image(out.getvalue()).getpixel((0, 0))
    (255, 255, 255)
    """
    if not encoded:
        raise DataError("empty image (0 bytes)")
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            opened.load()
            image = ImageOps.exif_transpose(opened)
            if image.width == 0 or image.height == 0:
                raise DataError(f"image without pixels ({image.width}×{image.height})")
            return _on_white(_eight_bits(image))
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise DataError("not an image in a format that Pillow reads") from None
    except Exception as error:  # codecs raise anything on broken bytes: OSError, SyntaxError, zlib.error, …
        raise DataError(f"unreadable image ({str(error).strip() or type(error).__name__})") from None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return an image of 8 bits a channel; a 16-bit gray key color becomes transparency."""
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    if not sixteen:
        if image.mode in ("F", "I"):
            raise DataError(
                f"image of mode {image.mode} has no agreed range; save it with 8 or 16 bits a channel"
            )
        return image
    wide = np.asarray(image).astype(np.int64)
    gray = Image.fromarray(np.rint(wide / SIXTEEN_BITS_TO_EIGHT).clip(0, 255).astype(np.uint8))
    key = image.info.get("transparency")
    if isinstance(key, int):
        gray.putalpha(Image.fromarray(np.where(wide == key, 0, 255).astype(np.uint8)))
    return gray


def _on_white(image: Image.Image) -> Image.Image:
    """Return an RGB image; transparent parts show white."""
    if image.mode not in ("RGBA", "RGBa", "LA", "La", "PA") and "transparency" not in image.info:
        return image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")
