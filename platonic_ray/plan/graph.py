"""Which task may run next: dependencies, completion, and the loss of what was complete.

A plain data structure without threads, clocks or Ray. "Done" is a claim that reading verifies: when
a result turns out to be lost, `undo` takes the claim back and everything that still needs it waits
again.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import count

from platonic_ray.plan.tasks import (
    Clamp,
    ColumnSums,
    Embed,
    KernelProducts,
    NeighborBlock,
    NeighborTile,
    RowState,
    Task,
)


class TaskGraph:
    """The state of every task: waiting, ready, taken, done; or refused, with all that needs it.

    Embeds are taken by model (`take_embed`), because a model must be loaded for them; all other
    tasks by `take`, those that set objects free first, and among these the longest first, so that no
    long task is left for the end.

    :param length: about how long a task takes, in any unit.
    """

    def __init__(
        self,
        prerequisites: Mapping[Task, tuple[Task, ...]],
        done: Collection[Task],
        length: Callable[[Task], float] = lambda task: 0.0,
    ) -> None:
        self._prerequisites = prerequisites
        self._length = length
        self._turn = count()
        self._refused: set[Task] = set()
        self._dependents: dict[Task, list[Task]] = {task: [] for task in prerequisites}
        for task, needs in prerequisites.items():
            for need in needs:
                self._dependents[need].append(task)
        self._done = set(done)
        self._taken: set[Task] = set()
        self._waiting: dict[Task, int] = {}  # for so many tasks that are not done
        self._ready: set[Task] = set()
        self._queue: list[tuple[int, float, int, Task]] = []  # may hold tasks that are no longer ready
        self._embeds: dict[int, deque[Embed]] = {}
        for task in prerequisites:
            if task not in self._done:
                self._enqueue(task)

    def _enqueue(self, task: Task) -> None:
        if any(need in self._refused for need in self._prerequisites[task]):
            self.refuse(task)
            return
        waiting = sum(need not in self._done for need in self._prerequisites[task])
        if waiting:
            self._waiting[task] = waiting
        elif isinstance(task, Embed):
            self._embeds.setdefault(task.model, deque()).append(task)
        else:
            self._ready.add(task)
            heapq.heappush(self._queue, (_urgency(task), -self._length(task), next(self._turn), task))

    @property
    def finished(self) -> bool:
        """Whether every task is done that was not refused."""
        return len(self._done) + len(self._refused) == len(self._prerequisites)

    @property
    def refused(self) -> frozenset[Task]:
        """What was given up."""
        return frozenset(self._refused)

    def is_done(self, task: Task) -> bool:
        """Whether a task's result is believed to be there."""
        return task in self._done

    def count(self, kind: type | tuple[type, ...]) -> int:
        """Return how many tasks of a kind are not done."""
        return sum(isinstance(task, kind) and task not in self._done for task in self._prerequisites)

    def take(self) -> Task | None:
        """Take the most urgent ready task that needs no loaded model, or None."""
        while self._queue:
            *_, task = heapq.heappop(self._queue)
            if task in self._ready:
                self._ready.discard(task)
                self._taken.add(task)
                return task
        return None

    def pending_embeds(self) -> dict[int, int]:
        """Return, for each model with shards that nobody has taken, how many."""
        return {model: len(queue) for model, queue in self._embeds.items() if queue}

    def take_embed(self, model: int) -> Embed | None:
        """Take the next shard of a model, or None."""
        return next(iter(self.take_embeds(model, 1, lambda first, other: False)), None)

    def take_embeds(
        self, model: int, most: int, together: Callable[[Embed, Embed], bool]
    ) -> tuple[Embed, ...]:
        """Take the next shard of a model, and up to `most` in all as long as each goes together with the first."""
        queue, taken = self._embeds.get(model), list[Embed]()
        while queue and (not taken or (len(taken) < most and together(taken[0], queue[0]))):
            taken.append(queue.popleft())
        self._taken.update(taken)
        return tuple(taken)

    def complete(self, task: Task) -> list[Task]:
        """Mark a taken task done. Returns the tasks whose results nobody will read any more."""
        self._taken.discard(task)
        self._refused.discard(task)
        if task not in self._done:
            self._done.add(task)
            for dependent in self._dependents[task]:
                if dependent in self._waiting:
                    self._waiting[dependent] -= 1
                    if not self._waiting[dependent]:
                        del self._waiting[dependent]
                        self._enqueue(dependent)
        return [need for need in self._prerequisites[task] if self._unread(need)]

    def give_back(self, task: Task) -> None:
        """Return a taken task to the queue: its attempt failed."""
        self._taken.discard(task)
        if task not in self._refused:
            self._enqueue(task)

    def refuse(self, task: Task) -> None:
        """Give up a task that is not done, and whatever needs its result; the rest goes on."""
        frontier = [task]
        while frontier:
            given_up = frontier.pop()
            if given_up in self._done or given_up in self._refused:
                continue
            self._taken.discard(given_up)
            self._waiting.pop(given_up, None)
            self._forget_ready(given_up)
            self._refused.add(given_up)
            frontier += [task for task in self._dependents[given_up] if task not in self._taken]

    def undo(self, task: Task) -> None:
        """Take back that a task is done: its result was lost. What needs it waits again."""
        if task not in self._done:
            return
        self._done.discard(task)
        self._enqueue(task)
        for dependent in self._dependents[task]:
            if dependent in self._done or dependent in self._taken or dependent in self._refused:
                continue
            if dependent not in self._waiting:
                self._forget_ready(dependent)
                self._waiting[dependent] = 0
            self._waiting[dependent] += 1

    def _forget_ready(self, task: Task) -> None:
        self._ready.discard(task)
        if isinstance(task, Embed) and task in self._embeds.get(task.model, ()):
            self._embeds[task.model].remove(task)

    def _unread(self, task: Task) -> bool:
        return all(
            dependent in self._done or dependent in self._refused for dependent in self._dependents[task]
        )

    def needs(self, task: Task) -> Iterator[Task]:
        """Iterate over the tasks whose results a task reads."""
        return iter(self._prerequisites[task])


def _urgency(task: Task) -> int:
    """Merges first (they free partial results), and what others wait for (clamps, sums of columns); with them the
    products that end a chain of few and long tasks, which would leave cores idle if they came last; then what else
    reads one model (it frees features).
    """
    if isinstance(task, NeighborBlock | Clamp | ColumnSums | KernelProducts):
        return 0
    return 1 if isinstance(task, NeighborTile | RowState) else 2
