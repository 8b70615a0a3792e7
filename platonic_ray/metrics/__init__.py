"""Metrics: what each needs of a representation and of a pair, and how it is scored.

`get_metric` finds one by name; `score_tables` scores what is in memory. The small functions behind
it (`model_state`, `neighbor_sums`, `kernel_rows`, `Metric.score`) are those of every other run.
"""

from platonic_ray.metrics.base import (
    KernelRows,
    Metric,
    NeighborRows,
    Neighbors,
    PairSums,
    flag_zero_rows,
    get_metric,
    metrics,
)
from platonic_ray.metrics.cka import kernel_rows, ordered_inner
from platonic_ray.metrics.knn import needs_of_neighbors, neighbor_pair, neighbor_sums
from platonic_ray.metrics.table import (
    KernelStates,
    PairScores,
    as_layers,
    best,
    nearest,
    score,
    score_tables,
)
from platonic_ray.metrics.unary import ModelState, Wanted, model_state, rows_digest, stack_neighbors

__all__ = [
    "KernelRows",
    "KernelStates",
    "Metric",
    "ModelState",
    "NeighborRows",
    "Neighbors",
    "PairScores",
    "PairSums",
    "Wanted",
    "as_layers",
    "best",
    "flag_zero_rows",
    "get_metric",
    "kernel_rows",
    "metrics",
    "model_state",
    "nearest",
    "needs_of_neighbors",
    "neighbor_pair",
    "neighbor_sums",
    "ordered_inner",
    "rows_digest",
    "score",
    "score_tables",
    "stack_neighbors",
]
