"""Centered kernel alignment with the linear kernel, biased and unbiased, from sums over tiles.

CKA is HSIC(K, L) / √(HSIC(K, K) · HSIC(L, L)) with K = X Xᵀ, L = Y Yᵀ (Kornblith et al. 2019), in terms
of their row sums r, diagonals d and totals; the unbiased form removes the diagonals: r̃ = r − d. Both are
unchanged when one vector is subtracted from all rows (a centered K does not change), which is why the
sums may be taken about an origin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from platonic_ray.kernels import TileSums, row_inner, row_total
from platonic_ray.kernels.grams import Key
from platonic_ray.metrics.base import KernelRows, Metric, PairSums, Scored
from platonic_ray.metrics.hsic import NOT_POSITIVE, ROUNDING, Self, biased, normalized, unbiased

CONSTANT = "constant representation"


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


def _score_cka(sums: PairSums, options: Mapping[str, Any]) -> Scored:
    inner, x, y = _of(sums)
    cross = biased(
        sums.n,
        inner,
        row_inner(x.row_sums, y.row_sums),
        torch.outer(*map(row_total, (x.row_sums, y.row_sums))),
    )
    return normalized(cross.value, _self_biased(x), _self_biased(y), (0.0, 1.0))


def _score_unbiased_cka(sums: PairSums, options: Mapping[str, Any]) -> Scored:
    inner, x, y = _of(sums)
    rows_x, rows_y = x.row_sums - x.diagonal, y.row_sums - y.diagonal
    cross = unbiased(
        sums.n,
        inner - row_inner(x.diagonal, y.diagonal),
        row_inner(rows_x, rows_y),
        torch.outer(row_total(rows_x), row_total(rows_y)),
    )
    return normalized(cross.value, _self_unbiased(x), _self_unbiased(y), (-1.0, 1.0))


def _self_biased(x: KernelRows) -> Self:
    n = x.row_sums.shape[1]
    hsic = biased(n, x.squares, row_inner(x.row_sums, x.row_sums).diagonal(), row_total(x.row_sums) ** 2)
    flat = (hsic.value <= ROUNDING * hsic.terms).tolist()
    return hsic.value, [CONSTANT if constant else None for constant in flat]


def _self_unbiased(x: KernelRows) -> Self:
    n = x.row_sums.shape[1]
    rows = x.row_sums - x.diagonal
    squares_of_diagonal = row_inner(x.diagonal, x.diagonal).diagonal()
    hsic = unbiased(
        n, x.squares - squares_of_diagonal, row_inner(rows, rows).diagonal(), row_total(rows) ** 2
    )
    # The removed diagonal was a term of the difference too.
    bad = (hsic.value <= ROUNDING * (hsic.terms + squares_of_diagonal)).tolist()
    reasons = _self_biased(x)[1]
    return hsic.value, [
        reason or (NOT_POSITIVE if low else None) for reason, low in zip(reasons, bad, strict=True)
    ]


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
