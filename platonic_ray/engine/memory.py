"""Tables of features that are in memory already: no store, no plan, the same result object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import combinations_with_replacement
from typing import Any, Literal

import numpy as np
from torch import Tensor

import platonic_ray.metrics as metrics_
from platonic_ray.engine.assemble import emptied, full_table_notes, labels_of
from platonic_ray.engine.held_out import HeldOut, Layers, alone, chosen_by, with_chosen
from platonic_ray.engine.intervals import intervals_of, winner_interval
from platonic_ray.engine.prepare import refuse_twice
from platonic_ray.engine.significance import null_of
from platonic_ray.errors import StudyError
from platonic_ray.kernels import Kernel, zero_rows
from platonic_ray.results import Chosen, LayerInfo, PairScores, Result
from platonic_ray.statistics import (
    ROUNDING,
    SLACK,
    Calibration,
    Groups,
    NeighborSide,
    Null,
    calibrate_best,
    calibrate_pair,
    group_numbers,
    kernel_null_scores,
    permuted_products,
    rows_null_scores,
)
from platonic_ray.study import IntervalsEntry, NullEntry


def table_in_memory(
    xs: Mapping[str, Any],
    ys: Mapping[str, Any] | None,
    names: Sequence[str],
    k: int,
    recipe: str,
    null: NullEntry,
    groups: Any = None,
    intervals: IntervalsEntry | None = None,
    compat: str | None = None,
    choose_layers: Literal["all", "held-out"] = "all",
    interval_groups: Any = None,
) -> Result:
    """Score all models of `xs` against those of `ys`, or among themselves (each with itself too).

    :param choose_layers: on which samples layers are chosen; see `platonic_ray.table`.
    :raises StudyError: for unknown names and options.
    :raises DataError: for features that cannot be compared.
    """
    for side, given in (("xs", xs), ("ys", {} if ys is None else ys)):
        if not isinstance(given, Mapping):
            raise StudyError(f"{side} must map names of models to features (given: {type(given).__name__}).")
    if not names:
        raise StudyError("There are no metrics to score.")
    if not xs or (ys is not None and not ys):
        raise StudyError("There are no models to score.")
    chosen = [metrics_.get_metric(name, compat=compat) for name in names]
    chosen = [metric.with_options({"k": k}) if metric.k is not None else metric for metric in chosen]
    refuse_twice(chosen)
    twice = [name for name in xs if ys is not None and name in ys and xs[name] is not ys[name]]
    if twice:
        raise StudyError(f"The name {twice[0]!r} stands for other features on each side; rename one.")
    models = {**xs, **(ys or {})}
    layers: Layers = {name: metrics_.as_layers(value, f"model {name!r}") for name, value in models.items()}
    n = next(iter(layers.values()))[0].shape[0] if layers else 0
    grouped = None if groups is None else Groups.of("groups", groups, n)
    drawn_groups = None if interval_groups is None else group_numbers("interval_groups", interval_groups, n)
    held_out = HeldOut.of(layers, chosen, choose_layers)
    if held_out is not None:
        layers, n = held_out.reporting, len(held_out.reports)
        grouped = None if groups is None else Groups.of("groups", np.asarray(groups)[held_out.reports], n)
        drawn_groups = (
            None if drawn_groups is None else drawn_groups[held_out.reports].unique(return_inverse=True)[1]
        )
    if drawn_groups is not None and (intervals is None or intervals.target == "none"):
        raise StudyError('interval_groups are for intervals: give intervals = "population" or "queries" too.')
    how = intervals_of(intervals or IntervalsEntry(), chosen, n, 0, drawn_groups)
    pairs = list(combinations_with_replacement(xs, 2)) if ys is None else None
    for metric in chosen:
        metric.check(n)
    drawn, notes = null_of(null, chosen, _different(xs, ys, chosen), n, seed=0, groups=grouped)
    tables: dict[tuple[str, str], metrics_.Neighbors] = {}
    clamps: dict[tuple[str, str], tuple[float, ...]] = {}
    states: dict[Kernel, metrics_.KernelStates] = {}
    row_sums: dict[tuple[str, str, str], metrics_.PairSums] = {}

    def score(of: Layers, **kept: Any) -> list[metrics_.PairScores]:
        sides = {name: of[name] for name in xs}, None if ys is None else {name: of[name] for name in ys}
        return metrics_.score_tables(*sides, chosen, recipe=recipe, pairs=pairs, **kept)

    scored = score(layers, tables=tables, clamps=clamps, kernel_states=states, row_sums=row_sums)
    choices: list[Chosen | None] = [None] * len(scored)
    if held_out is not None:
        choices = [chosen_by(pair) for pair in score(held_out.choosing)]
    labels = dict(zip([metric.label for metric in chosen], labels_of(chosen), strict=True))
    bounds = {name: bound for (_, name), bound in clamps.items()}
    width_of = {name: [rows.shape[1] for rows in stack] for name, stack in layers.items()}
    both = dict.fromkeys((min(pair.x, pair.y), max(pair.x, pair.y)) for pair in scored)
    widths = [(width_of[x], width_of[y]) for x, y in both]
    scored = [
        pair if choice is None else with_chosen(pair, choice, layers, recipe, bounds)
        for pair, choice in zip(scored, choices, strict=True)
    ]
    calibrated: list[Calibration | None] = [None] * len(scored)
    if drawn is not None and held_out is None:
        calibrated = _calibrate(scored, tables, states, row_sums, "x" if ys is None else "y", drawn)
    elif drawn is not None:
        calibrated = [
            _calibrate_alone(pair, choice, layers, recipe, bounds, drawn)
            for pair, choice in zip(scored, choices, strict=True)
        ]
    return Result.from_pairs(
        [
            PairScores(
                metric=labels[pair.metric.label],
                x=pair.x,
                y=pair.y,
                scores=pair.scores,
                status=pair.status,
                n=n,
                k=pair.metric.k,
                chance=pair.metric.chance(n),
                symmetric=pair.metric.symmetric,
                direction=pair.metric.direction,
                compat=pair.metric.compat,
                null=calibration,
                interval=winner_interval(pair, layers, recipe, bounds, how, choice, drawn_groups),
                chosen=choice,
            )
            for pair, calibration, choice in zip(scored, calibrated, choices, strict=True)
        ],
        [
            LayerInfo(
                name, index, str(index), rows.shape[1], zero_rows=_zero_rows(rows, bounds.get(name), index)
            )
            for name, stack in layers.items()
            for index, rows in enumerate(stack)
        ],
        {
            "dataset": {"name": "features", "n": n},
            "recipe": recipe,
            "clamp": {name: list(bound) for name, bound in bounds.items()} or None,
            "compat": compat,
            "null": None if drawn is None else drawn.summary(),
            "intervals": None
            if how is None
            else asdict(how) | ({} if drawn_groups is None else {"groups": "interval_groups"}),
            "layers": {"choose": "all"} if held_out is None else held_out.summary(),
            "notes": [
                *notes,
                *emptied(bounds),
                *full_table_notes(chosen, n, widths),
                *([] if held_out is None else [held_out.note()]),
            ],
        },
    )


def _different(
    xs: Mapping[str, Any], ys: Mapping[str, Any] | None, metrics: Sequence[metrics_.Metric]
) -> int:
    """Return how many pairs of different models are scored, in how many orders."""
    if ys is not None:
        return sum(x != y for x in xs for y in ys)
    both = any(not metric.symmetric for metric in metrics)
    return len(xs) * (len(xs) - 1) // (1 if both else 2)


def _zero_rows(rows: Tensor, bounds: tuple[float, ...] | None, layer: int) -> int:
    """Return how many rows are zero once they are prepared: all, where they are clamped to zero."""
    return rows.shape[0] if bounds is not None and bounds[layer] == 0 else len(zero_rows(rows))


def _calibrate(
    scored: Sequence[metrics_.PairScores],
    tables: Mapping[tuple[str, str], metrics_.Neighbors],
    states: Mapping[Kernel, metrics_.KernelStates],
    row_sums: Mapping[tuple[str, str, str], metrics_.PairSums],
    y_side: str,
    null: Null,
) -> list[Calibration | None]:
    """Set every pair of different models against its null, where there is one."""
    sides = {side: NeighborSide(neighbors) for side, neighbors in tables.items()}
    made: list[Calibration | None] = [None] * len(scored)
    todo: dict[Kernel | None, list[int]] = {}
    for at, pair in enumerate(scored):
        if pair.x != pair.y and null.count(pair.metric):
            todo.setdefault(pair.metric.kernel, []).append(at)
    for kernel, places in todo.items():
        if kernel is None:
            for at in places:
                pair = scored[at]
                if pair.metric.joint is None:
                    sums = row_sums[pair.metric.label, pair.x, pair.y]
                    perms = null.permutations(sums.n, null.count(pair.metric))
                    permuted = rows_null_scores(pair.metric, sums, perms)
                    made[at] = calibrate_best(pair.metric, pair.scores, permuted, null.alpha, ROUNDING)
                    continue
                of_x, of_y = sides["x", pair.x], sides[y_side, pair.y]
                made[at] = calibrate_pair(pair.metric, pair.scores, of_x, of_y, null)
            continue
        state = states[kernel]
        count = max(null.count(scored[at].metric) for at in places)
        n = next(iter(state.of.values())).row_sums.shape[1]
        pairs = dict.fromkeys((("x", scored[at].x), (y_side, scored[at].y)) for at in places)
        inner = permuted_products(state.square, state.layers, list(pairs), null.draws(n, count))
        perms = null.permutations(n, count)
        for at in places:
            metric, (x, y) = scored[at].metric, (("x", scored[at].x), (y_side, scored[at].y))
            some = slice(null.count(metric))
            permuted = kernel_null_scores(metric, inner[x, y][some], state.of[x], state.of[y], perms[some])
            made[at] = calibrate_best(metric, scored[at].scores, permuted, null.alpha, SLACK)
    return made


def _calibrate_alone(
    pair: metrics_.PairScores,
    chosen: Chosen | None,
    layers: Layers,
    recipe: str,
    bounds: Mapping[str, Sequence[float]],
    null: Null,
) -> Calibration | None:
    """Set the score of the layers that other samples chose against its null."""
    if chosen is None or not chosen.known or pair.x == pair.y:
        return None
    tables: dict[tuple[str, str], metrics_.Neighbors] = {}
    states: dict[Kernel, metrics_.KernelStates] = {}
    sums: dict[tuple[str, str, str], metrics_.PairSums] = {}
    kept = {"tables": tables, "kernel_states": states, "row_sums": sums}
    scored = alone(pair, chosen, layers, recipe, bounds, **kept)
    # The metric of two layers alone may have another label.
    one = replace(null, counts={scored.metric.label: null.count(pair.metric)})
    return _calibrate([scored], tables, states, sums, "y", one)[0]
