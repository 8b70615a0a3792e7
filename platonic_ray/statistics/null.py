"""Which metrics have a null, and the null of a pair of models: the same statistic, samples permuted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from platonic_ray.metrics import Metric, PairSums
from platonic_ray.metrics.table import best
from platonic_ray.statistics.calibration import Calibration, calibrate
from platonic_ray.statistics.permutations import permutations
from platonic_ray.statistics.relabel import Labels, null_overlaps

_AT_ONCE = 64


@dataclass(frozen=True)
class Null:
    """How the scores of a table are set against permuted samples.

    `count` permutations drawn from `seed`, the same for all pairs of models; `alpha` is the level.
    """

    count: int
    alpha: float
    seed: int


def has_null(metric: Metric) -> bool:
    """Whether the null of a metric can be made: so far, whether relabelling neighbors gives it."""
    return metric.null == "relabel"


def null_scores(metric: Metric, x: Labels, y: Labels, null: Null) -> npt.NDArray[np.float64]:
    """Return the best score over all layer pairs under every permutation, `[K] float64`.

    :param x: of a model's neighbors at the metric's k, as `y`.
    :raises ValueError: if the metric has no null.
    """
    if not has_null(metric):
        raise ValueError(f"{metric.name} has no null")
    counts = [
        null_overlaps(x, y, permutations(x.n, min(_AT_ONCE, null.count - start), null.seed, start=start))
        for start in range(0, null.count, _AT_ONCE)
    ]
    # The score rises with the overlap: the best score is that of the largest overlap.
    scores, _ = metric.score(PairSums(x.n, joint=torch.cat(counts)[None]))
    return scores[0]


def calibrate_pair(metric: Metric, scores: np.ndarray, x: Labels, y: Labels, null: Null) -> Calibration:
    """Set the best of a pair's scores `[Lx, Ly]` against its null."""
    top = metric.bounds[0 if metric.direction == "distance" else 1]
    return calibrate(
        best(scores, metric.direction)[0],
        null_scores(metric, x, y, null),
        null.alpha,
        top,
        metric.direction,
    )
