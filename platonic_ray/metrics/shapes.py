"""Shape metrics: how well one representation, turned, lies upon another (Williams et al. 2021).

X and Y are centered and scaled to Frobenius norm 1. The best rotation leaves the squared distance

    min_Q ‖X − Y Q‖² = ‖X‖² + ‖Y‖² − 2 ‖XᵀY‖_* = 2 − 2ν,   ν the sum of singular values of XᵀY

(Schönemann 1966; the narrower of the two is padded with zero columns). Both metrics are functions of ν
and do not change when either side is moved, turned or scaled as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import asin, nan, pi, sqrt
from typing import Any

import torch
from torch import Tensor

from platonic_ray.kernels import MICRO, tree_sum
from platonic_ray.metrics.rows import centered, constants, cross, reduced, rows_metric, square_sum
from platonic_ray.metrics.states import State

# Below this 1 − ν is a difference of nearly equal numbers, and the residual itself is computed.
_NEAR = 1e-4


def _unary(rows: Tensor, digest: str, options: Mapping[str, Any]) -> State:
    moved = centered(rows)
    size = square_sum(moved).sqrt()
    return {"rows": reduced(moved / size if size > 0 else moved), "size": size}


def _permute(state: State, order: Tensor) -> State:
    return {**state, "rows": state["rows"][order]}


def _squared_distance(x: State, y: State) -> tuple[float, str | None]:
    """Return 2 − 2ν, to its last digits also where it is nearly 0."""
    reason = constants(not x["size"] > 0, not y["size"] > 0)
    if reason:
        return nan, reason
    wide, narrow = (x["rows"], y["rows"])
    if wide.shape[1] < narrow.shape[1]:
        wide, narrow = narrow, wide
    covariance = cross(wide, narrow)
    nuclear = float(torch.linalg.svdvals(covariance).sum())
    if 1 - nuclear > _NEAR:
        return 2 - 2 * nuclear, None
    left, _, right = torch.linalg.svd(covariance, full_matrices=False)
    turn = (left @ right).T
    parts = zip(wide.split(MICRO), narrow.split(MICRO), strict=True)
    return float(tree_sum((a - b @ turn).square().sum() for a, b in parts)), None


def _procrustes(x: State, y: State, options: Mapping[str, Any]) -> tuple[float, str | None]:
    squared, reason = _squared_distance(x, y)
    return (squared if reason else min(max(1 - squared / 2, 0.0), 1.0)), reason


def _angular(x: State, y: State, options: Mapping[str, Any]) -> tuple[float, str | None]:
    squared, reason = _squared_distance(x, y)
    return (squared if reason else 2 * asin(min(sqrt(squared) / 2, sqrt(0.5)))), reason


def _flops(n: int, dx: int, dy: int) -> float:
    a, b = min(n, dx), min(n, dy)
    return 2.0 * n * a * b + 4.0 * a * b * min(a, b)


_COST = (
    "a QR of n D min(n, D) a layer where D > n; then n Dx Dy and a singular value decomposition of min(n, Dx) "
    "× min(n, Dy) a layer pair: about 0.3 s at n = D = 1,024"
)

PROCRUSTES = rows_metric(
    name="procrustes",
    bounds=(0.0, 1.0),
    min_samples=2,
    description="1 minus half the squared distance left by the best rotation of one onto the other",
    cost=_COST,
    unary=_unary,
    pair=_procrustes,
    permute=_permute,
    pair_flops=_flops,
)
"""1 − [‖X‖² + ‖Y‖² − 2 ‖XᵀY‖_*] / 2 = ‖XᵀY‖_* of centered X, Y of Frobenius norm 1."""

ANGULAR_PROCRUSTES = rows_metric(
    name="angular_procrustes",
    bounds=(0.0, pi / 2),
    min_samples=2,
    description="angle (radians) between one and the other turned onto it: a metric on shapes",
    cost=_COST,
    direction="distance",
    unary=_unary,
    pair=_angular,
    permute=_permute,
    pair_flops=_flops,
)
"""arccos ‖XᵀY‖_* (Williams et al. 2021, Generalized shape metrics, eq. 4 and 5 for rotations); 0 for equal shapes, and
the triangle inequality holds. Computed as 2 arcsin(d / 2), d the distance, where arccos would lose digits."""

METRICS = (PROCRUSTES, ANGULAR_PROCRUSTES)
