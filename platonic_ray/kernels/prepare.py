"""From features as they come to prepared rows: finite float32, by documented steps.

Every number of a result starts from prepared rows, so the steps are few and fixed: one rounding to
float32, then the recipe. A recipe that clamps needs a pass over all rows of a model first, which gives
the `bound` of each layer (`clamp_bounds`); the rows are then prepared block by block like any other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from platonic_ray.errors import DataError, StudyError
from platonic_ray.kernels.compiled import loops_for
from platonic_ray.kernels.dot import LANES, canonical_squares
from platonic_ray.kernels.quantile import Stacks, approximate_bounds, exact_bounds
from platonic_ray.kernels.threads import spreading

CLAMPED = ("huh2024", "huh2024-approx")
"""The recipes that clamp features before they normalize rows (Huh et al. 2024)."""

RECIPES = ("l2", "none", *CLAMPED)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_BLOCK_BYTES = 8 * 2**20


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


def prepare(rows: Tensor, recipe: str = "l2", bound: float | None = None) -> Tensor:
    """Return prepared rows `[N, D] float32` of `[N, D] float32` rows under a recipe.

    "l2" normalizes every row to unit length; "none" takes the rows as they are; "huh2024" and
    "huh2024-approx" clamp every feature to ± `bound`, then normalize.

    :param bound: the layer's clamp, from `clamp_bounds`; for these two recipes, and for no other.
    :raises StudyError: if there is no such recipe.
    :raises ValueError: if `bound` is lacking or not called for.
    """
    require_recipe(recipe)
    if (recipe in CLAMPED) != (bound is not None):
        raise ValueError(f"the recipe {recipe!r} {'needs a' if bound is None else 'has no'} bound")
    return rows if recipe == "none" else l2_normalize(rows, bound)


def require_recipe(recipe: str) -> None:
    """Refuse a recipe that there is not.

    :raises StudyError: naming those there are.
    """
    if recipe not in RECIPES:
        raise StudyError(f"There is no recipe {recipe!r}; known: {', '.join(RECIPES)}.")


def clamp_bounds(stacks: Stacks, recipe: str, peek: Stacks | None = None) -> tuple[float, ...] | None:
    """Return what a recipe clamps the features of each layer of a model to; None if it clamps none.

    :param stacks: gives all rows of the model, as blocks of all its layers, each time it is called.
    :param peek: gives some of them, from which "huh2024" guesses where to look; see `exact_bounds`.
    :raises StudyError: if there is no such recipe.
    """
    require_recipe(recipe)
    if recipe not in CLAMPED:
        return None
    return exact_bounds(stacks, peek) if recipe == "huh2024" else approximate_bounds(stacks)


def prepare_layers(layers: Sequence[Tensor], recipe: str, bounds: Sequence[float] | None) -> list[Tensor]:
    """Return the prepared rows of every layer of a model, or of a block of its rows.

    :param bounds: `clamp_bounds` of the whole model under the recipe.
    """
    each = [None] * len(layers) if bounds is None else bounds
    return [prepare(rows, recipe, bound) for rows, bound in zip(layers, each, strict=True)]


def l2_normalize(rows: Tensor, bound: float | None = None) -> Tensor:
    """Return rows divided by their Euclidean norm, `[N, D] float32`; zero rows stay zero.

    ‖x‖² in the canonical order in float64, its square root, a division in float64, one rounding to
    float32. No float32 row, however small or large, leaves float64's range on the way.

    :param bound: clamp features to ± this first.
    """
    prepared = torch.empty_like(rows)
    compiled = loops_for(rows, rows.numel())
    if compiled is not None:
        limit = math.inf if bound is None else bound
        source, target = rows.numpy(), prepared.numpy()
        with spreading(torch.get_num_threads()) as spread:
            spread(lambda i, j: compiled.unit_rows(source[i:j], limit, target[i:j]), rows.shape[0])
        return prepared
    step = max(1, _BLOCK_BYTES // (8 * (rows.shape[1] + LANES)))
    # One buffer for all blocks: memory that is new costs more than what is computed in it.
    buffer = torch.empty(min(step, rows.shape[0]), rows.shape[1], dtype=torch.float64, device=rows.device)
    for start in range(0, rows.shape[0], step):
        wide = buffer[: min(step, rows.shape[0] - start)].copy_(rows[start : start + step])
        if bound is not None:
            wide.clamp_(-bound, bound)
        norms = canonical_squares(wide).sqrt_().unsqueeze(1)
        # A zero row divided by one is itself, where division by its norm would be NaN.
        prepared[start : start + step] = wide.div_(norms.masked_fill_(norms == 0, 1.0))
    return prepared


def zero_rows(rows: Tensor) -> Tensor:
    """Return the indices `[z] int64` of rows `[N, D]` that are zero throughout."""
    maybe = rows[:, 0].eq(0).nonzero().squeeze(1)  # few of dense rows: all is not read for them
    return maybe[~rows[maybe].ne(0).any(dim=1)]


def require_finite(rows: Tensor, name: str) -> None:
    """Refuse rows `[N, D]` that hold a NaN or an infinity.

    :param name: what the rows are, for the message ("model 'minilm', layer 3").
    :raises DataError: naming the first bad rows and how many there are.
    """
    # A NaN is the extreme of whatever holds it; the extremes of all are one cheap pass.
    if rows.numel() == 0 or torch.isfinite(torch.stack(rows.aminmax())).all():
        return
    bad = (~torch.isfinite(rows).all(dim=1)).nonzero().squeeze(1).tolist()
    if bad:
        listed = ", ".join(str(row) for row in bad[:20]) + (", …" if len(bad) > 20 else "")
        raise DataError(
            f"{name}: {len(bad)} of {rows.shape[0]} rows hold NaN or infinite features "
            f"(as float32): row {listed}. Remove these samples or repair their features."
        )
