"""Intervals: what a study asks for, and those of what is in memory: two representations, the winners of a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import platonic_ray.metrics as metrics_
from platonic_ray.datasets import Dataset
from platonic_ray.errors import StudyError
from platonic_ray.kernels import prepare
from platonic_ray.metrics import Metric
from platonic_ray.results import Chosen
from platonic_ray.statistics import (
    Interval,
    Intervals,
    Layer,
    check_halves,
    group_numbers,
    interval_of_layers,
    require_groups,
    undefined_interval,
)
from platonic_ray.study import IntervalsEntry


def intervals_of(
    entry: IntervalsEntry, metrics: Sequence[Metric], n: int, seed: int, groups: Tensor | None = None
) -> Intervals | None:
    """Return how intervals of n samples are made; None where none are wanted.

    :param groups: `[n] int64` the number of each sample's group, from 0, where groups are what is drawn.
    :raises StudyError: if no metric has them for this target, or a half of the samples is too small.
    """
    if entry.target == "none":
        return None
    how = Intervals(entry.target, entry.level, entry.splits, seed)
    having = [metric for metric in metrics if how.has(metric)]
    if not having:
        names = ", ".join(metric.name for metric in metrics)
        raise StudyError(
            f'{names}: there are no intervals for queries, which only a mean over samples has. Take "population".'
        )
    for metric in having:
        check_halves(metric, n, how, groups)
    return how


def drawn_groups(dataset: Dataset, table: str, column: str | None) -> tuple[int, ...] | None:
    """Return the number of each sample's group, of groups that are drawn together; None where no column says.

    :raises StudyError: if there is no such column, or only one group.
    """
    if column is None:
        return None
    where = f"{table}.groups = {column!r}"
    numbers = group_numbers(where, dataset.labels(column), len(dataset))
    try:
        require_groups(numbers)
    except StudyError as error:
        raise StudyError(f"{where}: {error}") from None
    return tuple(numbers.tolist())


def tensor_of(groups: Sequence[int] | None) -> Tensor | None:
    """Return the numbers of groups as a tensor, `[n] int64`; None for none."""
    return None if groups is None else torch.tensor(groups, dtype=torch.int64)


def winner_interval(
    pair: metrics_.PairScores,
    layers: Mapping[str, Sequence[Tensor]],
    recipe: str,
    bounds: Mapping[str, Sequence[float]],
    how: Intervals | None,
    chosen: Chosen | None = None,
    groups: Tensor | None = None,
) -> Interval | None:
    """Return the interval of the score of two different models, for the layers where it is best.

    :param layers: the layers of every model, `[n, D_l]`, as they are before the recipe.
    :param bounds: what the recipe clamps the layers of every model to, where it does.
    :param chosen: the layers, where other samples chose them; else the method says that these did.
    :param groups: as in `intervals_of`.
    """
    if how is None or pair.x == pair.y or not how.has(pair.metric):
        return None
    i, j = pair.best()[1:] if chosen is None else (chosen.layer_x, chosen.layer_y)
    if i < 0 or math.isnan(pair.scores[i, j]):
        return undefined_interval(how)
    x, y = (prepared(layers, recipe, bounds, name, at) for name, at in ((pair.x, i), (pair.y, j)))
    of_x, of_y = (Layer(rows, metrics_.rows_digest(rows)) for rows in (x, y))
    made = interval_of_layers(pair.metric, float(pair.scores[i, j]), of_x, of_y, how, groups)
    if pair.scores.size == 1:
        return made
    return made.given_layers() if chosen is None else made.held_out_layers()


def interval_in_memory(
    x: Any,
    y: Any,
    name: str,
    k: int,
    recipe: str,
    entry: IntervalsEntry,
    seed: int,
    options: Mapping[str, Any],
    compat: str | None = None,
    labels: Any = None,
) -> Interval:
    """Return the interval of the score of two representations `[n, D]`.

    :param labels: `[n]` the group of every sample; None where samples are drawn one by one.
    :raises StudyError: for unknown names and options, more than one layer, or too few samples.
    :raises DataError: for features that cannot be compared.
    """
    if entry.target == "none":
        raise StudyError('target must be "population" or "queries" (given: "none").')
    metric = metrics_.get_metric(name, compat=compat, **options)
    metric = metric.with_options({"k": k}) if metric.k is not None else metric
    stacks = [metrics_.as_layers(value, side) for value, side in ((x, "x"), (y, "y"))]
    if metric.compat:  # a table of (x, y) scores its pairs as (y, x) there, and two matrices as (x, y)
        stacks.reverse()
    if any(len(stack) > 1 for stack in stacks):
        raise StudyError(
            "interval takes one layer of each side, [N, D]; table has intervals of layer stacks."
        )
    n = stacks[0][0].shape[0]
    groups = None if labels is None else group_numbers("groups", labels, n)
    metric.check(n)
    how = intervals_of(entry, [metric], n, seed, groups)
    assert how is not None
    clamps: dict[tuple[str, str], tuple[float, ...]] = {}
    (scored,) = metrics_.score_tables(
        {"x": stacks[0]}, {"y": stacks[1]}, [metric], recipe=recipe, clamps=clamps
    )
    bounds = {side: found for (side, _), found in clamps.items()}
    score = float(scored.scores[0, 0])
    if math.isnan(score):
        return undefined_interval(how)
    rows = [
        prepare(stack[0], recipe, bounds[side][0] if side in bounds else None)
        for side, stack in zip("xy", stacks, strict=True)
    ]
    of_x, of_y = (Layer(side, metrics_.rows_digest(side)) for side in rows)
    return interval_of_layers(metric, score, of_x, of_y, how, groups)


def prepared(
    layers: Mapping[str, Sequence[Tensor]],
    recipe: str,
    bounds: Mapping[str, Sequence[float]],
    name: str,
    at: int,
) -> Tensor:
    """Return the prepared rows of one layer of a model; see `winner_interval`."""
    return prepare(layers[name][at], recipe, bounds[name][at] if name in bounds else None)
