"""What a run computes for the layer pair that is best of two models: the score as samples grow.

Only a score task knows which layers these are, unless other samples chose them. It reads their rows, all
samples of two layers, from the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import Tensor

from platonic_ray.errors import StudyError
from platonic_ray.metrics import Metric, best
from platonic_ray.results import Chosen
from platonic_ray.statistics import Growth, GrowthPoint, Layer, grow
from platonic_ray.study import GrowthEntry

BEST = "best on all samples"
CHOSEN = "best on other samples"

Choices = Mapping[tuple[int, int, int], Chosen]
"""The layers that other samples chose, by position of the metric in the study and of both models."""

Curves = tuple[tuple[int, Growth], ...]
"""The curves of every pair of different models: the metric's position in the study, and how."""


def curves_of(entry: GrowthEntry | None, metrics: Sequence[Metric], n: int, seed: int) -> Curves:
    """Return the curves that a study of n samples asks for.

    :raises StudyError: if a metric is named that the study does not have, or a curve cannot be.
    """
    if entry is None:
        return ()
    if entry.metrics is None:
        of_neighbors = [at for at, metric in enumerate(metrics) if metric.family == "neighbors"]
        positions = (of_neighbors or [0])[:1]
    else:
        positions = []
        for name in entry.metrics:
            found = [at for at, metric in enumerate(metrics) if name in (metric.name, metric.label)]
            if not found:
                listed = ", ".join(dict.fromkeys(metric.name for metric in metrics))
                raise StudyError(f"growth.metrics: {name!r} is none of the study's metrics ({listed}).")
            positions += found
    curves = []
    for protocol in entry.protocols:
        queries = entry.queries if protocol == "queries" else None
        how = Growth(protocol, entry.sizes, entry.k_share, queries, entry.splits, seed)
        for at in dict.fromkeys(positions):
            try:
                how.check(metrics[at], n)
            except StudyError as error:
                raise StudyError(f"growth: {error}") from None
            curves.append((at, how))
    return tuple(curves)


def only(scores: np.ndarray, chosen: Chosen) -> np.ndarray:
    """Return scores `[Lx, Ly]` of which that of the chosen layers alone is left, the others NaN."""
    left = np.full(scores.shape, np.nan)
    if chosen.known:
        left[chosen.layer_x, chosen.layer_y] = scores[chosen.layer_x, chosen.layer_y]
    return left


def grow_winner(
    metric: Metric,
    hows: Sequence[Growth],
    scores: np.ndarray,
    x: Callable[[int], Layer],
    y: Callable[[int], Layer],
    groups: Tensor | None = None,
) -> list[dict[str, Any]]:
    """Return the curves of the best layer pair of two models, a row a size; see `curve_rows`.

    :param scores: of the metric, `[Lx, Ly]`, on all samples.
    :param x: returns a layer of the first model; `y` one of the second.
    :param groups: of the samples, as in `statistics.grow`.
    """
    if not hows:
        return []
    _, i, j = best(scores, metric.direction)
    i, j = max(i, 0), max(j, 0)  # where none is defined, the first say so at every size
    sides = x(i), y(j)
    rows = []
    for how in hows:
        rows += curve_rows(grow(metric, *sides, how, groups), how, sides[0].rows.shape[0], i, j)
    return rows


def curve_rows(points: Sequence[GrowthPoint], how: Growth, n: int, i: int, j: int) -> list[dict[str, Any]]:
    """Return the points of a curve of layers i and j as rows of the frame of growth.

    Their models, their metric, and how the layers were chosen are left to the caller.
    """
    about = {"layer_x": i, "layer_y": j, "protocol": how.protocol, "queries": how.queries_of(n) or None}
    return [about | asdict(point) for point in points]
