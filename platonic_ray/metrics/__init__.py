"""Metrics: what each needs of a representation and of a pair, and how it is scored.

`get_metric` finds one by name; `score_tables` scores what is in memory. The small functions behind
it (`model_state`, `neighbor_sums`, `kernel_rows`, `Metric.score`) are those of every other run.

Adding a metric takes a function or two and a declaration. One of neighbors gives sums over a block of
rows for all layer pairs, `[Lx, Ly]`, and what the sums over all rows score:

>>> import torch
>>> from platonic_ray.kernels import overlap_counts
>>> from platonic_ray.metrics.base import no_status
>>> def joint(x, y):
...     return overlap_counts(x.ids[:, :, :1], y.ids[:, :, :1])
>>> def scorer(sums, options):
...     scores = sums.joint.double().numpy() / sums.n
...     return scores, no_status(scores.shape)
>>> NEAREST = Metric(
...     name="same_nearest", family="neighbors", needs=("joint",), bounds=(0.0, 1.0), min_samples=2,
...     description="share of samples with the same nearest neighbor", cost="N / 64 words a layer pair",
...     joint=joint, scorer=scorer, options={"k": 1})
>>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
>>> score(x, 2 * x, NEAREST)
1.0

In a module of its own it is used by its import path (`metric="my_module:NEAREST"`, in a study as well);
in `platonic_ray` it joins the list in `registry.metrics`. Every declaration is explained by `Metric`.
"""

from platonic_ray.metrics.against import Against
from platonic_ray.metrics.base import COMPAT, Metric, best, flag_zero_rows
from platonic_ray.metrics.cka import kernel_rows, ordered_inner
from platonic_ray.metrics.kernel_tables import KernelStates
from platonic_ray.metrics.knn import needs_of_neighbors, neighbor_pair, neighbor_sums, own_sums
from platonic_ray.metrics.nearest import nearest
from platonic_ray.metrics.registry import get_metric, metrics
from platonic_ray.metrics.rows import (
    NOT_ASKED,
    asked_layers,
    full_table_note,
    make_state,
    resolve_winners,
    state_key,
    winners_of,
)
from platonic_ray.metrics.states import KernelRows, LayerStates, NeighborRows, Neighbors, PairSums, State
from platonic_ray.metrics.table import (
    PairScores,
    Tables,
    as_layers,
    cells_of,
    score,
    score_tables,
)
from platonic_ray.metrics.unary import ModelState, Wanted, model_state, rows_digest, stack_neighbors

__all__ = [
    "COMPAT",
    "NOT_ASKED",
    "Against",
    "KernelRows",
    "KernelStates",
    "LayerStates",
    "Metric",
    "ModelState",
    "NeighborRows",
    "Neighbors",
    "PairScores",
    "PairSums",
    "State",
    "Tables",
    "Wanted",
    "as_layers",
    "asked_layers",
    "best",
    "cells_of",
    "flag_zero_rows",
    "full_table_note",
    "get_metric",
    "kernel_rows",
    "make_state",
    "metrics",
    "model_state",
    "nearest",
    "needs_of_neighbors",
    "neighbor_pair",
    "neighbor_sums",
    "ordered_inner",
    "own_sums",
    "resolve_winners",
    "rows_digest",
    "score",
    "score_tables",
    "stack_neighbors",
    "state_key",
    "winners_of",
]
