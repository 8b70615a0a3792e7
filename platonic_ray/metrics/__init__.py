"""Metrics: what each needs of a representation and of a pair, and how it is scored.

`get_metric` finds one by name; `score_tables` scores what is in memory. The small functions behind
it (`neighbors_state`, `neighbor_sums`, `kernel_rows`, `Metric.score`) are those of every other run.
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
from platonic_ray.metrics.knn import neighbor_sums, neighbors_state, stack_neighbors
from platonic_ray.metrics.table import (
    PairScores,
    as_layers,
    best,
    nearest,
    rows_digest,
    score,
    score_tables,
)

__all__ = [
    "KernelRows",
    "Metric",
    "NeighborRows",
    "Neighbors",
    "PairScores",
    "PairSums",
    "as_layers",
    "best",
    "flag_zero_rows",
    "get_metric",
    "kernel_rows",
    "metrics",
    "nearest",
    "neighbor_sums",
    "neighbors_state",
    "ordered_inner",
    "rows_digest",
    "score",
    "score_tables",
    "stack_neighbors",
]
