"""Metrics that depend on neighbors alone: what two representations share of each sample's nearest.

mutual_knn(X, Y) = mean_i |S_X(i) ∩ S_Y(i)| / k (Huh et al. 2024); its mean under broken pairing is
k / (n − 1), whatever the representations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from platonic_ray.kernels import TopK, exact_neighbors, overlap_counts
from platonic_ray.metrics.base import Metric, Neighbors, PairSums, Scored, no_status


def neighbors_state(layers: Sequence[Tensor], digests: Sequence[str], k: int) -> Neighbors:
    """Return the unary state of a model: the neighbors of every row in every layer.

    :param layers: prepared rows, `[n, D_l] float32` each.
    :param digests: the digest of every layer's representation, the seed of its tie rule.
    :raises StudyError: if k < 1 or k ≥ n.
    """
    tables = [exact_neighbors(rows, k, digest) for rows, digest in zip(layers, digests, strict=True)]
    return stack_neighbors(tables)


def stack_neighbors(tables: Sequence[TopK]) -> Neighbors:
    """Return the unary state of a model from the finished tables of its layers."""
    return Neighbors(
        ids=torch.stack([table.ids for table in tables]),
        values=torch.stack([table.values for table in tables]),
    )


def overlap_sums(x: Neighbors, y: Neighbors, k: int, rows: slice = slice(None)) -> Tensor:
    """Return the joint sums of a pair, `[Lx, Ly] int64`; those of blocks of rows add up."""
    return overlap_counts(x.ids[:, rows, :k], y.ids[:, rows, :k])


def _score_mutual_knn(sums: PairSums, options: Mapping[str, Any]) -> Scored:
    assert sums.overlap is not None
    scores = sums.overlap.to(torch.float64).cpu().numpy() / (sums.n * options["k"])
    return scores, no_status(scores.shape)


def _chance_mutual_knn(n: int, options: Mapping[str, Any]) -> float:
    return float(options["k"]) / (n - 1)


MUTUAL_KNN = Metric(
    name="mutual_knn",
    family="neighbors",
    needs=("overlap",),
    bounds=(0.0, 1.0),
    min_samples=2,
    description="mean share of each sample's k nearest neighbors that two representations have in common",
    cost="neighbors once a representation, N² D; then n · k a layer pair",
    scorer=_score_mutual_knn,
    options={"k": 10},
    null_mean=_chance_mutual_knn,
    null="relabel",
)
