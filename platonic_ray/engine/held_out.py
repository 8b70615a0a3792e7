"""Layers that are chosen on one half of the samples and scored on the other.

The best of many layer pairs on some samples looks better there than on others. A pair of models whose
layers were chosen elsewhere has one score, not a maximum: its p and its interval need no correction for
the choice. The halves share nothing: each is its own gallery, so a neighbor metric's scores are those
of half as many samples, as `n` says, and higher than those of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

import platonic_ray.metrics as metrics_
from platonic_ray.engine.intervals import prepared
from platonic_ray.errors import StudyError
from platonic_ray.metrics import Metric
from platonic_ray.results import Chosen
from platonic_ray.statistics.halves import cuts

SEED = 0
"""Of the halves: the same for every table of so many samples."""

Layers = Mapping[str, Sequence[Tensor]]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The layers of every model on both halves, and which rows each has."""

    choosing: Layers
    reporting: Layers
    chooses: npt.NDArray[np.int64]
    reports: npt.NDArray[np.int64]

    @classmethod
    def of(cls, layers: Layers, metrics: Sequence[Metric], how: Literal["all", "held-out"]) -> HeldOut | None:
        """Cut the samples in halves; None where all samples choose and report.

        :raises StudyError: if `how` is unknown, or a half is too small for a metric.
        """
        if how not in ("all", "held-out"):
            raise StudyError(f'choose_layers must be "all" or "held-out" (given: {how!r}).')
        counts = {rows.shape[0] for stack in layers.values() for rows in stack}
        if how == "all" or len(counts) != 1:  # `score_tables` refuses samples that differ
            return None
        first = chooses(counts.pop(), metrics)
        return cls(_rows(layers, first), _rows(layers, ~first), _places(first), _places(~first))

    def summary(self) -> dict[str, Any]:
        """Return how it was done as plain values."""
        return summary(len(self.chooses), len(self.reports))

    def note(self) -> str:
        """Return what a reader of the result has to know."""
        return note(len(self.chooses), len(self.reports))


def chooses(n: int, metrics: Sequence[Metric]) -> Tensor:
    """Return which of n samples choose the layers, `[n] bool`: a random half, the others report.

    :raises StudyError: if a half is too small for a metric.
    """
    for metric in metrics:
        try:
            metric.check(n // 2)
        except StudyError as error:
            raise StudyError(f"With held-out layers, halves of the {n} samples are scored. {error}") from None
    return cuts(n, 1, SEED)[0]


def summary(chosen_on: int, reported_on: int) -> dict[str, Any]:
    """Return how layers were chosen as plain values."""
    return {"choose": "held-out", "chosen_on": chosen_on, "reported_on": reported_on, "seed": SEED}


def note(chosen_on: int, reported_on: int) -> str:
    """Return what a reader of scores of held-out layers has to know."""
    return (
        f"layers were chosen on {chosen_on} of the samples; the scores are those of the other {reported_on}"
    )


def _rows(layers: Layers, half: Tensor) -> Layers:
    return {name: [rows[half] for rows in stack] for name, stack in layers.items()}


def _places(half: Tensor) -> npt.NDArray[np.int64]:
    return half.nonzero()[:, 0].numpy()


def chosen_by(pair: metrics_.PairScores) -> Chosen:
    """Return the layers that are best on the half that chooses, and their score there."""
    score, i, j = pair.best()
    return Chosen(i, j, score)


def alone(
    pair: metrics_.PairScores,
    chosen: Chosen,
    layers: Layers,
    recipe: str,
    bounds: Mapping[str, Sequence[float]],
    **kept: Any,
) -> metrics_.PairScores:
    """Score the chosen layers of two models as if they had no others, `[1, 1]`.

    :param kept: what `score_tables` is to fill, by its names.
    """
    x, y = (
        {name: [prepared(layers, recipe, bounds, name, at)]}
        for name, at in ((pair.x, chosen.layer_x), (pair.y, chosen.layer_y))
    )
    (scored,) = metrics_.score_tables(x, y, [pair.metric.of_two_layers()], recipe="none", **kept)
    return scored


def with_chosen(
    pair: metrics_.PairScores,
    chosen: Chosen,
    layers: Layers,
    recipe: str,
    bounds: Mapping[str, Sequence[float]],
) -> metrics_.PairScores:
    """Return a pair's scores with that of the chosen layers among them.

    A metric of whole representations that is scored where another is best may be scored elsewhere on
    this half.
    """
    at = chosen.layer_x, chosen.layer_y
    if pair.metric.family != "rows" or not chosen.known or not np.isnan(pair.scores[at]):
        return pair
    one = alone(pair, chosen, layers, recipe, bounds)
    scores, status = pair.scores.copy(), [list(line) for line in pair.status]
    scores[at], status[at[0]][at[1]] = one.scores[0, 0], one.status[0][0]
    return replace(pair, scores=scores, status=status)
