"""What runs inside Ray's processes: the actor that holds a model, and the tasks on tiles.

Each is a thin wrapper over `platonic_ray.engine.tiles` and `scores`: it opens the store, hands over the Arrow
tables that Ray has already fetched, and reports the times and bytes of what it did. Nothing is
retried by Ray itself (`max_retries=0`): the scheduler sees every loss and answers it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import ray

from platonic_ray.engine import features, rows, scores, tiles
from platonic_ray.engine.context import Context
from platonic_ray.engine.features import Blocks, ModelRunner
from platonic_ray.plan import (
    Clamp,
    Embed,
    KernelTile,
    NeighborBlock,
    NeighborTile,
    PermutedKernel,
    RowState,
    Scale,
    Score,
)

# Which object arguments a task was given, in their order: a shard or task, and how many tables it has.
Slots = tuple[tuple[Any, int], ...]


def _where() -> dict[str, Any]:
    return {"node": ray.get_runtime_context().get_node_id()[:8], "pid": os.getpid()}


def _given(slots: Slots, tables: tuple[pa.Table, ...]) -> dict[Any, tuple[pa.Table, ...]]:
    """Undo the flattening of object arguments."""
    given, at = {}, 0
    for owner, count in slots:
        given[owner] = tables[at : at + count]
        at += count
    return given


class _ModelActor:
    """Holds one loaded model; embeds shard after shard, committing before it yields."""

    def __init__(self, context: Context, model: int) -> None:
        self._runner = ModelRunner(context, model)

    def describe(self) -> dict[str, Any]:
        """Load the model; return its layers, the seconds it took, and where it lives."""
        start = time.time()
        layers = self._runner.load()
        return {
            "start": start,
            "end": time.time(),
            "layers": layers,
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
            **_where(),
        }

    @ray.method(num_returns="streaming")
    def embed(self, shard: int) -> Iterator[pa.Table | dict[str, Any]]:
        """Yield one Arrow table a layer, each already durable, and last what there is to report."""
        start = time.time()
        for item in self._runner.embed(shard):
            yield (
                item
                if isinstance(item, pa.Table)
                else {"start": start, "end": time.time(), **item, **_where()}
            )


ModelActor: Any = ray.remote(max_restarts=0, max_task_retries=0)(_ModelActor)


@ray.remote(max_retries=0, num_returns=2)
def clamp(context: Context, task: Clamp, slots: Slots, *tables: pa.Table) -> tuple[dict[str, Any], pa.Table]:
    """Find and commit what the recipe clamps a model's layers to. It is handed no features."""
    start = time.time()
    result = features.clamp(context, task)
    return {"start": start, "end": time.time(), **_where()}, result


@ray.remote(max_retries=0, num_returns=2)
def neighbor_tile(
    context: Context, task: NeighborTile, slots: Slots, *tables: pa.Table
) -> tuple[dict[str, Any], pa.Table]:
    """Compute a tile's neighbors. Returns a report and the partial top-k."""
    start = time.time()
    blocks = Blocks(context, _given(slots, tables))
    result = tiles.neighbor_tile(context, task, blocks)
    return {"start": start, "end": time.time(), **blocks.bytes_read(), **_where()}, result


@ray.remote(max_retries=0, num_returns=2)
def neighbor_block(
    context: Context, task: NeighborBlock, slots: Slots, *tables: pa.Table
) -> tuple[dict[str, Any], pa.Table]:
    """Merge a block's tiles and commit its neighbors."""
    start = time.time()
    partials = {tile: found[0] for tile, found in _given(slots, tables).items()}
    result = tiles.neighbor_block(context, task, partials)
    return {"start": start, "end": time.time(), "bytes_out": result.nbytes, **_where()}, result


@ray.remote(max_retries=0, num_returns=2)
def kernel_tile(
    context: Context, task: KernelTile, slots: Slots, *tables: pa.Table
) -> tuple[dict[str, Any], pa.Table]:
    """Compute and commit a tile's kernel sums for every pair of the task."""
    start = time.time()
    given = _given(slots, tables)
    blocks = Blocks(context, given)
    scales = {owner: found[0] for owner, found in given.items() if isinstance(owner, Scale)}
    result = tiles.kernel_tile(context, task, blocks, scales)
    return {"start": start, "end": time.time(), **blocks.bytes_read(), **_where()}, result


@ray.remote(max_retries=0, num_returns=2)
def permuted_kernel(
    context: Context, task: PermutedKernel, slots: Slots, *tables: pa.Table
) -> tuple[dict[str, Any], pa.Table]:
    """Compute and commit a kernel's inner products under permutations for every pair of models."""
    start = time.time()
    given = _given(slots, tables)
    blocks = Blocks(context, given)
    scales = {owner: found[0] for owner, found in given.items() if isinstance(owner, Scale)}
    result = tiles.permuted_kernel(context, task, blocks, scales)
    return {"start": start, "end": time.time(), **blocks.bytes_read(), **_where()}, result


@ray.remote(max_retries=0, num_returns=2)
def scale(context: Context, task: Scale, slots: Slots, *tables: pa.Table) -> tuple[dict[str, Any], pa.Table]:
    """Find and commit the median distances of a model's layers."""
    start = time.time()
    blocks = Blocks(context, _given(slots, tables))
    result = tiles.scale(context, task, blocks)
    return {"start": start, "end": time.time(), **blocks.bytes_read(), **_where()}, result


@ray.remote(max_retries=0, num_returns=2)
def row_state(
    context: Context, task: RowState, slots: Slots, *tables: pa.Table
) -> tuple[dict[str, Any], pa.Table]:
    """Make the states of a model's layers. Returns a report and the states.

    Of a shard it is given the tables of `wanted_layers`, in their order.
    """
    start = time.time()
    wanted = rows.wanted_layers(context.metrics, Blocks(context).layers_of(task.model))
    given = _given(slots, tables)
    layers = {
        need: dict(zip(wanted, found, strict=True))
        for need, found in given.items()
        if isinstance(need, Embed)
    }
    others = {need: found for need, found in given.items() if not isinstance(need, Embed)}
    blocks = Blocks(context, others, layers)
    result = rows.row_state(context, task, blocks)
    return {"start": start, "end": time.time(), **blocks.bytes_read(), **_where()}, result


@ray.remote(max_retries=0, num_returns=2)
def score(context: Context, task: Score, slots: Slots, *tables: pa.Table) -> tuple[dict[str, Any], pa.Table]:
    """Score every layer pair of two models under every metric."""
    start = time.time()
    given = {owner: found[0] for owner, found in _given(slots, tables).items()}
    result = scores.score_pair(context, task, given)
    return {"start": start, "end": time.time(), **_where()}, result


RUN: dict[type, Any] = {
    Clamp: clamp,
    NeighborTile: neighbor_tile,
    NeighborBlock: neighbor_block,
    Scale: scale,
    KernelTile: kernel_tile,
    PermutedKernel: permuted_kernel,
    RowState: row_state,
    Score: score,
}
