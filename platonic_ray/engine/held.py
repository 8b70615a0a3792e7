"""References to results that are still to be read: a cache. What is not there is read from the store, and what is not
there either is made again.

A result is one object; of a shard there is one a layer, and the shards of one call share theirs. A task is handed an
object once, and told where in it each of its shards lies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ray import ObjectRef

from platonic_ray.engine.remote import Slots
from platonic_ray.engine.rows import wanted_layers
from platonic_ray.metrics import Metric
from platonic_ray.plan import Clamp, ColumnSums, Embed, KernelProducts, RowState, Score, Task


@dataclass(frozen=True, eq=False)
class _Result:
    """The objects of a result, and which of the tables in each is its own: of a shard alone `at` is a number."""

    objects: tuple[ObjectRef, ...]
    at: int | None = None
    bytes: int = 0


class Held:
    """What the driver holds of results; dropping any of it loses nothing but time."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics
        self._results: dict[Task, _Result] = {}
        self._calls: deque[dict[Embed, _Result]] = deque()  # the oldest first
        self._bytes = 0

    def __contains__(self, task: Task) -> bool:
        return task in self._results

    def add(self, task: Task, output: ObjectRef) -> None:
        """Hold a task's result."""
        self._results[task] = _Result((output,))

    def add_call(self, tasks: Sequence[Embed], layers: tuple[ObjectRef, ...], sizes: Sequence[int]) -> None:
        """Hold the shards of a call, each of so many bytes: an object a layer, with a table for each shard."""
        call = {task: _Result(layers, at, sizes[at]) for at, task in enumerate(tasks)}
        for task, result in call.items():
            self._results[task] = result
        self._calls.append(call)
        self._bytes += sum(sizes)

    def drop(self, task: Task) -> None:
        """Hold a result no longer."""
        self._results.pop(task, None)

    def clear(self) -> None:
        """Hold nothing."""
        self._results.clear()
        self._calls.clear()
        self._bytes = 0

    def handed(self, task: Task, needs: Iterable[Task]) -> tuple[Slots, list[ObjectRef]]:
        """Return the objects that a task is handed of what it needs, each once, and what of it lies where in them.

        A clamp and sums of columns or products read whole models, shard by shard, and a score some of their
        layers: from the store, where all shards at once may not fit. States are made of the layers asked for alone.
        """
        slots = []
        places: dict[ObjectRef, int] = {}
        from_store = isinstance(task, Clamp | ColumnSums | KernelProducts | Score)
        for need in needs:
            result = self._results.get(need)
            if result is None or (from_store and isinstance(need, Embed)):
                continue
            objects = result.objects
            if isinstance(need, Embed) and isinstance(task, RowState):
                objects = tuple(objects[layer] for layer in wanted_layers(self._metrics, len(objects)))
            slots.append((need, tuple(places.setdefault(each, len(places)) for each in objects), result.at))
        return tuple(slots), list(places)

    def bound(self, most_bytes: float) -> dict[Embed, int]:
        """Drop the oldest calls while all are of more bytes than that; return the bytes of each shard that was dropped
        before its last reader was done.
        """
        dropped: dict[Embed, int] = {}
        while self._calls:
            call = self._calls[0]
            left = {task: result.bytes for task, result in call.items() if self._results.get(task) is result}
            if left and self._bytes <= most_bytes:
                break
            self._calls.popleft()
            self._bytes -= sum(result.bytes for result in call.values())
            for task in left:
                del self._results[task]
            dropped |= left
        return dropped
