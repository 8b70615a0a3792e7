"""The one canonical dot product, on which the order of all neighbors rests.

The product of two float32 numbers is exact in float64 (24 + 24 bits of significand fit in 53, and
the exponents cannot leave its range), so a float64 dot of float32 rows depends on one thing alone:
the order in which the products are added. A fused multiply-add changes nothing. The order is

1. lane `l` of `LANES` = 64 adds `a[64 t + l] · b[64 t + l]` for t = 0, 1, 2, … one after another,
   starting from zero (a width that 64 does not divide is as if padded with zeros);
2. lanes fold by halves: lane[l] + lane[l + 32], then + 16, 8, 4, 2, 1.

It maps on SIMD registers and on warps. It gives (i, j) and (j, i) the same bits on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor

LANES = 64
_FOLDS = 6  # log2(LANES)
UNIT_ROUNDOFF = 2.0**-53


def canonical_dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the dot products of float32 rows in the canonical order.

    :param a: `[..., D] float32`; leading dimensions broadcast against those of `b`.
    :param b: `[..., D] float32`.
    :returns: `[...] float64`; a zero is always +0.
    :raises ValueError: if the rows are not float32 or their widths differ.

    >>> canonical_dot(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])).item()
    11.0
    """
    lanes, width = _lanes(a, b)
    for start in range(0, width, LANES):
        stop = min(start + LANES, width)
        lanes[..., : stop - start].addcmul_(a[..., start:stop].double(), b[..., start:stop].double())
    return _fold(lanes)


def canonical_squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return Σ (a − b)² of float32 rows in the canonical order, differences taken in float64.

    Shapes, dtypes and errors as `canonical_dot`. Symmetric to the last bit: a − b and b − a differ
    in sign alone.
    """
    lanes, width = _lanes(a, b)
    for start in range(0, width, LANES):
        stop = min(start + LANES, width)
        difference = a[..., start:stop].double() - b[..., start:stop].double()
        # The square is rounded, so multiply and add stay two operations: a device that contracted
        # them would add other bits.
        square = difference * difference
        lanes[..., : stop - start] += square
    return _fold(lanes)


def canonical_squares(rows: Tensor) -> Tensor:
    """Return `canonical_dot(rows, rows)` of float32 rows that are at hand as float64, `[..., D]`."""
    lanes = torch.zeros(*rows.shape[:-1], LANES, dtype=torch.float64, device=rows.device)
    for start in range(0, rows.shape[-1], LANES):
        part = rows[..., start : start + LANES]
        lanes[..., : part.shape[-1]].addcmul_(part, part)
    return _fold(lanes)


def gamma(operations: int) -> float:
    """Return γ_m = m u / (1 − m u), which bounds the relative error of m roundings.

    Higham (2002), Accuracy and Stability of Numerical Algorithms, lemma 3.1, u = 2⁻⁵³.
    """
    return operations * UNIT_ROUNDOFF / (1 - operations * UNIT_ROUNDOFF)


def dot_error(width: int) -> float:
    """Bound |p − c| / (‖a‖ ‖b‖), p a float64 dot in **any** order of summation, c the canonical one.

    Either differs from the exact value by at most γ_m Σ|a_d b_d| ≤ γ_m ‖a‖ ‖b‖, m the depth of its
    sum: `width` at worst for p, ⌈width / 64⌉ + 6 for c. Eight more roundings pay for what a caller
    does with p and the bound (a product of norms, an addition, a subtraction).
    """
    return gamma(width + _depth(width) + 8)


def squared_distance_error(width: int) -> float:
    """Bound |p − c| / (‖a‖ + ‖b‖)², p = ‖a‖² + ‖b‖² − 2 a·b in float64, c the canonical distance.

    ‖a‖², ‖b‖² in the canonical order (γ_depth each), a·b in any order (γ_width), two additions; c
    has three roundings a term (difference twice, square) and its depth. Eight more for the caller.
    """
    return gamma(width + 2 * _depth(width) + 16)


def _depth(width: int) -> int:
    return -(-width // LANES) + _FOLDS


def _lanes(a: Tensor, b: Tensor) -> tuple[Tensor, int]:
    if a.dtype != torch.float32 or b.dtype != torch.float32:
        raise ValueError(f"the canonical order is defined on float32 rows, not {a.dtype} and {b.dtype}")
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"rows of width {a.shape[-1]} and {b.shape[-1]} have no dot product")
    leading = torch.broadcast_shapes(a.shape[:-1], b.shape[:-1])
    return torch.zeros(*leading, LANES, dtype=torch.float64, device=a.device), a.shape[-1]


def _fold(lanes: Tensor) -> Tensor:
    half = LANES // 2
    while half:
        lanes = lanes[..., :half] + lanes[..., half:]
        half //= 2
    return lanes.squeeze(-1)
