"""Encoded animations to frames: the one way every model of this project sees a moving picture.

Animated GIF, WebP and PNG, by Pillow: short clips, lossless or nearly so, without a codec to install.
Films (MP4, WebM) need a decoder of video, which brings a build of FFmpeg; convert them first.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, UnidentifiedImageError

from platonic_ray.errors import DataError


def decode_video(encoded: bytes) -> list[Image.Image]:
    """Return the frames of an encoded animation, in their order, as Pillow images of mode RGB.

    Transparency is composited on white. How long a frame is shown plays no part.

    :raises DataError: saying what is wrong, if the bytes are no animation, are cut off or have one frame.

    >>> out, frames = io.BytesIO(), [Image.new("RGB", (2, 2), color) for color in ("red", "blue")]
    >>> frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    >>> [frame.getpixel((0, 0)) for frame in decode_video(out.getvalue())]
    [(255, 0, 0), (0, 0, 255)]
    """
    if not encoded:
        raise DataError("empty video (0 bytes)")
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            count = int(getattr(opened, "n_frames", 1))
            if count < 2:
                raise DataError("a single image and no animation")
            return [_on_white(opened, at) for at in range(count)]
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise DataError("not an animation that Pillow reads (GIF, WebP, PNG); convert films to one") from None
    except Exception as error:  # codecs raise anything on broken bytes: OSError, SyntaxError, EOFError, …
        raise DataError(f"unreadable video ({str(error).strip() or type(error).__name__})") from None


def evenly(frames: Sequence[Image.Image], count: int) -> list[Image.Image]:
    """Return `count` frames spread evenly over all, the first and the last among them.

    >>> evenly(list("abcde"), 3), evenly(list("ab"), 4)
    (['a', 'c', 'e'], ['a', 'a', 'b', 'b'])
    """
    last = len(frames) - 1
    return [frames[(2 * at * last + count - 1) // (2 * max(1, count - 1))] for at in range(count)]


def _on_white(opened: Image.Image, at: int) -> Image.Image:
    opened.seek(at)
    frame = opened.convert("RGBA")
    white = Image.new("RGBA", frame.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, frame).convert("RGB")
