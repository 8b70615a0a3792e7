"""How far a score of one pair of layers may be from what it estimates: confidence intervals.

Two targets, never to be mixed up:

**population**: E[score] over samples of this size n drawn anew (gallery and queries alike; most scores
    depend on n, so it is the expectation at this n). The samples are cut into two halves A and B at
    random, S times. Halves are samples of n/2 that share no row, so (T_A − T_B)² / 4 estimates
    Var(T_{n/2}) / 2, which is Var(T_n) for a variance that falls like 1/n. It is averaged over the S
    cuts, and T ± t_S · se is the interval.
**queries**: E[score of a sample] over queries drawn anew, each against the gallery as it is. Of a
    neighbor metric, T = mean_i c_i; the samples of the table are one another's gallery, so the c_i are
    not independent. With δ_ij = c_i − (c_i without j in i's gallery), only pairs that are in each
    other's lists count, and

        Var(T − target) = s²/n + (1/n²) Σ_{i≠j} δ_ij δ_ji + O(1/n²)

    (write c_i = a_i + δ_ij with a_i of the gallery without i and j: the products of a_i with the
    influence of i on j, and with that on a new query, have the same mean and cancel).

Sampling is without replacement throughout: a bootstrap would make duplicated rows each other's
neighbors. Coverage of 95 % intervals on Gaussian low-rank data with noise (n = 100–300, k = 5–10,
D = 5–50, 400–600 tables each; `mutual_knn`): queries 0.935–0.96 (0.92 at n = 100, k = 10 and a low
score); population 0.93–0.99, above 0.97 where the score is hardly above chance, because T_{n/2} then
varies by more than twice. s/√n alone, the usual standard error, covers 0.81–0.90 of the population and
0.86–0.92 of new queries; the delete-a-group jackknife covers 0.97–1.00, its standard errors being
1.3–1.8 times too large (it counts the part of the variance that comes from pairs of samples twice:
Efron & Stein 1981). `cka` and `unbiased_cka`: 0.94–0.99; `cycle_knn` (n = 100, 20 splits, 200 tables)
0.91, low.

A score of a bounded metric gets Wilson's interval (1927) with the number of samples that its standard
error stands for, T (1 − T) / se² on the scale of its bounds: near a bound it is not symmetric, and
never leaves it.

**Differences** of two scores of the same samples (`difference_interval`) come from the same cuts: the
difference of the scores of each half stands where the score of a half did, so whatever makes both go up and
down together cancels. Coverage of a true difference of 0 (two sides with independent noise of one low-rank
signal, n = 150, k = 5, 120 tables each; `mutual_knn`): 0.97 and 0.94, 0.65 and 0.4 times as wide as the
interval made of the two scores' own.

Layers are taken as given. Where they were chosen as the best on the same samples, the interval is
conditional on that choice and does not correct for it; on held-out samples it needs no correction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import special
from torch import Tensor

from platonic_ray.errors import StudyError
from platonic_ray.kernels import one_thread
from platonic_ray.metrics import Metric, Neighbors, PairSums

Target = Literal["queries", "population"]

_CELLS = 2**22  # cells of k × k matches that are held at a time


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a score, and what it is an interval for.

    `low` and `high` are NaN where the score, or that of a half of the samples, is undefined. `method`
    says in words how it was made and at which level. `halves` are the scores of both halves of every cut of
    the samples, one cut after another, where it was made from them.
    """

    low: float
    high: float
    target: Target
    method: str
    halves: tuple[float, ...] = ()

    def given_layers(self) -> Interval:
        """Return it with the remark that its layers were chosen on the same samples."""
        return replace(self, method=f"{self.method}; conditional on the layers chosen")

    def held_out_layers(self) -> Interval:
        """Return it with the remark that its layers were chosen on other samples."""
        return replace(self, method=f"{self.method}; layers chosen on other samples")


def undefined_interval(how: Intervals) -> Interval:
    """Return the interval of an undefined score."""
    return Interval(math.nan, math.nan, how.target, f"{_percent(how.level)}: undefined")


@dataclass(frozen=True)
class Intervals:
    """How intervals are made: for which target, at which level; S cuts into halves, drawn from a seed."""

    target: Target
    level: float = 0.95
    splits: int = 40
    seed: int = 0

    def check(self, metric: Metric, n: int) -> None:
        """Refuse what options and the number of samples show to be impossible.

        :raises StudyError: if the level, the number of cuts or the target does not exist, or half of
            the samples are too few for the metric.
        """
        if self.target not in ("queries", "population"):
            raise StudyError(f'intervals are for "queries" or "population" (given: {self.target!r}).')
        if not 0 < self.level < 1:
            raise StudyError(f"the level of intervals must be between 0 and 1 (given: {self.level!r}).")
        if self.splits < 2:
            raise StudyError(f"intervals need at least 2 splits into halves (given: {self.splits!r}).")
        if self.target == "population":
            try:
                metric.check(n // 2)
            except StudyError as error:
                raise StudyError(
                    f"An interval for the population scores halves of the {n} samples. {error}"
                ) from None

    def has(self, metric: Metric) -> bool:
        """Whether a metric has intervals for this target: for queries, where it is a mean over samples."""
        return self.target == "population" or metric.sample is not None


def queries_interval(
    metric: Metric, x: Neighbors, y: Neighbors, level: float = 0.95, groups: Tensor | None = None
) -> Interval:
    """Return the interval of a score for new queries against the same gallery.

    :param metric: one that is a mean of a number of each sample's two lists (`Metric.sample`).
    :param x: neighbors of one layer, `[1, n, > k]`.
    :param y: the same of the other.
    :param groups: `[n] int64` the number of each sample's group, from 0: what queries of a group have in
        common counts (the variance is that of the sums of groups, Liang & Zeger 1986).
    :raises StudyError: if the metric is none of these.
    """
    numbers = sample_scores(metric, x, y)
    n = len(numbers)
    drawn = n if groups is None else int(groups.max()) + 1
    variance = variance_of_mean(numbers, groups)
    # Chance may carry the estimated sum of products below 0, which it is not in expectation.
    variance += max(0.0, _mutual_influence(metric, x, y) / n**2)
    low, high = bounded_interval(
        float(numbers.mean()), math.sqrt(variance), max(1, drawn - 1), drawn, metric, level
    )
    over = "samples" if groups is None else f"{drawn} groups"
    return Interval(
        low, high, "queries", f"{_percent(level)}: t over {over}, with mutual neighbors' influence"
    )


def variance_of_mean(numbers: npt.NDArray[np.float64], groups: Tensor | None = None) -> float:
    """Return the variance of the mean of numbers `[n]` that are drawn one by one, or whole groups at a time.

    :param groups: `[n] int64` the number of each one's group, from 0; NaN if there is only one.
    """
    n = len(numbers)
    if groups is None:
        return float(numbers.var(ddof=1)) / n
    sums = np.bincount(groups.numpy(), weights=numbers - numbers.mean())
    drawn = len(sums)
    return float(np.square(sums).sum()) / n**2 * drawn / (drawn - 1) if drawn > 1 else math.nan


def population_interval(
    metric: Metric,
    score: float,
    halves: npt.NDArray[np.float64],
    n: int,
    level: float = 0.95,
    sizes: npt.NDArray[np.int64] | None = None,
    groups: int | None = None,
) -> Interval:
    """Return the interval of a score for samples drawn anew.

    :param halves: scores of both halves of every cut of the samples, `[S, 2]`, of ⌊n/2⌋ and of the
        other samples.
    :param sizes: of the first halves `[S]`, where they are others than ⌊n/2⌋.
    :param groups: how many groups were cut, where they are what is drawn.
    """
    cuts = len(halves)
    drawn = n if groups is None else groups
    freedom = cuts if groups is None else min(cuts, groups - 1)
    low, high = bounded_interval(score, population_error(halves, n, sizes), freedom, drawn, metric, level)
    of = "" if groups is None else f" of {groups} groups"
    method = f"{_percent(level)}: t over {cuts} cuts{of} into disjoint halves"
    return Interval(low, high, "population", method, tuple(halves.ravel().tolist()))


def population_error(
    halves: npt.NDArray[np.float64], n: int, sizes: npt.NDArray[np.int64] | None = None
) -> float:
    """Return the standard error of a score of n samples drawn anew, from the scores of its halves `[S, 2]`."""
    small = n // 2 if sizes is None else sizes
    # Var(T_A) + Var(T_B) = σ² (1/|A| + 1/|B|) where that of all is σ² / n.
    return math.sqrt(float(np.mean((halves[:, 0] - halves[:, 1]) ** 2 * (small * (n - small)))) / n**2)


def difference_interval(
    difference: float,
    halves: npt.NDArray[np.float64],
    others: npt.NDArray[np.float64],
    n: int,
    level: float,
) -> tuple[float, float]:
    """Return the interval of the difference of two scores of the same n samples, for samples drawn anew.

    :param halves: scores of both halves of every cut of the samples, `[S, 2]`; `others` those of the other
        score, of the same halves. What both scores owe to the samples cancels.
    """
    error = population_error(halves - others, n)
    if math.isnan(error) or math.isnan(difference):
        return math.nan, math.nan
    reach = float(special.stdtrit(len(halves), (1 + level) / 2)) * error
    return difference - reach, difference + reach


def bounded_interval(
    score: float, error: float, freedom: int, n: int, metric: Metric, level: float
) -> tuple[float, float]:
    """Return the interval of a score with a standard error, within the metric's bounds.

    Where nothing varied, the interval is the score: a representation is like itself without doubt.
    Only at a similarity's lower bound, which nothing reaches by definition, it goes as far up as n
    samples could all have missed: 1 − (α/2)^(1/n) of the way.
    """
    if math.isnan(score) or math.isnan(error):
        return math.nan, math.nan
    t = float(special.stdtrit(freedom, (1 + level) / 2))
    least, most = metric.bounds
    if not (math.isfinite(least) and math.isfinite(most)):
        return max(least, score - t * error), min(most, score + t * error)
    at = (score - least) / (most - least)
    spread, v = at * (1 - at), (error / (most - least)) ** 2
    if v == 0 and at == 0 and metric.direction == "similarity":
        low, high = 0.0, 1 - ((1 - level) / 2) ** (1 / n)
    elif spread <= 0 or v == 0:
        low, high = at - t * math.sqrt(v), at + t * math.sqrt(v)
    else:
        inverse = v / spread  # of the number of samples
        shrink = 1 + t**2 * inverse
        center = (at + t**2 * inverse / 2) / shrink
        reach = t / shrink * math.sqrt(v + (t * inverse / 2) ** 2)
        low, high = center - reach, center + reach
    low, high = (least + max(0.0, low) * (most - least), least + min(1.0, high) * (most - least))
    # The score is inside, also where the last digit would say otherwise.
    return min(low, score), max(high, score)


def sample_scores(metric: Metric, x: Neighbors, y: Neighbors) -> npt.NDArray[np.float64]:
    """Return every sample's own score, whose mean is the metric's, `[n] float64`.

    :raises StudyError: if the metric is no mean over samples of what their two lists hold.
    """
    k = metric.k
    return _scores_of_lists(metric, x.ids[0, :, :k], y.ids[0, :, :k])


def _scores_of_lists(metric: Metric, ids_x: Tensor, ids_y: Tensor) -> npt.NDArray[np.float64]:
    if metric.sample is None:
        raise StudyError(no_queries(metric))
    step = max(1, _CELLS // ids_x.shape[1] ** 2)
    with one_thread():
        terms = [
            metric.sample(ids_x[start : start + step], ids_y[start : start + step])
            for start in range(0, ids_x.shape[0], step)
        ]
    # The scores of these metrics are affine in their sums: that of a sample is the score of one sample.
    scores, _ = metric.score(PairSums(1, joint=torch.cat(terms)[None]))
    return scores[0]


def _mutual_influence(metric: Metric, x: Neighbors, y: Neighbors) -> float:
    """Return Σ_{i≠j} δ_ij δ_ji; see the head of this module."""
    n, k = x.ids.shape[1], metric.k
    assert k is not None
    listed = torch.cat([x.ids[0, :, :k], y.ids[0, :, :k]], dim=1)
    row = torch.arange(n)[:, None].expand_as(listed)
    pairs = (row * n + listed)[listed >= 0].unique()
    i, j = pairs // n, pairs % n
    mirrored = j * n + i
    place = torch.searchsorted(pairs, mirrored).clamp_(max=len(pairs) - 1)
    both = pairs[place] == mirrored
    i, j, pairs, mirrored = i[both], j[both], pairs[both], mirrored[both]
    if not len(i):
        return 0.0
    whole = _scores_of_lists(metric, x.ids[0, i, :k], y.ids[0, i, :k])
    less = _scores_of_lists(metric, _without(x.ids[0, i, : k + 1], j), _without(y.ids[0, i, : k + 1], j))
    influence = whole - less
    return float(influence @ influence[torch.searchsorted(pairs, mirrored).numpy()])


def _without(lists: Tensor, left_out: Tensor) -> Tensor:
    """Return lists `[m, k + 1]` as the k nearest that are left when one sample each is left out, `[m, k]`."""
    gone = (lists == left_out[:, None]).to(torch.uint8)
    return lists.gather(1, gone.argsort(dim=1, stable=True)[:, :-1])


def no_queries(metric: Metric) -> str:
    """Say why a metric has no interval for queries."""
    return (
        f"{metric.name} has no interval for queries: it is not a mean over samples of what their own "
        'neighbors share. Take intervals for the "population".'
    )


def _percent(level: float) -> str:
    return f"{100 * level:g} %"
