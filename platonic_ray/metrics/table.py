"""Scores of representations that are in memory: the plainest run, and the oracle of all others.

Unary states are made once a representation, joint sums once a pair of models, both by the functions
that an out-of-core run and the tasks of a cluster call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, product
from typing import Any

import numpy as np
from torch import Tensor

from platonic_ray.errors import DataError, StudyError
from platonic_ray.kernels import (
    Kernel,
    as_rows,
    each,
    require_finite,
    require_recipe,
)
from platonic_ray.metrics.base import Metric, Scored, Status, flag_zero_rows
from platonic_ray.metrics.cka import ordered_inner
from platonic_ray.metrics.heap import give_back
from platonic_ray.metrics.kernel_tables import KernelStates, KernelTables, Side, cells_fit
from platonic_ray.metrics.knn import neighbor_pair
from platonic_ray.metrics.registry import get_metric
from platonic_ray.metrics.rows import (
    asked_cells,
    make_state,
    resolve_winners,
    state_key,
    states_for,
    winners_of,
)
from platonic_ray.metrics.states import Neighbors, PairSums, State
from platonic_ray.metrics.unary import ModelState, Wanted, kernels_of, model_state, rows_digest
from platonic_ray.study import MetricEntry


@dataclass(frozen=True)
class PairScores:
    """One metric over all layer pairs of one pair of models.

    `scores` `[Lx, Ly] float64`, NaN where undefined; `status` says why, or what else is to be known.
    """

    metric: Metric
    x: str
    y: str
    scores: np.ndarray
    status: Status

    def best(self) -> tuple[float, int, int]:
        """Return the best score and its layers (i of x, j of y); see `best`."""
        return self.metric.best(self.scores)


def score_tables(
    xs: Mapping[str, Any],
    ys: Mapping[str, Any] | None = None,
    metrics: Sequence[Metric | MetricEntry | str] = ("mutual_knn",),
    *,
    recipe: str = "l2",
    pairs: Iterable[tuple[str, str]] | None = None,
    digests: Mapping[str, Sequence[str]] | None = None,
    tables: dict[Side, Neighbors] | None = None,
    clamps: dict[Side, tuple[float, ...]] | None = None,
    kernel_states: dict[Kernel, KernelStates] | None = None,
    row_sums: dict[tuple[str, str, str], PairSums] | None = None,
) -> list[PairScores]:
    """Score every layer pair of pairs of models.

    :param xs: the layers of every model: a sequence of matrices `[n, D_l]`, one matrix `[n, D]`, or
        one array `[n, L, D]`; numpy or torch; or a function that returns one of these, which is called
        once, when the model's turn has come, so that features need not be in memory all at once (but for
        metrics of the rows family, and of kernels of many samples, which go on with the rows of all).
        Rows are paired across all models.
    :param ys: the models to score `xs` against; None scores the models of `xs` among themselves.
    :param pairs: the pairs wanted, as names (of `xs`, of `ys`); by default all of `xs` × `ys`, and
        without `ys` every two different models of `xs` once. Without `ys`, a metric that is not
        symmetric scores a pair in both orders.
    :param digests: digests of the representations by model name, a layer each, that seed their tie
        rules (for both sides); by default those of their prepared rows.
    :param tables: a dictionary that receives the neighbors of every model, for those who go on with them.
    :param clamps: a dictionary that receives what the recipe clamped the layers of every model to, where it
        does: over all rows, and over all layers of a model whose layers have one width.
    :param kernel_states: one that receives what every kernel was made from.
    :param row_sums: one that receives the states of metrics of the rows family, by label and models.
    :returns: pair by pair, and of a pair metric by metric, in the order given.
    :raises StudyError: if a metric, option, recipe or pair is unknown, or n is too small for a metric.
    :raises DataError: if features are no finite matrices of equally many rows.
    """
    wanted = [get_metric(metric) for metric in metrics]
    y_side = "x" if ys is None else "y"
    given = {("x", name): value for name, value in xs.items()}
    given |= {("y", name): value for name, value in (ys or {}).items()}
    todo = _pairs(xs, ys, y_side, pairs)
    if not given:
        raise StudyError("There are no models to score.")
    require_recipe(recipe)
    winners = resolve_winners(wanted)
    # All that is at hand is checked before any work is spent.
    ready = {side: _layers(side, value) for side, value in given.items() if not callable(value)}
    n = _samples(ready, wanted)
    sums: KernelTables | None = None
    states: dict[Side, ModelState] = {}
    for side, value in given.items():
        stack = ready.get(side) or _layers(side, value())
        n = _samples({**ready, side: stack}, wanted, n)
        if sums is None:
            by_cells = cells_fit(n, kernels_of(wanted), ready.values() if len(ready) == len(given) else None)
            sums = KernelTables(n, todo, keep=kernel_states is not None)
            needs = Wanted.of(wanted, by_cells)
            needs = needs if tables is None else replace(needs, ordered=True)
        state = model_state(stack, recipe, needs, (digests or {}).get(side[1]))
        sums.add_cells(side, state.cells)
        states[side] = replace(state, cells={})
        del stack, state  # before the next is made
        give_back()
    found = {side: state.neighbors for side, state in states.items() if state.neighbors is not None}
    rows = {side: state.rows for side, state in states.items()}
    zeros = {side: state.zeros for side, state in states.items()}
    if tables is not None:
        tables.update(found)
    if clamps is not None:
        clamps.update({side: state.bounds for side, state in states.items() if state.bounds is not None})
    assert sums is not None
    kernels = {kernel: sums.of(kernel, rows) for kernel in kernels_of(wanted)}
    if kernel_states is not None:
        kernel_states.update({kernel: states for kernel, (_, states) in kernels.items()})

    def scored(cell: tuple[Metric, Side, Side]) -> PairScores:
        metric, a, b = cell
        if metric.joint is not None:
            sums = neighbor_pair(metric, found[a], found[b])
        else:
            assert metric.kernel is not None
            inner, of_kernel = kernels[metric.kernel]
            sums = PairSums(n, None, ordered_inner(inner, a, b), of_kernel.of[a], of_kernel.of[b])
        scores, status = metric.score(sums)
        return PairScores(metric, a[1], b[1], scores, flag_zero_rows(status, zeros[a], zeros[b]))

    orders = [
        (metric, a, b)
        for x, y in todo
        for metric in wanted
        for a, b in (metric.orders(x, y) if ys is None else ((x, y),))
    ]
    plain = [cell for cell in orders if cell[0].family != "rows"]
    made = dict(zip(map(_place, plain), each(scored, plain), strict=True))
    if len(plain) < len(orders):
        others = [cell for cell in orders if cell[0].family == "rows"]
        tables_so_far = {place: (table.scores, table.status) for place, table in made.items()}
        cells = {
            _place(cell): cells_of(cell[0], winners, tables_so_far, *cell[1:], _shape(rows, *cell[1:]))
            for cell in others
        }
        row_states = _row_states(others, cells, rows, digests or {})

        def scored_rows(cell: tuple[Metric, Side, Side]) -> PairScores:
            metric, a, b = cell
            of_x, of_y = (
                partial(lambda key, side, layer: row_states[side, layer, *key], state_key(metric), side)
                for side in (a, b)
            )
            states_of = states_for(cells[_place(cell)], _shape(rows, a, b), of_x, of_y)
            sums = PairSums(n, states=states_of)
            if row_sums is not None:
                row_sums[metric.label, a[1], b[1]] = sums
            scores, status = metric.score(sums)
            return PairScores(metric, a[1], b[1], scores, flag_zero_rows(status, zeros[a], zeros[b]))

        made |= dict(zip(map(_place, others), each(scored_rows, others), strict=True))
    return [made[_place(cell)] for cell in orders]


Tables = dict[tuple[str, Any, Any], Scored]
"""The scores of a pair of models so far, by metric label and order of the models."""


def cells_of(
    metric: Metric, winners: Mapping[str, Metric], made: Tables, x: Any, y: Any, shape: tuple[int, int]
) -> tuple[tuple[int, int], ...]:
    """Return the layer pairs that a metric of the rows family is asked for, of models x and y.

    :param winners: of `resolve_winners`, whose tables, in either order of the models, are in `made`.
    """
    wanted = winners_of(metric)
    if wanted is None:
        return asked_cells(metric, shape)
    other = winners[wanted]
    if (other.label, x, y) in made:
        _, i, j = other.best(made[other.label, x, y][0])
    else:
        _, j, i = other.best(made[other.label, y, x][0])
    return asked_cells(metric, shape, (i, j))


def _place(cell: tuple[Metric, Side, Side]) -> tuple[str, Side, Side]:
    return cell[0].label, cell[1], cell[2]


def _shape(rows: Mapping[Side, Sequence[Tensor]], x: Side, y: Side) -> tuple[int, int]:
    return len(rows[x]), len(rows[y])


def _row_states(
    orders: Sequence[tuple[Metric, Side, Side]],
    cells: Mapping[tuple[str, Side, Side], Sequence[tuple[int, int]]],
    rows: Mapping[Side, Sequence[Tensor]],
    digests: Mapping[str, Sequence[str]],
) -> dict[tuple[Any, ...], State]:
    """Return the states of all layers that are asked for, by side, layer and `state_key`, each made once."""
    needed: dict[tuple[Any, ...], tuple[Metric, Side, int]] = {}
    for metric, a, b in orders:
        for i, j in cells[metric.label, a, b]:
            for side, layer in ((a, i), (b, j)):
                needed[side, layer, *state_key(metric)] = (metric, side, layer)

    def make(wanted: tuple[Metric, Side, int]) -> State:
        metric, side, layer = wanted
        seeds = digests.get(side[1])
        layer_rows = rows[side][layer]
        return make_state(metric, layer_rows, seeds[layer] if seeds else rows_digest(layer_rows))

    return dict(zip(needed, each(make, needed.values()), strict=True))


def score(
    x: Any,
    y: Any,
    metric: Metric | str = "mutual_knn",
    k: int | None = None,
    recipe: str = "l2",
    compat: str | None = None,
    **options: Any,
) -> float:
    """Return the score of two representations `[n, D]`; of two layer stacks, their best layer pair.

    `k`, where given, goes to metrics that have it. NaN where the metric is undefined on these numbers.
    Under `compat`, two matrices are scored as the reference's metrics do, stacks as its `compute_score`.

    :raises StudyError: as `score_tables`.
    :raises DataError: as `score_tables`.
    """
    chosen = get_metric(metric, compat=compat, **options)
    if k is not None and "k" in chosen.options:
        chosen = get_metric(chosen, k=k)
    if not chosen.compat:
        return score_tables({"x": x}, {"y": y}, [chosen], recipe=recipe)[0].best()[0]
    # In the reference, a table of (x, y) scores its pairs as (y, x).
    (table,) = score_tables({"y": y}, {"x": x}, [chosen], recipe=recipe)
    matrices = all(getattr(side, "ndim", None) == 2 for side in (x, y))
    return float(table.scores[0, 0]) if matrices else table.best()[0]


def as_layers(value: Any, name: str) -> list[Tensor]:
    """Return a model's layers as finite `[n, D_l] float32` rows; see `score_tables` for the forms.

    :raises DataError: naming the model, the layer and the rows that cannot be used.
    """
    if hasattr(value, "ndim"):
        value = [value] if value.ndim < 3 else [value[:, layer] for layer in range(value.shape[1])]
    if isinstance(value, str | Mapping) or not (hasattr(value, "__len__") and hasattr(value, "__getitem__")):
        raise DataError(
            f"{name} must be an array [N, D] or [N, L, D], or a list of [N, D_l] (given: {type(value).__name__})."
        )
    if len(value) == 0:
        raise DataError(f"{name} has no layers.")
    layers = []
    for index, layer in enumerate(value):
        where = f"{name}, layer {index}"
        rows = as_rows(layer, where)
        require_finite(rows, where)
        layers.append(rows)
    return layers


def _layers(side: Side, value: Any) -> list[Tensor]:
    return as_layers(value, f"model {side[1]!r}")


def _pairs(
    xs: Mapping[str, Any], ys: Mapping[str, Any] | None, y_side: str, pairs: Iterable[tuple[str, str]] | None
) -> list[tuple[Side, Side]]:
    against = xs if ys is None else ys
    if pairs is None:
        pairs = combinations(xs, 2) if ys is None else product(xs, ys)
    pairs = list(pairs)
    unknown = [name for x, y in pairs for name, of in ((x, xs), (y, against)) if name not in of]
    if unknown:
        raise StudyError(
            f"There is no model {unknown[0]!r}; known: {', '.join(dict.fromkeys([*xs, *against]))}."
        )
    return [(("x", x), (y_side, y)) for x, y in pairs]


def _samples(
    layers: Mapping[Side, Sequence[Tensor]], metrics: Sequence[Metric], known: int | None = None
) -> int:
    """Return how many samples all layers have, or `known` if there are none; refuse what is undefined."""
    counts = {(side, i): rows.shape[0] for side, stack in layers.items() for i, rows in enumerate(stack)}
    n = next(iter(counts.values()), known)
    if n is None:
        return 0
    if set(counts.values()) - {n} or known not in (None, 0, n):
        listed = ", ".join(f"{side[1]!r} layer {i}: {n}" for (side, i), n in list(counts.items())[:20])
        raise DataError(f"All representations need the same samples, row by row; rows found: {listed}.")
    for metric in metrics:
        metric.check(n)
    return n
