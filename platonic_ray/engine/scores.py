"""What a score task does: two models' neighbors and sums become scores, set against their null.

What it is not handed as Arrow tables it reads from the store; what is in neither it names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from platonic_ray.engine.context import Context, MissingInputError
from platonic_ray.engine.expanded import of_samples, owners_of
from platonic_ray.engine.features import Blocks, read_parts
from platonic_ray.engine.intervals import tensor_of
from platonic_ray.engine.products import range_of
from platonic_ray.engine.rows import ScoreStates
from platonic_ray.engine.tiles import UNARY, layer_digest, level_of
from platonic_ray.engine.winners import grow_winner, only
from platonic_ray.kernels import Kernel, TileSums, merge_tree, whole_sums
from platonic_ray.metrics import (
    Metric,
    Neighbors,
    PairSums,
    Tables,
    cells_of,
    kernel_rows,
    neighbor_pair,
    ordered_inner,
    resolve_winners,
)
from platonic_ray.plan import KernelProducts, KernelTile, NeighborBlock, PermutedKernel, Score, Task
from platonic_ray.results import Chosen
from platonic_ray.statistics import (
    ROUNDING,
    SLACK,
    Calibration,
    Interval,
    Layer,
    NeighborSide,
    calibrate_best,
    calibrate_pair,
    interval_of_layers,
    kernel_null_scores,
    queries_interval,
    rows_null_scores,
    undefined_interval,
)
from platonic_ray.store import table_arrays

Arrays = Mapping[tuple[int, int], Mapping[str, np.ndarray]]
"""What is kept of kernels, by pair of models and name."""

CALIBRATION = tuple(field.name for field in fields(Calibration))
"""The columns of a score table that hold a `Calibration`."""


def score_pair(context: Context, task: Score, given: Mapping[Task, pa.Table]) -> pa.Table:
    """Score every layer pair of two models under every metric.

    A table with a row for each metric and order of the models: `metric`, `x` and `y` (positions in the
    study), `scores` (flat, `[Lx · Ly]` float64) and `status` (one text or null a layer pair); `p`,
    `threshold` and `calibrated` (float64) set the best score against its null, and are null for a model
    with itself and for a metric without. `interval_low`, `interval_high` (float64), `interval_target`,
    `interval_method` (text) and `interval_halves` (a list) are that of the best score, null where there is
    none. `growth` is a list of the rows that `grow_winner` returns. The table is committed: it is read again
    (`kept_scores`) when other models have joined the study.

    :raises MissingInputError: naming blocks and tiles that cannot be had.
    """
    inputs = _ScoreInputs(context, task, given)
    made: Tables = {}
    # The rows family may ask for the layers where another metric is best.
    for metric in sorted(context.metrics, key=lambda metric: metric.family == "rows"):
        for x, y in metric.orders(task.x, task.y):
            made[metric.label, x, y] = metric.score(inputs.sums_for(metric, x, y, made))
    rows = []
    for position, metric in enumerate(context.metrics):
        for x, y in metric.orders(task.x, task.y):
            values, status = made[metric.label, x, y]
            flat = [cell for line in status for cell in line]
            null = inputs.calibrate(metric, values, x, y, made)
            hows = [how for at, how in context.curves if at == position and x != y]
            chosen = inputs.chosen(metric, x, y)
            among = values if chosen is None else only(values, chosen)
            sides = partial(inputs.layer, x), partial(inputs.layer, y)
            growth = grow_winner(metric, hows, among, *sides, tensor_of(context.growth_groups))
            interval = inputs.interval(metric, values, x, y)
            rows.append(
                {
                    **{"metric": position, "x": x, "y": y, "scores": values.ravel(), "status": flat},
                    "growth": growth,
                    **{name: None if null is None else getattr(null, name) for name in CALIBRATION},
                    **{
                        f"interval_{name}": value
                        for name, value in (vars(interval) if interval else {}).items()
                    },
                }
            )
    table = pa.Table.from_pylist(rows, _SCORES)
    for kind, key in context.plan.artifacts(task):
        context.store.put(kind, key, {"scores": table}, {"models": [task.x, task.y]})
    return table


def kept_scores(context: Context, task: Score) -> pa.Table | None:
    """Return what `score_pair` committed, with the places that models have in this study; None if damaged."""
    (artifact,) = context.plan.artifacts(task)
    manifest = context.store.manifest(*artifact)
    parts = None if manifest is None else read_parts(context, manifest)
    if manifest is None or parts is None:
        return None
    then = manifest.meta["models"]
    now = dict(zip(then, (task.x, task.y), strict=True))
    (table,) = parts
    for name in ("x", "y"):
        places = pa.array([now[place] for place in table.column(name).to_pylist()], pa.int64())
        table = table.set_column(table.schema.get_field_index(name), name, places)
    return table


_SCORES = pa.schema(
    {
        "metric": pa.int64(),
        "x": pa.int64(),
        "y": pa.int64(),
        "scores": pa.list_(pa.float64()),
        "status": pa.list_(pa.string()),
        **dict.fromkeys(CALIBRATION, pa.float64()),
        "growth": pa.list_(
            pa.struct(
                {
                    **dict.fromkeys(("layer_x", "layer_y", "queries", "size", "k"), pa.int64()),
                    **dict.fromkeys(("protocol", "target", "status"), pa.string()),
                    **dict.fromkeys(("score", "standard_error", "chance"), pa.float64()),
                }
            )
        ),
        **dict.fromkeys(("interval_low", "interval_high"), pa.float64()),
        **dict.fromkeys(("interval_target", "interval_method"), pa.string()),
        "interval_halves": pa.list_(pa.float64()),
    }
)


class _ScoreInputs:
    """Neighbors, kernel sums and states of two models, from the objects given, else from the store."""

    def __init__(self, context: Context, task: Score, given: Mapping[Task, pa.Table]) -> None:
        self._context, self._task, self._given = context, task, given
        plan = context.plan
        models = tuple(dict.fromkeys((task.x, task.y)))
        pairs = tuple(dict.fromkeys(((task.x, task.y), *((model, model) for model in models))))
        missing: list[Task] = []
        self._neighbors: dict[int, Neighbors] = {}
        for model in models if plan.k else ():
            blocks = [NeighborBlock(model, a) for a in range(len(plan.blocks))]
            tables = [self._block(block) for block in blocks]
            missing += [block for block, table in zip(blocks, tables, strict=True) if table is None]
            if not missing:
                found = _stack_blocks([table for table in tables if table is not None])
                owners = context.owners
                self._neighbors[model] = (
                    found if owners is None else of_samples(found, owners_of(owners), context.k or 0)
                )
        self._roots: dict[Kernel, TileSums] = {}
        for kernel in plan.kernels:
            root = self._root(kernel, pairs, missing)
            if root is not None:
                self._roots[kernel] = root
        products: dict[Kernel, list[Tensor]] = {}
        for part in plan.permuted if task.x != task.y else ():
            array = self._permuted_of(part)
            if array is None:
                missing.append(part)
            else:
                products.setdefault(part.kernel, []).append(torch.tensor(array))
        try:
            self._states = ScoreStates(context, models, given)
        except MissingInputError as error:
            missing += error.tasks
        if missing:
            raise MissingInputError(missing)
        self._permuted = {kernel: torch.cat(parts) for kernel, parts in products.items()}
        self._sides = {model: NeighborSide(found) for model, found in self._neighbors.items()}
        self._layers: dict[tuple[int, int], Layer] = {}
        self._winners = resolve_winners(context.metrics)

    def sums_for(self, metric: Metric, x: int, y: int, made: Tables) -> PairSums:
        """Return what one metric needs of the pair, in one order of its models.

        :param made: the scores of the metrics that are not of the rows family.
        """
        n = self._context.plan.n
        if metric.family == "rows":
            shape = (self._states.layers_of(x), self._states.layers_of(y))
            cells = cells_of(metric, self._winners, made, x, y, shape)
            chosen = self.chosen(metric, x, y)
            if chosen is not None and chosen.known:
                cells = tuple(dict.fromkeys((*cells, (chosen.layer_x, chosen.layer_y))))
            return PairSums(n, states=self._states.of(metric, x, y, cells))
        if metric.joint is not None:
            return neighbor_pair(metric, self._neighbors[x], self._neighbors[y])
        assert metric.kernel is not None
        root = self._roots[metric.kernel]
        rows = kernel_rows(root)
        return PairSums(n, inner=ordered_inner(root.inner, x, y), x=rows[x], y=rows[y])

    def chosen(self, metric: Metric, x: int, y: int) -> Chosen | None:
        """Return the layers that other samples chose; None where these do."""
        choices = self._context.choices
        return None if choices is None else choices[self._context.metrics.index(metric), x, y]

    def calibrate(
        self, metric: Metric, scores: np.ndarray, x: int, y: int, made: Tables
    ) -> Calibration | None:
        """Set the score of two different models against its null; None where there is none."""
        null, chosen = self._context.null, self.chosen(metric, x, y)
        if null is None or x == y or not null.count(metric) or (chosen is not None and not chosen.known):
            return None
        i, j = (slice(None),) * 2 if chosen is None else ([chosen.layer_x], [chosen.layer_y])
        scores = scores[i][:, j]
        if metric.joint is not None:
            of_x, of_y = self._sides[x], self._sides[y]
            if chosen is not None:
                of_x, of_y = (NeighborSide(of.neighbors.some(at)) for of, at in ((of_x, i), (of_y, j)))
            return calibrate_pair(metric, scores, of_x, of_y, null)
        count = null.count(metric)
        perms = null.permutations(self._context.plan.n, count)
        if metric.kernel is None:
            sums = self.sums_for(metric, x, y, made)
            if chosen is not None:
                assert sums.states is not None
                sums = replace(sums, states=replace(sums.states, cells=((chosen.layer_x, chosen.layer_y),)))
            permuted = rows_null_scores(metric, sums, perms)
            return calibrate_best(metric, scores, permuted, null.alpha, ROUNDING)
        rows = kernel_rows(self._roots[metric.kernel])
        inner = self._permuted[metric.kernel][:count][:, i][:, :, j]
        permuted = kernel_null_scores(metric, inner, rows[x].some(i), rows[y].some(j), perms)
        return calibrate_best(metric, scores, permuted, null.alpha, SLACK)

    def layer(self, model: int, layer: int) -> Layer:
        """Return a layer of one of the models, all samples, prepared."""
        if (model, layer) not in self._layers:
            rows = Blocks(self._context).layer(model, layer)
            self._layers[model, layer] = Layer(rows, layer_digest(self._context, model, layer))
        return self._layers[model, layer]

    def interval(self, metric: Metric, scores: np.ndarray, x: int, y: int) -> Interval | None:
        """Return the interval of the score of two different models; None where there is none.

        :raises MissingInputError: naming the shards that hold the best layers and cannot be had.
        """
        how = self._context.intervals
        if how is None or x == y or not how.has(metric):
            return None
        groups = tensor_of(self._context.interval_groups)
        chosen = self.chosen(metric, x, y)
        i, j = metric.best(scores)[1:] if chosen is None else (chosen.layer_x, chosen.layer_y)
        if i < 0 or np.isnan(scores[i, j]):
            return undefined_interval(how)
        if how.target == "queries":
            of_x, of_y = self._neighbors[x].some([i]), self._neighbors[y].some([j])
            made = queries_interval(metric, of_x, of_y, how.level, groups)
        else:
            score = float(scores[i, j])
            made = interval_of_layers(metric, score, self.layer(x, i), self.layer(y, j), how, groups)
        if scores.size == 1:
            return made
        return made.given_layers() if chosen is None else made.held_out_layers()

    def _block(self, block: NeighborBlock) -> pa.Table | None:
        key = self._context.plan.neighbors_key(block.model, block.a)
        return self._given.get(block) or self._from_store("neighbors", key)

    def _root(self, kernel: Kernel, pairs: Sequence[tuple[int, int]], missing: list[Task]) -> TileSums | None:
        """Return a kernel's sums over all rows; None, and their tasks added to `missing`, if some cannot be had."""
        plan = self._context.plan

        def parts(tasks: Sequence[KernelTile | KernelProducts]) -> list[Arrays]:
            found = [{pair: self._kernels(task, *pair) for pair in pairs} for task in tasks]
            whole = [{pair: arrays for pair, arrays in of.items() if arrays is not None} for of in found]
            missing.extend(task for task, of in zip(tasks, whole, strict=True) if len(of) < len(pairs))
            return list(whole)

        if plan.by_products(kernel):
            ranges = parts([KernelProducts(kernel, part) for part in range(len(plan.ranges))])
            return None if missing else whole_sums([range_of(of) for of in ranges], pairs)
        tiles, level = parts([KernelTile(a, b, kernel) for a, b in plan.tiles]), level_of(self._context)
        if missing:
            return None
        sums = [_tile_sums(level, a, b, of) for (a, b), of in zip(plan.tiles, tiles, strict=True)]
        return merge_tree(sums, plan.n)

    def _kernels(self, task: KernelTile | KernelProducts, x: int, y: int) -> dict[str, np.ndarray] | None:
        plan, table = self._context.plan, self._given.get(task)
        prefix = f"{x}.{y}."
        if table is not None:
            arrays = table_arrays(table)
            of_pair = {
                name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)
            }
            if of_pair:
                return of_pair
        if isinstance(task, KernelProducts):
            key = plan.products_key(task, x, y)
        else:
            key = plan.kernels_key(task.a, task.b, task.kernel, x, y)
        stored = self._from_store("kernels", key)
        return None if stored is None else table_arrays(stored)

    def _permuted_of(self, part: PermutedKernel) -> np.ndarray | None:
        x, y = self._task.x, self._task.y
        table = self._given.get(part)
        found = None if table is None else table_arrays(table).get(f"{x}.{y}")
        if found is not None:
            return found
        stored = self._from_store("permuted", self._context.plan.permuted_key(part, x, y))
        return None if stored is None else table_arrays(stored)["products"]

    def _from_store(self, kind: str, key: str) -> pa.Table | None:
        manifest = self._context.store.manifest(kind, key)
        parts = None if manifest is None else read_parts(self._context, manifest)
        return parts[0] if parts else None


def _stack_blocks(tables: Sequence[pa.Table]) -> Neighbors:
    arrays = [table_arrays(table) for table in tables]
    return Neighbors(
        **{
            name: torch.from_numpy(np.concatenate([array[name] for array in arrays], axis=1))
            for name in arrays[0]
        }
    )


def _tile_sums(level: int, a: int, b: int, arrays: Arrays) -> TileSums:
    """Put the sums of a tile together again; a model with itself holds its unary sums."""
    unary = {
        name: {x: torch.tensor(found[name]) for (x, y), found in arrays.items() if x == y and name in found}
        for name in UNARY
    }
    inner = {pair: torch.tensor(found["inner"]) for pair, found in arrays.items()}
    return TileSums(level=level, a=a, b=b, inner=inner, **unary)
