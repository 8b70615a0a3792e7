"""Metrics that depend on neighbors alone: what two representations share of each sample's nearest.

S_X(i) is the set of the k nearest other samples of sample i in X, L_X(i) the same as a list, nearest
first. Every metric here is a mean over i of a number of the two sides' neighbors of i, so its sums are
made by one function over a block of rows and add up; all tables of all metrics are cut from the same
neighbors, at each metric's own k.

When the pairing of samples is broken by a random permutation, S_Y(i) becomes a uniformly random k-set
of the other n − 1 samples, L_Y(i) a uniformly random list: the number m of shared neighbors is
hypergeometric whatever the representations, and given m the matched ranks are uniformly random too.
Hence the closed forms of `chance`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from math import comb, factorial, prod
from typing import Any, Literal

import torch
from torch import Tensor

from platonic_ray.kernels import (
    MICRO,
    cycle_counts,
    edit_counts,
    jaccard_sums,
    lcs_counts,
    one_thread,
    overlap_counts,
    rank_sums,
    sample_edits,
    sample_jaccards,
    sample_lcs,
    sample_overlaps,
    sample_ranks,
    tree_sum,
)
from platonic_ray.metrics.base import Metric, Scored, no_status
from platonic_ray.metrics.states import NeighborRows, Neighbors, PairSums


def needs_of_neighbors(metrics: Sequence[Metric]) -> tuple[int, bool]:
    """Return the largest k of some neighbor metrics, and whether any needs the row sums of the kernel."""
    return max(metric.k or 0 for metric in metrics), any(m.similarities == "centered" for m in metrics)


def neighbor_pair(metric: Metric, x: Neighbors, y: Neighbors) -> PairSums:
    """Return all that a neighbor metric needs of a pair of models."""
    joint = neighbor_sums(metric, x, y)
    if metric.own is None:
        return PairSums(x.ids.shape[1], joint)
    return PairSums(x.ids.shape[1], joint, own_x=own_sums(metric, x), own_y=own_sums(metric, y))


def own_sums(metric: Metric, x: Neighbors) -> Tensor:
    """Return a metric's sums of every layer with itself, `[S, L]`; made once."""
    assert metric.own is not None
    own, k = metric.own, metric.k or 0
    return x.once((own, k), lambda: own(x, k))


def neighbor_sums(metric: Metric, x: Neighbors, y: Neighbors, rows: slice = slice(None)) -> Tensor:
    """Return a neighbor metric's sums of a pair of models over rows, `[Lx, Ly]` or `[S, Lx, Ly]`.

    Sums of consecutive runs of 2^m blocks of `MICRO` rows, merged by `tree_sum`, are those of all rows
    to the last bit.

    :param rows: rows that start at a multiple of `MICRO`; all by default.
    :raises ValueError: if they do not.
    """
    assert metric.joint is not None
    n, k = x.ids.shape[1], metric.k
    start, stop, _ = rows.indices(n)
    if start % MICRO:
        raise ValueError(f"rows {start} to {stop} do not start at a multiple of {MICRO}")

    def side(of: Neighbors, name: Literal["x", "y"], block: slice) -> NeighborRows:
        whole = of.ids[:, :, :k] if name in metric.whole else None
        links = None if metric.similarities is None else of.links(k or 0, metric.similarities)
        return NeighborRows(of.ids[:, block, :k], block.start, whole, links)

    def blocks() -> Iterator[Tensor]:
        for first in range(start, stop, MICRO):
            block = slice(first, min(first + MICRO, stop))
            yield joint(side(x, "x", block), side(y, "y", block))

    joint = metric.joint
    # The work is many short operations on words, which a second thread would only wait for.
    with one_thread():
        return tree_sum(blocks())


def _joint_overlap(x: NeighborRows, y: NeighborRows) -> Tensor:
    return overlap_counts(x.ids, y.ids)


def _joint_cycle(x: NeighborRows, y: NeighborRows) -> Tensor:
    assert x.table is not None
    return cycle_counts(x.table, y.ids, y.start)


def _joint_cycle_turned(x: NeighborRows, y: NeighborRows) -> Tensor:
    assert y.table is not None
    return cycle_counts(y.table, x.ids, x.start).T


def _joint_lcs(x: NeighborRows, y: NeighborRows) -> Tensor:
    return lcs_counts(x.ids, y.ids)


def _joint_edit(x: NeighborRows, y: NeighborRows) -> Tensor:
    return edit_counts(x.ids, y.ids)


def _joint_jaccard(x: NeighborRows, y: NeighborRows) -> Tensor:
    return jaccard_sums(x.ids, y.ids)


def _joint_rank(x: NeighborRows, y: NeighborRows) -> Tensor:
    return rank_sums(x.ids, y.ids)


def _mean(sums: PairSums, options: Mapping[str, Any]) -> Scored:
    return _scored(sums, sums.n)


def _mean_share(sums: PairSums, options: Mapping[str, Any]) -> Scored:
    return _scored(sums, sums.n * options["k"])


def _mean_length(sums: PairSums, options: Mapping[str, Any]) -> Scored:
    return _mean_share(sums, options) if options["normalized"] else _mean(sums, options)


def _mean_unedited(sums: PairSums, options: Mapping[str, Any]) -> Scored:
    assert sums.joint is not None
    total = sums.n * options["k"]
    return _scored(PairSums(sums.n, total - sums.joint), total)


def _scored(sums: PairSums, divisor: int) -> Scored:
    assert sums.joint is not None
    scores = sums.joint.to(torch.float64).cpu().numpy() / divisor
    return scores, no_status(scores.shape)


def _chance_mutual(n: int, options: Mapping[str, Any]) -> float:
    return float(options["k"]) / (n - 1)


def _shared(n: int, k: int) -> Iterator[tuple[int, float]]:
    """Iterate over m ≥ 1 and its probability under broken pairing (hypergeometric)."""
    for m in range(max(1, 2 * k - n + 1), k + 1):
        yield m, comb(k, m) * comb(n - 1 - k, k - m) / comb(n - 1, k)


def _chance_jaccard(n: int, options: Mapping[str, Any]) -> float:
    k = options["k"]
    return sum(p * m / (2 * k - m) for m, p in _shared(n, k))


def _chance_rank(n: int, options: Mapping[str, Any]) -> float:
    k = options["k"]
    ranks = range(1, k + 1)
    weight = sum(2 / ((1 + abs(r - s)) * (r + s)) for r in ranks for s in ranks) / k**2
    return sum(p * m * weight / sum(1 / r for r in range(1, m + 1)) for m, p in _shared(n, k))


def _chance_lcs(n: int, options: Mapping[str, Any]) -> float | None:
    k = options["k"]
    if k > _MOST_PARTITIONED:
        return None
    length = sum(p * _mean_increasing(m) for m, p in _shared(n, k))
    return length / k if options["normalized"] else length


_MOST_PARTITIONED = 20  # partitions grow like exp(π √(2m/3)): 627 of 20


@lru_cache(maxsize=_MOST_PARTITIONED)
def _mean_increasing(m: int) -> float:
    """Return the mean length of the longest increasing subsequence of a permutation of m.

    The common subsequence of lists whose m shared elements are in random order is one. By the
    Robinson–Schensted correspondence (1961) a shape λ with f_λ standard tableaux stands for f_λ²
    permutations whose longest has length λ_1; f_λ = m! / Π hooks.
    """
    total = 0
    for shape in _partitions(m, m):
        columns = [sum(row > j for row in shape) for j in range(shape[0])]
        hooks = prod(row - j + columns[j] - i - 1 for i, row in enumerate(shape) for j in range(row))
        total += shape[0] * (factorial(m) // hooks) ** 2
    return total / factorial(m)


def _partitions(m: int, largest: int) -> Iterator[tuple[int, ...]]:
    if m == 0:
        yield ()
    for first in range(min(m, largest), 0, -1):
        for rest in _partitions(m - first, first):
            yield (first, *rest)


def _bounds_lcs(options: Mapping[str, Any]) -> tuple[float, float]:
    return (0.0, 1.0) if options["normalized"] else (0.0, float(options["k"]))


_COST = "neighbors once a representation, N² D; then about N {} / 64 machine words a layer pair"


def _metric(name: str, description: str, words: str, **declared: Any) -> Metric:
    return Metric(
        **{
            "name": name,
            "family": "neighbors",
            "needs": ("joint",),
            "bounds": (0.0, 1.0),
            "min_samples": 2,
            "description": description,
            "cost": _COST.format(words),
            "options": {"k": 10},
            **declared,
        }
    )


MUTUAL_KNN = _metric(
    "mutual_knn",
    "mean share of each sample's k nearest neighbors that two representations have in common",
    "k",
    joint=_joint_overlap,
    sample=sample_overlaps,
    scorer=_mean_share,
    null_mean=_chance_mutual,
    null="overlap",
    ordered=False,
    reference={},
)
"""mean_i |S_X(i) ∩ S_Y(i)| / k (Huh et al. 2024)."""

CYCLE_KNN = _metric(
    "cycle_knn",
    "share of samples that are a neighbor, in x, of one of their neighbors in y",
    "k",
    joint=_joint_cycle,
    whole=("x",),
    scorer=_mean,
    null="cycle",
    symmetric=False,
    ordered=False,
    reference={"joint": _joint_cycle_turned, "whole": ("y",), "null": "turned cycle"},
)
"""Share of i with i ∈ ∪_{j ∈ S_Y(i)} S_X(j) (Huh et al. 2024).

The reference's tables score (x, y) as (y, x).

The order of arguments is part of the result. Its mean under broken pairing depends on how often each
sample is a neighbor in X, so it is not stated.
"""

LCS_KNN = _metric(
    "lcs_knn",
    "mean length of the longest common subsequence of the lists of k nearest neighbors, over k",
    "k²",
    joint=_joint_lcs,
    sample=sample_lcs,
    scorer=_mean_length,
    options={"k": 10, "normalized": True},
    null_mean=_chance_lcs,
    null="lcs",
    bounds_with=_bounds_lcs,
    reference={"options": {"normalized": False}},
)
"""mean_i LCS(L_X(i), L_Y(i)) / k; with normalized = false not divided, as the reference's code has it."""

EDIT_DISTANCE_KNN = _metric(
    "edit_distance_knn",
    "1 minus the mean Levenshtein distance of the lists of k nearest neighbors, over k",
    "k²",
    joint=_joint_edit,
    sample=sample_edits,
    scorer=_mean_unedited,
    null="edit",
    reference={},
)
"""1 − mean_i Levenshtein(L_X(i), L_Y(i)) / k: a similarity, in spite of its name."""

JACCARD_KNN = _metric(
    "jaccard_knn",
    "mean of shared neighbors over all neighbors that either representation has of a sample",
    "k log k",
    joint=_joint_jaccard,
    sample=sample_jaccards,
    scorer=_mean,
    null_mean=_chance_jaccard,
    null="jaccard",
    ordered=False,
)
"""mean_i |S_X(i) ∩ S_Y(i)| / |S_X(i) ∪ S_Y(i)|."""

RANK_KNN = _metric(
    "rank_knn",
    "mean agreement of the ranks of shared neighbors, the near ones weighing more",
    "64 k",
    joint=_joint_rank,
    sample=sample_ranks,
    scorer=_mean,
    null_mean=_chance_rank,
    null="rank",
)
"""mean_i of Σ_{j shared} 2 / [(1 + |r − r′|)(r + r′)] / H_m with m = |S_X(i) ∩ S_Y(i)|, ranks from 1; 0
where m = 0. It says how well ranks agree where neighbors are shared, not how many are."""

METRICS = (MUTUAL_KNN, CYCLE_KNN, LCS_KNN, EDIT_DISTANCE_KNN, JACCARD_KNN, RANK_KNN)
