"""Centered kernel alignment with the linear kernel, biased and unbiased, from sums over tiles.

With K = X Xᵀ, L = Y Yᵀ, their row sums r, diagonals d and totals S (Kornblith et al. 2019; Song et
al. 2012 for the unbiased form, which removes the diagonal: K̃, r̃ = r − d, S̃ = Σ r̃):

    HSIC_b n²      = Σ K∘L − (2/n) Σ_i r^K_i r^L_i + S^K S^L / n²
    HSIC_u n (n−3) = Σ K̃∘L̃ + S̃^K S̃^L / ((n−1)(n−2)) − 2 Σ_i r̃^K_i r̃^L_i / (n−2)

CKA is HSIC(K, L) / √(HSIC(K, K) · HSIC(L, L)). Both are unchanged when one vector is subtracted
from all rows (a centered K does not change), which is why the sums may be taken about an origin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from platonic_ray.kernels import MICRO, TileSums, gamma, row_inner, row_total
from platonic_ray.kernels.grams import Key
from platonic_ray.metrics.base import KernelRows, Metric, PairSums, Scored, Status, no_status

CONSTANT = "constant representation"
NOT_POSITIVE = "self term not positive"

# A self term is a difference of sums; it is told from 0 only if it exceeds the rounding of their
# terms. A term is a dot of at most MICRO² numbers (the width), added up over at most MICRO² cells of
# a micro-tile in an order we do not know; the tree over tiles adds 128 levels at most.
_ROUNDING = gamma(2 * (2 * MICRO**2 + 128))


def kernel_rows(sums: TileSums) -> dict[Key, KernelRows]:
    """Return the unary state of every model of a finished (merged to the root) tree of sums."""
    return {
        model: KernelRows(
            row_sums=sums.rows[model], diagonal=sums.diagonal[model], squares=sums.squares[model]
        )
        for model in sums.squares
    }


def ordered_inner(inner: Mapping[tuple[Key, Key], Tensor], x: Key, y: Key) -> Tensor:
    """Return Σ K ∘ L of a pair, `[Lx, Ly]`, from sums that hold it in either order."""
    return inner[x, y] if (x, y) in inner else inner[y, x].T


@dataclass(frozen=True)
class _Hsic:
    """An unnormalized HSIC and the size of the terms it is a difference of, both `[…] float64`."""

    value: Tensor
    terms: Tensor


def _biased(n: int, inner: Tensor, rows: Tensor, totals: Tensor) -> _Hsic:
    second, third = 2 / n * rows, totals / n / n
    return _Hsic(inner - second + third, inner.abs() + second.abs() + third.abs())


def _unbiased(n: int, inner: Tensor, rows: Tensor, totals: Tensor) -> _Hsic:
    second, third = 2 / (n - 2) * rows, totals / (n - 1) / (n - 2)
    return _Hsic(inner - second + third, inner.abs() + second.abs() + third.abs())


def _score_cka(sums: PairSums, options: Mapping[str, Any]) -> Scored:
    inner, x, y = _of(sums)
    cross = _biased(
        sums.n,
        inner,
        row_inner(x.row_sums, y.row_sums),
        torch.outer(*map(row_total, (x.row_sums, y.row_sums))),
    )
    return _normalize(cross.value, _self_biased(x), _self_biased(y), (0.0, 1.0))


def _score_unbiased_cka(sums: PairSums, options: Mapping[str, Any]) -> Scored:
    inner, x, y = _of(sums)
    rows_x, rows_y = x.row_sums - x.diagonal, y.row_sums - y.diagonal
    cross = _unbiased(
        sums.n,
        inner - row_inner(x.diagonal, y.diagonal),
        row_inner(rows_x, rows_y),
        torch.outer(row_total(rows_x), row_total(rows_y)),
    )
    return _normalize(cross.value, _self_unbiased(x), _self_unbiased(y), (-1.0, 1.0))


Self = tuple[Tensor, list[str | None]]
"""A model's self terms `[L] float64`, and why a layer's is not to be divided by."""


def _self_biased(x: KernelRows) -> Self:
    n = x.row_sums.shape[1]
    hsic = _biased(n, x.squares, row_inner(x.row_sums, x.row_sums).diagonal(), row_total(x.row_sums) ** 2)
    flat = (hsic.value <= _ROUNDING * hsic.terms).tolist()
    return hsic.value, [CONSTANT if constant else None for constant in flat]


def _self_unbiased(x: KernelRows) -> Self:
    n = x.row_sums.shape[1]
    rows = x.row_sums - x.diagonal
    squares_of_diagonal = row_inner(x.diagonal, x.diagonal).diagonal()
    hsic = _unbiased(
        n, x.squares - squares_of_diagonal, row_inner(rows, rows).diagonal(), row_total(rows) ** 2
    )
    # The removed diagonal was a term of the difference too.
    bad = (hsic.value <= _ROUNDING * (hsic.terms + squares_of_diagonal)).tolist()
    reasons = _self_biased(x)[1]
    return hsic.value, [
        reason or (NOT_POSITIVE if low else None) for reason, low in zip(reasons, bad, strict=True)
    ]


def _normalize(cross: Tensor, self_x: Self, self_y: Self, bounds: tuple[float, float]) -> Scored:
    (value_x, why_x), (value_y, why_y) = self_x, self_y
    # Two roots, because the product of self terms can leave float64's range.
    below = torch.outer(value_x.clamp(min=0).sqrt(), value_y.clamp(min=0).sqrt())
    # By Cauchy–Schwarz the ratio lies within the bounds; rounding may carry it past them by an ulp.
    scores = (cross / below).clamp(*bounds).cpu().numpy()
    status: Status = no_status(scores.shape)
    for i, reason_x in enumerate(why_x):
        for j, reason_y in enumerate(why_y):
            reasons = [f"{side}: {why}" for side, why in (("x", reason_x), ("y", reason_y)) if why]
            if reasons:
                scores[i, j] = np.nan
                status[i][j] = "; ".join(reasons)
    return scores, status


def _of(sums: PairSums) -> tuple[Tensor, KernelRows, KernelRows]:
    assert sums.inner is not None
    assert sums.x is not None
    assert sums.y is not None
    return sums.inner, sums.x, sums.y


def _chance_unbiased_cka(n: int, options: Mapping[str, Any]) -> float:
    # Over all permutations of one side, a U-centered matrix averages to 0 and the self terms stay.
    return 0.0


_COST = "N² D a layer, once; then N² a layer pair, all pairs of two models as one matrix product"

CKA = Metric(
    name="cka",
    family="kernel",
    needs=("inner", "x", "y"),
    bounds=(0.0, 1.0),
    min_samples=2,
    description="centered kernel alignment, linear kernel, biased HSIC",
    cost=_COST,
    scorer=_score_cka,
)
UNBIASED_CKA = Metric(
    name="unbiased_cka",
    family="kernel",
    needs=("inner", "x", "y"),
    bounds=(-1.0, 1.0),
    min_samples=4,
    description="centered kernel alignment, linear kernel, unbiased HSIC (diagonals removed)",
    cost=_COST,
    scorer=_score_unbiased_cka,
    null_mean=_chance_unbiased_cka,
)
