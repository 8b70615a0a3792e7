"""Features kept as float16: half the bytes, refused where they would overflow, and what that costs in neighbors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from platonic_ray.errors import DataError
from platonic_ray.kernels import exact_neighbors, prepare

MEASURED_K = 10
_MOST = float(np.finfo(np.float16).max)
_ROUNDS_TO_INFINITY = _MOST + 16  # half of the step that would follow


def narrowed(rows: NDArray[np.float32], model: str, layer: str, ids: Sequence[str]) -> NDArray[np.float16]:
    """Return features `[n, D] float32` as float16.

    :param ids: of the n samples.
    :raises DataError: naming model, layer and samples of features that float16 cannot hold.
    """
    largest = np.abs(rows).max(axis=1, initial=0)
    beyond = np.flatnonzero(largest >= _ROUNDS_TO_INFINITY)
    if beyond.size:
        some = ", ".join(repr(ids[row]) for row in beyond[:5])
        raise DataError(
            f"Model {model!r}, layer {layer!r}: features of {beyond.size} samples reach {largest.max():,.0f}, and "
            f"float16 ends at {_MOST:,.0f}: of {some}{', …' if beyond.size > 5 else ''}. Leave out "
            'features = "float16", or that layer.'
        )
    return rows.astype(np.float16)


def neighbors_lost(wide: NDArray[np.float32], narrow: NDArray[np.float16]) -> float | None:
    """Return the share of the 10 nearest neighbors (by cosine, among these rows) that rounding changes.

    Of 11 rows or fewer all others are neighbors, and nothing can be lost: None.
    """
    n = len(wide)
    if n < MEASURED_K + 2:
        return None
    found = [
        exact_neighbors(prepare(torch.tensor(rows, dtype=torch.float32), "l2"), MEASURED_K, "0" * 16).ids
        for rows in (wide, narrow.astype(np.float32))
    ]
    before, after = (ids[:, :MEASURED_K] for ids in found)
    kept = (before[:, :, None] == after[:, None, :]).any(2)
    return 1.0 - float(kept.double().mean())
