"""Linear predictivity: how much of one representation a ridge regression on the other foretells.

Cross-validated: the samples are cut into folds by a seeded permutation, every fold is foretold by a
regression on the others, and

    R² = 1 − Σ_i ‖y_i − ŷ_i‖² / Σ_i ‖y_i − ȳ_(i)‖²

over all samples and columns, ȳ_(i) the mean of the samples that i's regression was fitted to: 0 for one
that knows no more than the mean, 1 for a perfect one, negative for a worse one.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite, nan
from typing import Any

import torch
from torch import Tensor

from platonic_ray.kernels import tree_sum
from platonic_ray.metrics.rows import centered, constants, cross, reduced, rows_metric, square_sum
from platonic_ray.metrics.states import State


def folds_of(n: int, count: int, seed: int) -> Tensor:
    """Return the fold of every sample, `[n] int64`: sizes differ by one at most, members by the seed."""
    generator = torch.Generator().manual_seed(seed)
    folds = torch.empty(n, dtype=torch.int64)
    folds[torch.randperm(n, generator=generator)] = torch.arange(n) % count
    return folds


def _unary(rows: Tensor, digest: str, options: Mapping[str, Any]) -> State:
    """Keep the rows `[n, d]`, their folds `[n]`, and what foretells each, `solved` `[n, d]`.

    With X the centered rows that fold f's regression is fitted to, m of them and x̄ their mean, its
    prediction of row i is ȳ + (x_i − x̄) (XᵀX + α I)⁻¹ XᵀY: all but XᵀY is known here, once for all
    partners. Rows are turned to at most n columns first, which changes no ridge regression.
    """
    x = reduced(centered(rows))
    folds = folds_of(rows.shape[0], options["folds"], options["seed"])
    solved = torch.zeros_like(x)
    for fold in range(options["folds"]):
        out = folds == fold
        fitted = x[~out]
        mean = fitted.mean(0)
        moved = fitted - mean
        penalty = options["ridge"] * square_sum(moved) / moved.shape[0]
        if penalty > 0:
            normal = cross(moved, moved)
            normal.diagonal().add_(penalty)
            lower = torch.linalg.cholesky(normal)
            solved[out] = torch.cholesky_solve((x[out] - mean).T, lower).T
    return {"rows": x, "solved": solved, "folds": folds}


def _permute(state: State, order: Tensor) -> State:
    # A row keeps its fold: the regressions stay those that were solved.
    return {name: tensor[order] for name, tensor in state.items()}


def _pair(x: State, y: State, options: Mapping[str, Any]) -> tuple[float, str | None]:
    reason = constants(not x["rows"].any(), not y["rows"].any())
    if reason:
        return nan, reason
    left, total = [], []
    for fold in range(options["folds"]):
        out = x["folds"] == fold
        fitted, target = x["rows"][~out], y["rows"][~out]
        mean = target.mean(0)
        product = cross(fitted - fitted.mean(0), target - mean)
        wanted = y["rows"][out] - mean
        left.append(square_sum(wanted - x["solved"][out] @ product))
        total.append(square_sum(wanted))
    return 1 - float(tree_sum(left) / tree_sum(total)), None


def _refuse(options: Mapping[str, Any], n: int | None) -> str | None:
    ridge, folds, seed = options["ridge"], options["folds"], options["seed"]
    number = isinstance(ridge, int | float) and not isinstance(ridge, bool)
    if not number or not isfinite(ridge) or ridge <= 0:
        return f"ridge must be a positive number (given: {ridge!r}); 1e-8 is least squares but for rounding."
    for name, value, least in (("folds", folds, 2), ("seed", seed, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            return f"{name} must be a whole number of at least {least} (given: {value!r})."
    if seed >= 2**63:
        return f"seed must be below 2^63 (given: {seed})."
    if n is not None and folds > n:
        return f"{folds} folds cannot be made of {n} samples. Take at most {n} folds."
    return None


def _flops(n: int, dx: int, dy: int) -> float:
    return 12.0 * n * min(n, dx) * min(n, dy)


LINEAR_PREDICTIVITY = rows_metric(
    name="linear_predictivity",
    bounds=(-inf, 1.0),
    min_samples=4,
    description="share of y's variance that a cross-validated ridge regression on x foretells (R²)",
    cost="`folds` Cholesky decompositions of min(n, D)² a layer; then 12 n min(n, Dx) min(n, Dy) a layer "
    "pair: about 0.7 s at n = D = 1,024",
    symmetric=False,
    unary=_unary,
    pair=_pair,
    permute=_permute,
    options={"ridge": 0.01, "folds": 5, "seed": 0},
    refuse=_refuse,
    pair_flops=_flops,
)
"""R² of ridge regression X → Y. The penalty of ‖W‖² is `ridge` times the mean squared distance of the
fitted samples from their mean, so that neither the scale of x nor unused columns change the score; a
rotation of either side does not."""

METRICS = (LINEAR_PREDICTIVITY,)
