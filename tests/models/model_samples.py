"""Entries, texts and images that the tests of models share."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from platonic_ray.study import ModelEntry

TEXTS = [
    "a red apple",
    "dog",
    "grinning face with big eyes and a hat",
    "flag: Japan",
    "ocean wave",
    "夏 grüße",
    "a b",
]


def entry(**given: Any) -> ModelEntry:
    return ModelEntry(**{"name": "m", "view": "v", **given})


def image(seed: int, size: tuple[int, int] = (128, 128)) -> bytes:
    """Return a PNG of smooth random colors."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()
