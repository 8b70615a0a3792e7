"""What runs inside Ray's processes: the actor that holds a model, and the one function of all other tasks.

Thin wrappers over `platonic_ray.engine.embedding` and `work`: they hand over the Arrow tables that Ray has
already fetched, and say where the work was done. Nothing is retried by Ray itself (`max_retries=0`):
the scheduler sees every loss and answers it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import ray
import torch

from platonic_ray.engine.context import Context
from platonic_ray.engine.embedding import ModelRunner
from platonic_ray.engine.work import Clock, perform
from platonic_ray.kernels import exact_neighbors
from platonic_ray.models.allocator import keep_freed_memory
from platonic_ray.plan import Task

_FEW_ROWS = 512  # that go the way of many
_HELD_S = 1.0
_KEPT_BYTES = 32 << 20  # by a worker between its tasks

# What a task was given: of each shard or task which of the arguments, and of a shard which of the tables in each.
Slots = tuple[tuple[Any, tuple[int, ...], int | None], ...]


def _where() -> dict[str, Any]:
    return {"node": ray.get_runtime_context().get_node_id()[:8], "pid": os.getpid()}


def _given(slots: Slots, arguments: tuple[Any, ...]) -> dict[Any, tuple[pa.Table, ...]]:
    """Find each shard's or task's own tables in the arguments: a table, or a tuple of those of several shards."""
    return {
        owner: tuple(arguments[place] if at is None else arguments[place][at] for place in places)
        for owner, places, at in slots
    }


class _ModelActor:
    """Holds one loaded model at a time; embeds shard after shard, committing each before it is yielded."""

    def __init__(self, context: Context, model: int, pieces: int) -> None:
        self._context = replace(context, pieces=pieces)
        self._runner: ModelRunner | None = ModelRunner(self._context, model)

    def take(self, model: int, pieces: int) -> dict[str, Any]:
        """Let the model go and load another; return what `describe` does."""
        self._runner = None
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        self._context = replace(self._context, pieces=pieces)
        self._runner = ModelRunner(self._context, model)
        return self.describe()

    def describe(self) -> dict[str, Any]:
        """Load the model; return its layers, the seconds it took, and where it lives."""
        assert self._runner is not None
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
    def embed(self, shards: list[int], most_s: float) -> Iterator[tuple[pa.Table | dict[str, Any], ...]]:
        """Yield of each layer one Arrow table a shard, already durable, and last what there is to report of each shard.

        Of several, no other is begun after `most_s`: those that are left have no table and no report.
        """
        if len(shards) == 1:  # its layers are handed over while others are still being written
            for item in self._embed(shards[0]):
                yield (item,)
            return
        start, done = time.monotonic(), list[list[Any]]()
        for shard in shards:
            if done and time.monotonic() - start > most_s:
                break
            done.append(list(self._embed(shard)))
        for of_layer in zip(*done, strict=True):  # noqa: UP028 Ray sends into its generators; a zip takes nothing
            yield of_layer

    def _embed(self, shard: int) -> Iterator[pa.Table | dict[str, Any]]:
        """Yield a table a layer, then the report."""
        assert self._runner is not None
        with Clock() as clock:
            for item in self._runner.embed(shard):
                if isinstance(item, pa.Table):
                    yield item
                else:
                    yield {**clock.spent(), **item, **_where()}

    @ray.method(num_returns="streaming")
    def embed_alone(self, shard: int) -> Iterator[str]:
        """Yield the id of each sample before it is embedded alone; see `ModelRunner`."""
        assert self._runner is not None
        yield from self._runner.embed_alone(shard)


ModelActor: Any = ray.remote(max_restarts=0, max_task_retries=0)(_ModelActor)


@ray.remote(max_retries=0, num_returns=2)
def run_task(
    contexts: list[ray.ObjectRef], task: Task, pieces: int, slots: Slots, *arguments: Any
) -> tuple[dict[str, Any], pa.Table]:
    """Do a task, in pieces if need be. Returns its report and its result, each an object of its own."""
    keep_freed_memory(_KEPT_BYTES)
    context = replace(_context(contexts[0].hex(), contexts), pieces=pieces)
    report, result = perform(context, task, _given(slots, arguments))
    return {**report, **_where()}, result


@ray.remote(max_retries=0, num_cpus=0)
def get_ready() -> None:
    """Have a process that a task can begin in at once: it has imported all by now, and compiled loops are loaded here.

    It is held for a moment, so that several of these are in as many processes.
    """
    keep_freed_memory(_KEPT_BYTES)
    with contextlib.suppress(Exception):  # what is wrong here a task will say
        rows = torch.nn.functional.normalize(torch.randn(_FEW_ROWS, 8))
        exact_neighbors(rows, 1, "0" * 64)
    time.sleep(_HELD_S)


_CONTEXTS: dict[str, Context] = {}


def _context(name: str, contexts: list[ray.ObjectRef]) -> Context:
    """Return a run's context, which a process reads once: it has the key of every shard."""
    if name not in _CONTEXTS:
        _CONTEXTS.clear()
        _CONTEXTS[name] = ray.get(contexts[0])
    return _CONTEXTS[name]
