"""Entries, texts and images that the tests of models share."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
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


def side_by_side(model: Any, items: Sequence[Any]) -> tuple[list[bytes], list[bytes]]:
    """Return the layers of items that are embedded one batch after the other, and three batches at once.

    Each batch is one item's, and each of the three has one thread: the bytes have to be the same.
    """
    items = [*items] * 3
    model.budget = 1
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append([rows.tobytes() for rows in model.embed(items).layers])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    return found[0], found[1]
