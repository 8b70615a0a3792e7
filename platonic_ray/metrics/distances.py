"""Metrics of two matrices of distances between samples, from sums over tiles.

`distance_correlation`: Euclidean distances A, B, U-centered (Székely & Rizzo 2014, Partial distance
correlation with methods for dissimilarities, eq. 2.4 and 2.6):

    Ã_ij = A_ij − A_i· / (n−2) − A_·j / (n−2) + A_·· / ((n−1)(n−2)) for i ≠ j, Ã_ii = 0
    (Ã · B̃) = Σ_{i≠j} Ã_ij B̃_ij / (n (n−3)),      R* = (Ã · B̃) / √((Ã · Ã) (B̃ · B̃))

R* is the bias-corrected **squared** distance correlation: it estimates the square of the distance
correlation of Székely, Rizzo & Bakirov (2007), is 0 on average where x and y are independent, and lies
in [−1, 1], negative values included; no root is taken. (Ã · B̃) is HSIC_u of the two matrices, so the
score is unbiased CKA with distances for kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from platonic_ray.kernels import Kernel
from platonic_ray.metrics.base import Metric, refuse_others
from platonic_ray.metrics.cka import COST, PRECISIONS, chance_of_unbiased, score_unbiased


def _euclidean(options: Mapping[str, Any]) -> Kernel:
    return Kernel("euclidean", precision=options["precision"])


def _refuse(options: Mapping[str, Any], n: int | None) -> str | None:
    return refuse_others(options, {"precision": PRECISIONS})


DISTANCE_CORRELATION = Metric(
    name="distance_correlation",
    family="kernel",
    needs=("inner", "x", "y"),
    bounds=(-1.0, 1.0),
    min_samples=4,
    description="bias-corrected squared distance correlation of Euclidean distances",
    cost=COST,
    scorer=score_unbiased,
    options={"precision": "float32"},
    refuse=_refuse,
    kernel_with=_euclidean,
    null_mean=chance_of_unbiased,
)

METRICS = (DISTANCE_CORRELATION,)
