"""Scores of disjoint halves of the samples, for one pair of layers: what `population_interval` needs.

The samples are cut at random, S times; a half's score is what the metric gives for these samples
alone, gallery and all. Neighbors of halves come from lists of the whole that are long enough, and are
exact: rows of which too few neighbors fall into a half are searched again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from platonic_ray.errors import StudyError
from platonic_ray.kernels import TieRule, exact_neighbors, tile_neighbors
from platonic_ray.metrics import Metric, Neighbors, PairSums, neighbor_sums, score_tables
from platonic_ray.statistics.intervals import (
    Interval,
    Intervals,
    no_queries,
    population_interval,
    queries_interval,
    sample_scores,
)
from platonic_ray.statistics.permutations import permutations

_NO_VALUES = torch.zeros(0)  # of tables that are compared by their ids alone


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of a model: prepared rows `[n, D] float32`, and the digest that seeds its tie rule."""

    rows: Tensor
    digest: str


def cuts(n: int, count: int, seed: int, groups: Tensor | None = None) -> Tensor:
    """Return random halves of n samples, `[count, n] bool`: True in ⌊n/2⌋ places.

    :param groups: `[n] int64` the number of each sample's group, from 0: no group is cut, and the halves are
        as equal as the random order of groups lets them be.
    :raises StudyError: if all samples are in one group.

    >>> cuts(5, 3, seed=0).sum(dim=1).tolist()
    [2, 2, 2]
    >>> cuts(5, 1, seed=0, groups=torch.tensor([0, 0, 1, 1, 1])).tolist()
    [[False, False, True, True, True]]
    """
    if groups is not None:
        sizes = groups.bincount()
        require_groups(groups)
        orders = permutations(len(sizes), count, seed)
        reached = sizes[orders].cumsum(1)
        last = (reached[:, :-1] - n / 2).abs().argmin(1, keepdim=True)
        first = torch.arange(len(sizes)) <= last
        return torch.zeros_like(first).scatter_(1, orders, first)[:, groups]
    chosen = torch.zeros(count, n, dtype=torch.bool)
    orders = permutations(n, count, seed)
    return chosen.scatter_(1, orders[:, : n // 2], True)


def require_groups(groups: Tensor) -> None:
    """Refuse groups `[n] int64`, numbered from 0, of which there is only one.

    :raises StudyError: saying so.
    """
    if int(groups.max()) < 1:
        raise StudyError("All samples are in one group, which has no halves. Give at least two groups.")


def check_halves(metric: Metric, n: int, how: Intervals, groups: Tensor | None) -> None:
    """Refuse an interval that options, groups and the number of samples show to be impossible.

    :raises StudyError: as `Intervals.check`; if there is one group, or a half of the groups is too few samples.
    """
    how.check(metric, n)
    if groups is None:
        return
    require_groups(groups)
    if how.target == "population":
        try:
            metric.check(_smallest_half(cuts(n, how.splits, how.seed, groups)))
        except StudyError as error:
            raise StudyError(f"An interval for the population scores halves of the groups. {error}") from None


def _smallest_half(chosen: Tensor) -> int:
    sizes = chosen.sum(1)
    return int(torch.minimum(sizes, chosen.shape[1] - sizes).min())


def interval_of_layers(
    metric: Metric, score: float, x: Layer, y: Layer, how: Intervals, groups: Tensor | None = None
) -> Interval:
    """Return the interval of the score of two layers.

    :param score: of the layers on all samples.
    :param groups: `[n] int64` the number of each sample's group, from 0, where groups are what is drawn.
    :raises StudyError: if half of the samples are too few for the metric, or it has no interval for
        this target.
    """
    n = x.rows.shape[0]
    check_halves(metric, n, how, groups)
    if how.target == "queries":
        return queries_interval(metric, _neighbors(metric, x), _neighbors(metric, y), how.level, groups)
    scores = half_scores(metric, x, y, how, groups)
    if groups is None:
        return population_interval(metric, score, scores, n, how.level)
    sizes = cuts(n, how.splits, how.seed, groups).sum(1).numpy()
    return population_interval(metric, score, scores, n, how.level, sizes, int(groups.max()) + 1)


def half_scores(
    metric: Metric, x: Layer, y: Layer, how: Intervals, groups: Tensor | None = None
) -> npt.NDArray[np.float64]:
    """Return the scores of both halves of every cut, `[S, 2]`; see `check_halves` for what has none."""
    n = x.rows.shape[0]
    chosen = cuts(n, how.splits, how.seed, groups)
    if metric.joint is not None and metric.similarities is None:
        sides = [_HalfNeighbors(layer, metric.k or 1) for layer in (x, y)]
        tables = [(sides[0].of(half), sides[1].of(half)) for half in _both(chosen)]
        scores = _neighbor_scores(metric, tables)
    else:
        scores = [_score_of_rows(metric, x.rows[half], y.rows[half]) for half in _both(chosen)]
    return np.array(scores).reshape(-1, 2)


def _both(chosen: Tensor) -> list[Tensor]:
    return [half for first in chosen for half in (first, ~first)]


def _neighbors(metric: Metric, layer: Layer) -> Neighbors:
    if metric.sample is None or metric.k is None:
        raise StudyError(no_queries(metric))
    found = exact_neighbors(layer.rows, metric.k, layer.digest)
    return Neighbors(found.ids[None], found.values[None])


def _longer(k: int) -> int:
    """Return a length at which a list has k entries in nearly every half: m entries have m/2 ± √m/2."""
    return 2 * k + 4 * math.isqrt(2 * k) + 8


class _HalfNeighbors:
    """A layer's neighbors within any half of its samples."""

    def __init__(self, layer: Layer, k: int) -> None:
        self._layer, self._k = layer, k
        n = layer.rows.shape[0]
        self._ids = exact_neighbors(layer.rows, min(n - 1, _longer(k)), layer.digest).ids

    def of(self, half: Tensor) -> Neighbors:
        """Return the neighbors of the half's rows among them, numbered within it, `[1, n_h, k]`.

        Equal similarities keep the order that they have among all samples.
        """
        rows, k = half.nonzero()[:, 0], self._k
        ids = self._ids[rows]
        inside = half[ids.clamp(min=0)] & (ids >= 0)
        counted = inside.cumsum(1)
        enough = counted[:, -1] >= k
        found = torch.empty(len(rows), k, dtype=torch.int64)
        found[enough] = ids[enough][(inside & (counted <= k))[enough]].reshape(-1, k)
        if not bool(enough.all()):
            found[~enough] = self._searched(rows[~enough], rows)
        within = half.cumsum(0) - 1
        return Neighbors(within[found][None], _NO_VALUES)

    def _searched(self, queries: Tensor, gallery: Tensor) -> Tensor:
        rows, rule = self._layer.rows, TieRule(self._layer.digest)
        return tile_neighbors(rows[queries], rows[gallery], queries, gallery, self._k, rule).ids[:, : self._k]


def _neighbor_scores(metric: Metric, tables: Sequence[tuple[Neighbors, Neighbors]]) -> list[float]:
    """Score the tables of every half."""
    if metric.sample is None:
        sums = [PairSums(x.ids.shape[1], joint=neighbor_sums(metric, x, y)) for x, y in tables]
        return [float(metric.score(each)[0][0, 0]) for each in sums]
    # One call on the samples of all halves spares a thousand small ones.
    every_x, every_y = (torch.cat([side.ids for side in sides], dim=1) for sides in zip(*tables, strict=True))
    numbers = sample_scores(metric, Neighbors(every_x, _NO_VALUES), Neighbors(every_y, _NO_VALUES))
    ends = np.cumsum([x.ids.shape[1] for x, _ in tables])[:-1]
    return [float(half.mean()) for half in np.split(numbers, ends)]


def _score_of_rows(metric: Metric, x: Tensor, y: Tensor) -> float:
    """Score prepared rows by the road that every metric can take."""
    (scored,) = score_tables({"x": x}, {"y": y}, [metric.on_all_layers()], recipe="none")
    return float(scored.scores[0, 0])
