"""Centered kernel alignment, biased and unbiased, from sums over tiles.

With kernels K, L without their diagonals, their row sums r, diagonals d and totals S = Σ r (Kornblith
et al. 2019; Song et al. 2012 for the unbiased form), and r⁺ = r + d, S⁺ = Σ r⁺:

    HSIC_b n²      = Σ K∘L + Σ_i d^K_i d^L_i − (2/n) Σ_i r⁺^K_i r⁺^L_i + S⁺^K S⁺^L / n²
    HSIC_u n (n−3) = Σ K∘L + S^K S^L / ((n−1)(n−2)) − 2 Σ_i r^K_i r^L_i / (n−2)

CKA is HSIC(K, L) / √(HSIC(K, K) · HSIC(L, L)). Both are unchanged when one number is subtracted from
all cells, and for the linear kernel when one vector is subtracted from all rows, which is why the sums
may be taken about an anchor.

The kernel is linear, x·y, or an RBF, exp(−‖x − y‖² / 2σ²), of prepared rows. σ is `sigma`, or `median`
times the median of the representation's n (n − 1) / 2 distances, each rounded to float32 (the rule of
Kornblith et al.); without both, the median itself. The reference's code (minyoungg/platonic-rep,
`metrics.py`) has the same RBF with σ = 1 by default and no median rule, adds 1e-6 to the normalizer
√(HSIC·HSIC), HSIC_u divided by n (n − 3) before, HSIC_b by nothing, and computes distances in float32 from
products of rows (`torch.cdist`). `compat = "platonic-rep"` does so too, but for the float32.

`precision`: products and cells in "float32", which moves a score by less than 1e-5 of its value (of 0.01
where it is nearer to 0; measured: about 1e-6, anisotropic rows included), or in "float64". Rounding averages
out only where cells differ: where most rows are equal (sparse, one-hot) or a few outweigh all others
(heavy-tailed features that are not normalized) scores were seen to move by 2e-6 whatever their size (n = 300), a
score of 0.001 by as much; a self term may be lost there, and is NaN. Take "float64" for such data. Of 256 samples
or fewer they are float64 in any case: the unbiased self terms of few samples can almost cancel, and there
it costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from platonic_ray.kernels import Kernel, TileSums, row_inner, row_total
from platonic_ray.kernels.panels import Key
from platonic_ray.metrics.base import Metric, Scored, refuse_others
from platonic_ray.metrics.hsic import (
    NOT_POSITIVE,
    Hsic,
    Self,
    Trust,
    biased,
    normalized,
    self_term,
    unbiased,
    with_epsilon,
)
from platonic_ray.metrics.states import KernelRows, PairSums

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


Terms = tuple[Tensor, Self, Self]
"""An unnormalized HSIC of every layer pair `[Lx, Ly] float64`, and the self terms of both sides."""


def _biased_terms(sums: PairSums, options: Mapping[str, Any]) -> Terms:
    inner, x, y = pair_of(sums)
    rows_x, rows_y = x.row_sums + x.diagonal, y.row_sums + y.diagonal
    cross = biased(
        sums.n,
        inner + row_inner(x.diagonal, y.diagonal),
        row_inner(rows_x, rows_y),
        torch.outer(row_total(rows_x), row_total(rows_y)),
    )
    trust = Trust.of(options)
    return cross.value, _self_biased(x, trust), _self_biased(y, trust)


def _unbiased_terms(sums: PairSums, options: Mapping[str, Any]) -> Terms:
    inner, x, y = pair_of(sums)
    cross = unbiased(
        sums.n,
        inner,
        row_inner(x.row_sums, y.row_sums),
        torch.outer(row_total(x.row_sums), row_total(y.row_sums)),
    )
    trust = Trust.of(options)
    return cross.value, _self_unbiased(x, trust), _self_unbiased(y, trust)


def _score_cka(sums: PairSums, options: Mapping[str, Any]) -> Scored:
    return normalized(*_biased_terms(sums, options), (0.0, 1.0))


def score_unbiased(sums: PairSums, options: Mapping[str, Any]) -> Scored:
    """Return HSIC_u(K, L) / √(HSIC_u(K, K) · HSIC_u(L, L)) of a pair, for the precision in options."""
    return normalized(*_unbiased_terms(sums, options), (-1.0, 1.0))


def _score_cka_reference(sums: PairSums, options: Mapping[str, Any]) -> Scored:
    return _with_epsilon(_biased_terms(sums, options), 1.0)


def _score_unbiased_reference(sums: PairSums, options: Mapping[str, Any]) -> Scored:
    return _with_epsilon(_unbiased_terms(sums, options), sums.n * (sums.n - 3))


def _with_epsilon(terms: Terms, divisor: float) -> Scored:
    # No self term of these is negative but by rounding.
    cross, (value_x, why_x), (value_y, why_y) = terms
    return with_epsilon(cross, (value_x.clamp(min=0), why_x), (value_y.clamp(min=0), why_y), divisor)


def _self_biased(x: KernelRows, trust: Trust) -> Self:
    n, rows = x.row_sums.shape[1], x.row_sums + x.diagonal
    squares = x.squares + row_total(x.diagonal**2)
    hsic = biased(n, squares, row_total(rows**2), row_total(rows) ** 2)
    return self_term(hsic, trust, CONSTANT)


def _self_unbiased(x: KernelRows, trust: Trust) -> Self:
    n = x.row_sums.shape[1]
    hsic = unbiased(n, x.squares, row_total(x.row_sums**2), row_total(x.row_sums) ** 2)
    # Cells are rounded after the length of their rows: cells that are small beside the diagonal, more.
    of_cells = trust.least * row_total(x.diagonal) ** 2
    value, bad = self_term(Hsic(hsic.value, hsic.terms + of_cells), trust, NOT_POSITIVE)
    reasons = _self_biased(x, trust)[1]
    return value, [reason or low for reason, low in zip(reasons, bad, strict=True)]


def pair_of(sums: PairSums) -> tuple[Tensor, KernelRows, KernelRows]:
    """Return what a kernel metric reads of a pair."""
    assert sums.inner is not None
    assert sums.x is not None
    assert sums.y is not None
    return sums.inner, sums.x, sums.y


def chance_of_unbiased(n: int, options: Mapping[str, Any]) -> float:
    """Return 0: over all permutations of one side, a U-centered matrix averages to 0, and the self
    terms stay as they are.
    """
    return 0.0


def _kernel(options: Mapping[str, Any]) -> Kernel:
    if options["kernel"] == "linear":
        return Kernel("linear", precision=options["precision"])
    sigma, median = options["sigma"], options["median"]
    if sigma is None and median is None:
        median = 1.0
    return Kernel(
        "rbf",
        None if sigma is None else float(sigma),
        None if median is None else float(median),
        options["precision"],
    )


def _kernel_reference(options: Mapping[str, Any]) -> Kernel:
    widths = (options["sigma"], options["median"])
    return _kernel({**options, "sigma": 1.0} if widths == (None, None) else options)


def _refuse(options: Mapping[str, Any], n: int | None) -> str | None:
    widths = {option: options[option] for option in ("sigma", "median") if options[option] is not None}
    for option, value in widths.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and 0 < value < float("inf")):
            return f"{option} must be a positive number (given: {value!r})."
        if options["kernel"] == "linear":
            return f'{option} belongs to kernel = "rbf"; the linear kernel has none.'
    if len(widths) > 1:
        return "give sigma, or a multiple of the median distance, not both."
    return refuse_others(options, {"kernel": ("linear", "rbf"), "precision": PRECISIONS})


PRECISIONS = ("float32", "float64")
COST = "N² D a layer, once; then N² a layer pair, all pairs of two models as one matrix product"

_DECLARED: dict[str, Any] = {
    "family": "kernel",
    "needs": ("inner", "x", "y"),
    "cost": COST + "; two more passes of N² D for a median distance",
    "options": {"kernel": "linear", "sigma": None, "median": None, "precision": "float32"},
    "kernel_with": _kernel,
    "refuse": _refuse,
}

CKA = Metric(
    name="cka",
    bounds=(0.0, 1.0),
    min_samples=2,
    description="centered kernel alignment, biased HSIC; linear kernel or RBF",
    scorer=_score_cka,
    reference={"scorer": _score_cka_reference, "kernel_with": _kernel_reference},
    **_DECLARED,
)
UNBIASED_CKA = Metric(
    name="unbiased_cka",
    bounds=(-1.0, 1.0),
    min_samples=4,
    description="centered kernel alignment, unbiased HSIC (diagonals removed); linear kernel or RBF",
    scorer=score_unbiased,
    reference={"scorer": _score_unbiased_reference, "kernel_with": _kernel_reference},
    null_mean=chance_of_unbiased,
    **_DECLARED,
)
