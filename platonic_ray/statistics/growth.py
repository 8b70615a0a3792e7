"""A score as a function of the number of samples, for one pair of layers, by either of two protocols.

The score of most metrics depends on n: `mutual_knn` falls as the gallery grows, because more samples
compete for the k nearest. Samples come in one seeded random order.

**all**: all against all among the first m of the order, for every size m, so that subsets are nested.
    The standard error is for the population: how far the score of m samples drawn anew would be from
    its expectation. It is made of disjoint halves of the m samples (`intervals`), which share no row.
**queries**: the first q of the order are queries, the same at every size, and the next m are their
    gallery: each query's lists are merged with what is new of it, so the gallery is read once. A
    query has m candidates, as it has among m + 1 samples all against all, whose score this estimates
    without bias. Given the gallery the queries are independent: the standard error is that of their
    mean, s / √q, for queries drawn anew against this gallery. Points of one curve share queries and
    most of the gallery, so their differences are known better than two such errors suggest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from platonic_ray.errors import StudyError
from platonic_ray.kernels import TieRule, TopK, merge_neighbors, tile_neighbors
from platonic_ray.metrics import Metric, Neighbors, rows_digest, score_tables
from platonic_ray.metrics.base import whole
from platonic_ray.statistics.halves import Layer, check_halves, cuts, half_scores
from platonic_ray.statistics.intervals import (
    Intervals,
    Target,
    population_error,
    sample_scores,
    variance_of_mean,
)
from platonic_ray.statistics.permutations import permutations

Protocol = Literal["all", "queries"]
_MOST_QUERIES = 1024
_DOUBLINGS = 5


@dataclass(frozen=True)
class Growth:
    """What a curve is made of.

    `sizes` ascend; None takes what there is, halved four times where the metric allows. With
    `k_share` = c the metric's k is max(1, round(c · size)) instead of its own. `queries` is the
    number of queries (None: half of the samples, at most 1,024), `splits` that of the cuts into
    halves; each is for its protocol alone.
    """

    protocol: Protocol = "all"
    sizes: tuple[int, ...] | None = None
    k_share: float | None = None
    queries: int | None = None
    splits: int = 10
    seed: int = 0

    def metric_at(self, metric: Metric, size: int) -> Metric:
        """Return the metric with the k that it has at a size."""
        if self.k_share is None:
            return metric
        return metric.with_options({"k": max(1, round(self.k_share * size))})

    def queries_of(self, n: int) -> int:
        """Return how many of n samples are queries: none where all are against all."""
        if self.protocol == "all":
            return 0
        return min(n // 2, _MOST_QUERIES) if self.queries is None else self.queries

    def sizes_of(self, metric: Metric, n: int) -> tuple[int, ...]:
        """Return the sizes of a curve over n samples; see `check` for what is refused."""
        if self.sizes is not None:
            return self.sizes
        most = n - self.queries_of(n)
        halved = [most >> times for times in reversed(range(_DOUBLINGS))]
        return tuple(size for size in halved if size == most or self._allows(metric, size))

    def _allows(self, metric: Metric, size: int) -> bool:
        at = self.metric_at(metric, max(size, 1))
        return size // 2 > max(at.k or 0, at.min_samples)

    def check(self, metric: Metric, n: int) -> None:
        """Refuse what options and the number of samples show to be impossible, before any work.

        :raises StudyError: naming the option, what it is and what it could be.
        """
        if self.protocol not in ("all", "queries"):
            raise StudyError(f'protocol must be "all" or "queries" (given: {self.protocol!r}).')
        if self.k_share is not None and (metric.k is None or not 0 < self.k_share < 1):
            wrong = f"{metric.name} has no k" if metric.k is None else f"given: {self.k_share!r}"
            raise StudyError(f"k_share is the share of samples that k is, between 0 and 1 ({wrong}).")
        for name in ("splits", "queries"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name))
        if self.splits < 2:
            raise StudyError(f"splits must be at least 2 cuts into halves (given: {self.splits!r}).")
        if self.protocol == "queries":
            self._check_queries(metric, n)
        elif self.queries is not None:
            raise StudyError('queries belong to protocol="queries"; "all" scores all against all.')
        most, sizes = n - self.queries_of(n), self.sizes_of(metric, n)
        if not all(isinstance(size, int) for size in sizes):
            raise StudyError(f"sizes must be whole numbers; given: {', '.join(map(repr, sizes))}.")
        if not sizes or list(sizes) != sorted(set(sizes)) or sizes[0] < 1 or sizes[-1] > most:
            room = f"{n} samples" + (f" less {n - most} queries" if most < n else "")
            raise StudyError(
                f"sizes must ascend and end at {most} or below ({room}); given: {', '.join(map(str, sizes))}."
            )
        for size in sizes:
            self.metric_at(metric, size).check(size + (self.protocol == "queries"))

    def _check_queries(self, metric: Metric, n: int) -> None:
        if metric.sample is None:
            raise StudyError(
                f"{metric.name} is not a mean over samples of what their own neighbors share, so it has no "
                'queries. Take protocol="all".'
            )
        if not 2 <= self.queries_of(n) < n:
            raise StudyError(
                f"queries must be at least 2 and leave a gallery of the {n} samples (given: {self.queries_of(n)})."
            )


@dataclass(frozen=True)
class GrowthPoint:
    """The score at one size.

    `size` is the number of samples, or that of the gallery; `k` that of this size, None without.
    `standard_error` is NaN where the score is undefined, and None where half of the samples are too
    few for the metric; `target` says what it is an error for. `chance` is the expected score of
    unrelated layers at this size. `status` is as in `metrics.PairScores`.
    """

    size: int
    k: int | None
    score: float
    standard_error: float | None
    target: Target
    chance: float | None
    status: str | None


def grow(metric: Metric, x: Layer, y: Layer, how: Growth, groups: Tensor | None = None) -> list[GrowthPoint]:
    """Return the score of two layers at every size, ascending.

    :param x: prepared rows of all samples. Its digest seeds the ties of queries and of all samples; a
        smaller subset has its own, as `metrics.score` gives it one.
    :param groups: `[N] int64` the number of each sample's group, where whole groups would be drawn anew: halves
        keep the groups of a subset together, and the variance over queries is that of groups. Scores are the
        same without.
    :raises StudyError: as `Growth.check`.
    """
    n = x.rows.shape[0]
    how.check(metric, n)
    return (_grow_all if how.protocol == "all" else _grow_queries)(metric, x, y, how, groups)


def _grow_all(metric: Metric, x: Layer, y: Layer, how: Growth, groups: Tensor | None) -> list[GrowthPoint]:
    n = x.rows.shape[0]
    (order,) = permutations(n, 1, how.seed)
    points = []
    for size in how.sizes_of(metric, n):
        at = how.metric_at(metric, size)
        chosen = order[:size].sort().values
        a, b = (side if size == n else _subset(side, chosen) for side in (x, y))
        digests = {"x": [a.digest], "y": [b.digest]}
        (table,) = score_tables(
            {"x": a.rows}, {"y": b.rows}, [at.on_all_layers()], recipe="none", digests=digests
        )
        error = _error_of_subset(at, a, b, how, None if groups is None else groups[chosen])
        score = float(table.scores[0, 0])
        points.append(
            GrowthPoint(
                size,
                at.k,
                score,
                math.nan if error is not None and math.isnan(score) else error,
                "population",
                at.chance(size),
                table.status[0][0],
            )
        )
    return points


def _error_of_subset(metric: Metric, x: Layer, y: Layer, how: Growth, groups: Tensor | None) -> float | None:
    """Return the standard error of the score of a subset; None where half of it is too small for the metric."""
    n = x.rows.shape[0]
    halving = Intervals("population", splits=how.splits, seed=how.seed)
    among = _renumbered(groups)
    try:
        check_halves(metric, n, halving, among)
    except StudyError:
        return None
    sizes = None if among is None else cuts(n, how.splits, how.seed, among).sum(1).numpy()
    return population_error(half_scores(metric, x, y, halving, among), n, sizes)


def _renumbered(groups: Tensor | None) -> Tensor | None:
    """Return the numbers of the groups that are there, from 0 without a gap."""
    return None if groups is None else groups.unique(return_inverse=True)[1]


def _subset(layer: Layer, chosen: Tensor) -> Layer:
    rows = layer.rows[chosen]
    return Layer(rows, rows_digest(rows))


def _grow_queries(
    metric: Metric, x: Layer, y: Layer, how: Growth, groups: Tensor | None
) -> list[GrowthPoint]:
    n = x.rows.shape[0]
    sizes, count = how.sizes_of(metric, n), how.queries_of(n)
    (order,) = permutations(n, 1, how.seed)
    ats = [how.metric_at(metric, size) for size in sizes]
    among = None if groups is None else _renumbered(groups[order[:count]])
    longest = max(at.k or 1 for at in ats)
    lists: list[TopK | None] = [None, None]
    points = []
    for start, size, at in zip((0, *sizes[:-1]), sizes, ats, strict=True):
        queries, added = order[:count], order[count + start : count + size]
        for side, layer in enumerate((x, y)):
            rule = TieRule(layer.digest)
            found = tile_neighbors(layer.rows[queries], layer.rows[added], queries, added, longest, rule)
            before = lists[side]
            lists[side] = found if before is None else merge_neighbors(before, found, rule)
        numbers = sample_scores(at, *(_state(found) for found in lists))
        if among is None:
            error = float(numbers.std(ddof=1)) / math.sqrt(count)
        else:
            error = math.sqrt(variance_of_mean(numbers, among))
        score = float(np.mean(numbers))
        points.append(GrowthPoint(size, at.k, score, error, "queries", at.chance(size + 1), None))
    return points


def _state(found: TopK | None) -> Neighbors:
    assert found is not None
    return Neighbors(found.ids[None], found.values[None])
