"""Curves of growth of what is in memory: which layers, their prepared rows, and the curve as a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from torch import Tensor

from platonic_ray.engine.winners import BEST, curve_rows
from platonic_ray.errors import DataError, StudyError
from platonic_ray.kernels import clamp_bounds, prepare_layers
from platonic_ray.metrics import Metric, as_layers, get_metric, rows_digest, score_tables
from platonic_ray.metrics.base import whole_numbers
from platonic_ray.results import growth_frame
from platonic_ray.statistics import Growth, Layer, group_numbers, grow, require_groups


def growth_in_memory(
    x: Any,
    y: Any,
    name: str,
    k: int,
    recipe: str,
    how: Growth,
    layers: tuple[int, int] | None,
    options: Mapping[str, Any],
    compat: str | None = None,
    labels: Any = None,
) -> pl.DataFrame:
    """Return the curve of two representations, or of a layer pair of two stacks; see `api.growth`.

    :raises StudyError: for unknown names and options, and sizes that there cannot be.
    :raises DataError: for features that cannot be compared.
    """
    metric = get_metric(name, compat=compat, **options)
    metric = metric.with_options({"k": k}) if metric.k is not None else metric
    stacks = [as_layers(value, side) for value, side in ((x, "x"), (y, "y"))]
    n = stacks[0][0].shape[0]
    if any(rows.shape[0] != n for stack in stacks for rows in stack):
        raise DataError(
            "x and y need the same samples, row by row; rows found: "
            + ", ".join(str(rows.shape[0]) for stack in stacks for rows in stack[:10])
            + "."
        )
    how.check(metric, n)
    groups = None if labels is None else group_numbers("groups", labels, n)
    if groups is not None:
        require_groups(groups)
    if layers is not None:
        layers = _given(layers, stacks)
    rows = [prepare_layers(stack, recipe, _bounds(stack, recipe)) for stack in stacks]
    (i, j), chosen = _chosen(how.metric_at(metric, n), rows, layers)
    sides = [Layer(stack[at], rows_digest(stack[at])) for stack, at in zip(rows, (i, j), strict=True)]
    # In the reference, a table of (x, y) scores its pairs as (y, x), and two matrices as (x, y).
    first, second = sides[::-1] if metric.compat else sides
    points = grow(metric, first, second, how, groups)
    both = {"metric": metric.name, "model_x": "x", "model_y": "y"}
    return growth_frame(both | {"layers": chosen} | row for row in curve_rows(points, how, n, i, j))


def _bounds(stack: list[Tensor], recipe: str) -> tuple[float, ...] | None:
    return clamp_bounds(lambda: [stack], recipe)


def _given(layers: Any, stacks: Sequence[Sequence[Tensor]]) -> tuple[int, int]:
    """Return the layers of x and y that were asked for; refuse what they do not have."""
    wanted = whole_numbers("layers", layers)
    if len(wanted) != 2:
        raise StudyError(f"layers are two numbers, a layer of x and one of y (given: {layers!r}).")
    for at, stack, side in zip(wanted, stacks, "xy", strict=True):
        if not 0 <= at < len(stack):
            raise StudyError(f"layers: {side} has layers 0 to {len(stack) - 1} (given: {at!r}).")
    return wanted[0], wanted[1]


def _chosen(
    metric: Metric, rows: Sequence[Sequence[Tensor]], layers: tuple[int, int] | None
) -> tuple[tuple[int, int], str]:
    """Return the layers of a curve, and in words how they were chosen."""
    if layers is not None:
        return layers, "given"
    if all(len(stack) == 1 for stack in rows):
        return (0, 0), "only"
    if metric.compat:
        (table,) = score_tables({"y": rows[1]}, {"x": rows[0]}, [metric], recipe="none")
        _, j, i = table.best()
    else:
        (table,) = score_tables({"x": rows[0]}, {"y": rows[1]}, [metric], recipe="none")
        _, i, j = table.best()
    return (max(i, 0), max(j, 0)), BEST
