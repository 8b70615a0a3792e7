"""What each task of a plan does, in whatever process: one table of functions, one report.

Both engines call `perform`. It takes what it is handed as Arrow tables, reads the rest from the store,
and commits what is durable before it returns.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from types import TracebackType
from typing import Any

import pyarrow as pa

from platonic_ray.engine import features, products, rows, scores, tiles
from platonic_ray.engine.context import Context, MissingInputError
from platonic_ray.engine.features import Blocks
from platonic_ray.engine.footprint import Footprint, resident_bytes
from platonic_ray.plan import (
    Clamp,
    ColumnSums,
    Embed,
    KernelProducts,
    KernelTile,
    NeighborBlock,
    NeighborTile,
    PermutedKernel,
    RowState,
    Scale,
    Score,
    Task,
)
from platonic_ray.store import Manifest, Store

OBJECTS_ONLY = (NeighborTile, RowState)
"""The tasks whose results are not in the store: it takes less to make them again than to keep them."""

TILES = (NeighborTile, KernelTile, KernelProducts, PermutedKernel, RowState)
"""The tasks that progress counts as tiles."""

Given = Mapping[Any, tuple[pa.Table, ...]]


class TimedStore(Store):
    """A store that adds up the seconds spent in it."""

    seconds = 0.0

    def read(self, manifest: Manifest, part: str) -> pa.Table:
        """As of `Store`."""
        start = time.perf_counter()
        try:
            return super().read(manifest, part)
        finally:
            self.seconds += time.perf_counter() - start

    def manifest(self, kind: str, key: str) -> Manifest | None:
        """As of `Store`."""
        start = time.perf_counter()
        try:
            return super().manifest(kind, key)
        finally:
            self.seconds += time.perf_counter() - start

    def write(self, path: str, data: bytes | pa.Buffer) -> None:
        """As of `Store`."""
        start = time.perf_counter()
        try:
            super().write(path, data)
        finally:
            self.seconds += time.perf_counter() - start


class Clock:
    """What a process spends while this is open: `with Clock() as clock: …`."""

    def __init__(self) -> None:
        self._start, self._cpu = time.time(), time.process_time()
        self._footprint = Footprint()

    def __enter__(self) -> Clock:
        self._footprint.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._footprint.__exit__(kind, error, trace)

    def spent(self) -> dict[str, float]:
        """Return `start` and `end` (seconds since the epoch), `cpu_s` of the processor, `peak_bytes`, the most
        private memory that the process has had meanwhile (`footprint`), and `resident_bytes`, the most that it has
        had so far with what it read of shared objects and of files.
        """
        self._footprint.look()
        return {
            "start": self._start,
            "end": time.time(),
            "cpu_s": time.process_time() - self._cpu,
            "peak_bytes": self._footprint.peak_bytes,
            "resident_bytes": resident_bytes(),
        }


@lru_cache(maxsize=4)
def timed_store(uri: str) -> TimedStore:
    """Return this process's store at a URI, with a clock."""
    return TimedStore(uri)


def perform(context: Context, task: Task, given: Given) -> tuple[dict[str, Any], pa.Table]:
    """Do one task other than `Embed`; return a report and its result.

    The report has what `Clock` tells, `store_s` of the store, and the bytes of features read from objects and
    from the store.

    :param given: results of the tasks it reads, as far as they are at hand. Of a shard, a `RowState` is
        given the tables of `wanted_layers`, in their order.
    :raises MissingInputError: naming what is neither given nor in the store.
    """
    store = timed_store(context.store.uri)
    store.seconds = 0.0
    context = replace(context, store=store)
    with Clock() as clock:
        result, read = _DO[type(task)](context, task, given)
        return {**clock.spent(), "store_s": store.seconds, **read}, result


def _clamp(context: Context, task: Clamp, given: Given) -> tuple[pa.Table, dict[str, int]]:
    return features.clamp(context, task), {}


def _neighbor_tile(context: Context, task: NeighborTile, given: Given) -> tuple[pa.Table, dict[str, int]]:
    blocks = Blocks(context, given)
    return tiles.neighbor_tile(context, task, blocks), blocks.bytes_read()


def _neighbor_block(context: Context, task: NeighborBlock, given: Given) -> tuple[pa.Table, dict[str, int]]:
    if (found := tiles.merged_already(context, task)) is not None:
        return found, {"found": True, "bytes_out": 0}
    others = range(len(context.plan.blocks))
    parts = [NeighborTile(task.model, min(task.a, b), max(task.a, b)) for b in others]
    lost = [tile for tile in parts if tile not in given]
    if lost:
        raise MissingInputError(lost)
    result = tiles.neighbor_block(context, task, {tile: given[tile][0] for tile in parts})
    return result, {"bytes_out": result.nbytes}


def _scale(context: Context, task: Scale, given: Given) -> tuple[pa.Table, dict[str, int]]:
    blocks = Blocks(context, given)
    return tiles.scale(context, task, blocks), blocks.bytes_read()


def _kernel_tile(context: Context, task: KernelTile, given: Given) -> tuple[pa.Table, dict[str, int]]:
    blocks = Blocks(context, given)
    return tiles.kernel_tile(context, task, blocks, _scales(given)), blocks.bytes_read()


def _column_sums(context: Context, task: ColumnSums, given: Given) -> tuple[pa.Table, dict[str, int]]:
    blocks = Blocks(context, given)
    return products.column_sums(context, task, blocks), blocks.bytes_read()


def _kernel_products(context: Context, task: KernelProducts, given: Given) -> tuple[pa.Table, dict[str, int]]:
    blocks = Blocks(context, given)
    columns = {owner: found[0] for owner, found in given.items() if isinstance(owner, ColumnSums)}
    return products.kernel_products(context, task, blocks, columns), blocks.bytes_read()


def _permuted_kernel(context: Context, task: PermutedKernel, given: Given) -> tuple[pa.Table, dict[str, int]]:
    blocks = Blocks(context, given)
    return tiles.permuted_kernel(context, task, blocks, _scales(given)), blocks.bytes_read()


def _row_state(context: Context, task: RowState, given: Given) -> tuple[pa.Table, dict[str, int]]:
    shards = {need: found for need, found in given.items() if isinstance(need, Embed)}
    others = {need: found for need, found in given.items() if not isinstance(need, Embed)}
    layers: dict[Any, dict[int, pa.Table]] = {}
    if shards:
        wanted = rows.wanted_layers(context.metrics, Blocks(context).layers_of(task.model))
        layers = {need: dict(zip(wanted, found, strict=True)) for need, found in shards.items()}
    blocks = Blocks(context, others, layers)
    return rows.row_state(context, task, blocks), blocks.bytes_read()


def _score(context: Context, task: Score, given: Given) -> tuple[pa.Table, dict[str, int]]:
    return scores.score_pair(context, task, {owner: found[0] for owner, found in given.items()}), {}


def _scales(given: Given) -> dict[Scale, pa.Table]:
    return {owner: found[0] for owner, found in given.items() if isinstance(owner, Scale)}


_DO: dict[type, Any] = {
    Clamp: _clamp,
    NeighborTile: _neighbor_tile,
    NeighborBlock: _neighbor_block,
    Scale: _scale,
    KernelTile: _kernel_tile,
    ColumnSums: _column_sums,
    KernelProducts: _kernel_products,
    PermutedKernel: _permuted_kernel,
    RowState: _row_state,
    Score: _score,
}
