"""States of the rows family in a run: made once a model, handed to its score tasks as one Arrow table.

What they are made of are whole layers, of which only those asked for are read. A state lives as an
object only: it takes less to make it again than to store it. Where a metric asks for the layers at
which another is best, no task before the score knows them, and the score task makes their states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import torch
from torch import Tensor

from platonic_ray.engine.context import Context, MissingInputError
from platonic_ray.engine.features import Blocks
from platonic_ray.engine.tiles import layer_digest
from platonic_ray.metrics import LayerStates, Metric, State, asked_layers, make_state, state_key, winners_of
from platonic_ray.metrics.rows import states_for
from platonic_ray.plan import RowState, Task
from platonic_ray.store import arrays_table, table_arrays


def wanted_layers(metrics: Sequence[Metric], count: int) -> tuple[int, ...]:
    """Return the layers, of a model of `count`, of which a `RowState` task makes any state."""
    static = [metric for metric in metrics if metric.family == "rows" and winners_of(metric) is None]
    return tuple(sorted({layer for metric in static for layer in asked_layers(metric, count)}))


def row_state(context: Context, task: RowState, blocks: Blocks) -> pa.Table:
    """Return the states of a model's layers: arrays named `metric.layer.name`, metric a position.

    A state that several metrics share goes by the first of them.
    """
    count = blocks.layers_of(task.model)
    arrays = {}
    for layer in wanted_layers(context.metrics, count):
        rows = blocks.layer(task.model, layer)
        for position, metric in enumerate(context.metrics):
            static = metric.family == "rows" and winners_of(metric) is None
            if static and layer in asked_layers(metric, count) and _first(context, metric) == position:
                state = make_state(metric, rows, layer_digest(context, task.model, layer))
                arrays.update({f"{position}.{layer}.{name}": part.numpy() for name, part in state.items()})
    return arrays_table(arrays)


class ScoreStates:
    """The states that a score task needs of its two models: from the tables given, else made here.

    :raises MissingInputError: naming the `RowState` tasks whose tables are not given.
    """

    def __init__(self, context: Context, models: Sequence[int], given: Mapping[Task, pa.Table]) -> None:
        self._context, self._blocks = context, Blocks(context)
        self._made: dict[tuple[int, int, int], dict[str, Tensor]] = {}
        self._layers: dict[int, int] = {}
        missing: list[Task] = []
        for model in models:
            table = given.get(RowState(model))
            if table is None and context.plan.states:
                missing.append(RowState(model))
            elif table is not None:
                self._unpack(model, table)
        if missing:
            raise MissingInputError(missing)

    def layers_of(self, model: int) -> int:
        """Return the number of layers of a model."""
        if model not in self._layers:
            self._layers[model] = self._blocks.layers_of(model)
        return self._layers[model]

    def of(self, metric: Metric, x: int, y: int, cells: Sequence[tuple[int, int]]) -> LayerStates:
        """Return the states of two models that a metric needs for some layer pairs.

        :raises MissingInputError: naming shards of features that cannot be had.
        """
        return states_for(
            cells,
            (self.layers_of(x), self.layers_of(y)),
            lambda layer: self._state(metric, x, layer),
            lambda layer: self._state(metric, y, layer),
        )

    def _state(self, metric: Metric, model: int, layer: int) -> State:
        key = (_first(self._context, metric), model, layer)
        if key not in self._made:
            rows = self._blocks.layer(model, layer)
            self._made[key] = dict(make_state(metric, rows, layer_digest(self._context, model, layer)))
        return self._made[key]

    def _unpack(self, model: int, table: pa.Table) -> None:
        for name, array in table_arrays(table).items():
            position, layer, part = name.split(".", 2)
            # A tensor made anew is aligned as it was where the state was made, on which bytes depend.
            self._made.setdefault((int(position), model, int(layer)), {})[part] = torch.tensor(array)


def _first(context: Context, metric: Metric) -> int:
    """Return the position of the first metric that shares this one's states."""
    return next(
        position
        for position, other in enumerate(context.metrics)
        if other.family == "rows" and state_key(other) == state_key(metric)
    )
