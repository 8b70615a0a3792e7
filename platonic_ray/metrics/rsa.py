"""Representational similarity analysis: the correlation of two matrices of dissimilarities.

For the dissimilarities A_ij, B_ij of samples i < j in two representations (Kriegeskorte, Mur &
Bandettini 2008), with totals S = Σ_{i≠j} over cells of both triangles and m = n (n − 1):

    r = (Σ_{i≠j} A B − S^A S^B / m) / √((Σ_{i≠j} A² − (S^A)² / m) (Σ_{i≠j} B² − (S^B)² / m))

Dissimilarities of prepared rows x, y: "correlation", 1 − the Pearson correlation of the entries of x
and y (rows less their own mean); "cosine", 1 − cos(x, y); "euclidean", ‖x − y‖. A row that is
constant (zero, for cosine) has no direction: its inner product with others counts as 0, so its
dissimilarity to all is 1, and `status` says how many there are. Where all dissimilarities of a
representation are equal the score is NaN.

With `correlation = "spearman"` the dissimilarities' ranks are correlated (`spearman`, in float64
whatever the `precision`), of all pairs of samples if they are at most `pairs`, else of so many drawn by
`seed`; `layers` says of which layer pairs (`rows`; all by default, at 4 n² bytes a layer).

Over all permutations of one side r averages to 0: its self terms stay as they are, and each
dissimilarity of the other side meets the mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from platonic_ray.kernels import Kernel, row_total
from platonic_ray.metrics import spearman
from platonic_ray.metrics.base import Metric, Scored, refuse_others
from platonic_ray.metrics.cka import COST, PRECISIONS, chance_of_unbiased, pair_of
from platonic_ray.metrics.hsic import Hsic, Self, Trust, normalized, self_term
from platonic_ray.metrics.rows import rows_metric
from platonic_ray.metrics.states import KernelRows, PairSums

NO_SPREAD = "all dissimilarities are equal"
DISSIMILARITIES = ("correlation", "cosine", "euclidean")


def _score_pearson(sums: PairSums, options: Mapping[str, Any]) -> Scored:
    inner, x, y = pair_of(sums)
    trust = Trust.of(options)
    totals = torch.outer(row_total(x.row_sums), row_total(y.row_sums))
    cross = inner - totals / (sums.n * (sums.n - 1))
    scores, status = normalized(cross, _self(x, trust), _self(y, trust), (-1.0, 1.0))
    if options["dissimilarity"] == "euclidean":
        return scores, status
    lost_x, lost_y = _undirected(x), _undirected(y)
    for i, in_x in enumerate(lost_x):
        for j, in_y in enumerate(lost_y):
            note = f"rows without direction: {in_x} in x, {in_y} in y" if in_x or in_y else None
            status[i][j] = "; ".join(part for part in (status[i][j], note) if part) or None
    return scores, status


def _self(x: KernelRows, trust: Trust) -> Self:
    n = x.row_sums.shape[1]
    mean = row_total(x.row_sums) ** 2 / (n * (n - 1))
    return self_term(Hsic(x.squares - mean, x.squares + mean), trust, NO_SPREAD)


def _undirected(x: KernelRows) -> list[int]:
    """Count the rows of every layer whose dissimilarity to themselves is 1 where that of others is 0."""
    first = x.diagonal.min(1, keepdim=True).values
    return (x.diagonal > first + 0.5).sum(1).tolist()


def _kernel(options: Mapping[str, Any]) -> Kernel:
    return Kernel(options["dissimilarity"], precision=options["precision"])


_OPTIONS = {
    "correlation": "pearson",
    "dissimilarity": "correlation",
    "precision": "float32",
    **dict.fromkeys(("pairs", "seed", "layers")),
}
_CHOICES = {
    "correlation": ("pearson", "spearman"),
    "dissimilarity": DISSIMILARITIES,
    "precision": PRECISIONS,
}
_DRAW = {"pairs": 2**25, "seed": 0, "layers": "all"}


def _becomes(options: Mapping[str, Any]) -> Metric:
    if options["correlation"] == "pearson":
        return replace(RSA, options=dict(options))
    given = {name: default if options[name] is None else options[name] for name, default in _DRAW.items()}
    return replace(_SPEARMAN, options={**options, **given})


def _refuse_of_pearson(options: Mapping[str, Any], n: int | None) -> str | None:
    given = [name for name in _DRAW if options[name] is not None]
    wrong = f'{given[0]} is an option of correlation = "spearman".' if given else None
    return wrong or refuse_others(options, _CHOICES)


def _refuse_of_spearman(options: Mapping[str, Any], n: int | None) -> str | None:
    return refuse_others(options, _CHOICES) or spearman.refuse(options, n)


RSA = Metric(
    name="rsa",
    family="kernel",
    needs=("inner", "x", "y"),
    bounds=(-1.0, 1.0),
    min_samples=3,
    description="correlation of the dissimilarities of all pairs of samples in two representations",
    cost=COST,
    scorer=_score_pearson,
    options=_OPTIONS,
    kernel_with=_kernel,
    null_mean=chance_of_unbiased,
    refuse=_refuse_of_pearson,
    becomes=_becomes,
)

_SPEARMAN = rows_metric(
    name="rsa",
    bounds=(-1.0, 1.0),
    min_samples=3,
    description=RSA.description,
    cost="n² D and a sort of n² / 2 numbers a layer; then n² / 2 a layer pair",
    unary=spearman.unary,
    pair=spearman.pair,
    permute=spearman.permute,
    options={**_OPTIONS, **_DRAW},
    layers="all",
    null_mean=chance_of_unbiased,
    refuse=_refuse_of_spearman,
    becomes=_becomes,
    pair_flops=spearman.pair_flops,
)
