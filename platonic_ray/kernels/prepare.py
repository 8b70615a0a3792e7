"""From features as they come to prepared rows: finite float32, by documented steps.

Every number of a result starts from prepared rows, so the steps are few and fixed: one rounding to
float32, then the recipe. A recipe that needs a pass over all rows of a model first (the published
clamp) will bring its parameters as an argument.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from platonic_ray.errors import DataError, StudyError
from platonic_ray.kernels.dot import LANES, canonical_dot

RECIPES = ("l2", "none")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_BLOCK_BYTES = 32 * 2**20


def as_rows(x: Any, name: str = "features") -> Tensor:
    """Return features as a contiguous `[N, D] float32` tensor on the device they are on.

    float16 and bfloat16 are exact; float64 and integers are rounded once, to nearest. A float32
    tensor or array that is contiguous already is not copied.

    :param x: numpy array, torch tensor or nested lists, 2-D, real.
    :param name: what the error calls it.
    :raises DataError: if it is not 2-D, is empty, or does not hold real numbers.
    """
    if isinstance(x, Tensor):
        rows = x.detach()
        real = rows.dtype in _FLOATS or not (rows.is_floating_point() or rows.is_complex())
        kind = str(rows.dtype)
    else:
        try:
            array = np.asarray(x)
        except ValueError as error:
            raise DataError(f"{name} cannot be read as an array: {error}.") from None
        real, kind = array.dtype.kind in "fiub", str(array.dtype)
        if real:
            with np.errstate(over="ignore"):  # an overflow becomes inf, which require_finite names
                array = np.ascontiguousarray(array, dtype=np.float32)
            rows = torch.from_numpy(array if array.flags.writeable else array.copy())
    if not real:
        raise DataError(f"{name} must hold real numbers, not {kind}.")
    if rows.ndim != 2 or 0 in rows.shape:
        raise DataError(f"{name} must be a matrix [samples, width], not of shape {list(rows.shape)}.")
    return rows.to(torch.float32).contiguous()


def prepare(rows: Tensor, recipe: str = "l2") -> Tensor:
    """Return prepared rows `[N, D] float32` of `[N, D] float32` rows under a recipe.

    "l2" normalizes every row to unit length; "none" takes the rows as they are.

    :raises StudyError: if there is no such recipe.
    """
    if recipe == "l2":
        return l2_normalize(rows)
    if recipe == "none":
        return rows
    raise StudyError(f"There is no recipe {recipe!r}; known: {', '.join(RECIPES)}.")


def l2_normalize(rows: Tensor) -> Tensor:
    """Return rows divided by their Euclidean norm, `[N, D] float32`; zero rows stay zero.

    ‖x‖² in the canonical order in float64, its square root, a division in float64, one rounding to
    float32. No float32 row, however small or large, leaves float64's range on the way.
    """
    prepared = torch.empty_like(rows)
    for block in _blocks(rows):
        part = rows[block]
        norms = canonical_dot(part, part).sqrt().unsqueeze(1)
        # A zero row divided by one is itself, where division by its norm would be NaN.
        prepared[block] = (part.double() / torch.where(norms > 0, norms, 1.0)).float()
    return prepared


def zero_rows(rows: Tensor) -> Tensor:
    """Return the indices `[z] int64` of rows `[N, D]` that are zero throughout."""
    return (~rows.ne(0).any(dim=1)).nonzero().squeeze(1)


def require_finite(rows: Tensor, name: str) -> None:
    """Refuse rows `[N, D]` that hold a NaN or an infinity.

    :param name: what the rows are, for the message ("model 'minilm', layer 3").
    :raises DataError: naming the first bad rows and how many there are.
    """
    bad = (~torch.isfinite(rows).all(dim=1)).nonzero().squeeze(1).tolist()
    if bad:
        listed = ", ".join(str(row) for row in bad[:20]) + (", …" if len(bad) > 20 else "")
        raise DataError(
            f"{name}: {len(bad)} of {rows.shape[0]} rows hold NaN or infinite features "
            f"(as float32): row {listed}. Remove these samples or repair their features."
        )


def _blocks(rows: Tensor) -> Iterator[slice]:
    """Yield slices of rows that keep the float64 temporaries of a block small."""
    step = max(1, _BLOCK_BYTES // (8 * (rows.shape[1] + LANES)))
    for start in range(0, rows.shape[0], step):
        yield slice(start, start + step)
