"""Which task may run next: dependencies, completion, and the loss of what was complete.

A plain data structure without threads, clocks or Ray. "Done" is a claim that reading verifies: when
a result turns out to be lost, `undo` takes the claim back and everything that still needs it waits
again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping

from platonic_ray.plan.tasks import Clamp, Embed, NeighborBlock, NeighborTile, RowState, Task


class TaskGraph:
    """The state of every task: waiting, ready, taken, done.

    Embeds are taken by model (`take_embed`), because a model must be loaded for them; all other
    tasks by `take`, those that set objects free first.
    """

    def __init__(self, prerequisites: Mapping[Task, tuple[Task, ...]], done: Collection[Task]) -> None:
        self._prerequisites = prerequisites
        self._dependents: dict[Task, list[Task]] = {task: [] for task in prerequisites}
        for task, needs in prerequisites.items():
            for need in needs:
                self._dependents[need].append(task)
        self._done = set(done)
        self._taken: set[Task] = set()
        self._waiting: dict[Task, set[Task]] = {}
        self._ready: tuple[deque[Task], ...] = (deque(), deque(), deque())
        self._embeds: dict[int, deque[Embed]] = {}
        for task in prerequisites:
            if task not in self._done:
                self._enqueue(task)

    def _enqueue(self, task: Task) -> None:
        waiting = {need for need in self._prerequisites[task] if need not in self._done}
        if waiting:
            self._waiting[task] = waiting
        elif isinstance(task, Embed):
            self._embeds.setdefault(task.model, deque()).append(task)
        else:
            self._ready[_urgency(task)].append(task)

    @property
    def finished(self) -> bool:
        """Whether every task is done."""
        return len(self._done) == len(self._prerequisites)

    def is_done(self, task: Task) -> bool:
        """Whether a task's result is believed to be there."""
        return task in self._done

    def count(self, kind: type | tuple[type, ...]) -> int:
        """Return how many tasks of a kind are not done."""
        return sum(isinstance(task, kind) and task not in self._done for task in self._prerequisites)

    def take(self) -> Task | None:
        """Take the most urgent ready task that needs no loaded model, or None."""
        for queue in self._ready:
            if queue:
                task = queue.popleft()
                self._taken.add(task)
                return task
        return None

    def pending_embeds(self) -> dict[int, int]:
        """Return, for each model with shards that nobody has taken, how many."""
        return {model: len(queue) for model, queue in self._embeds.items() if queue}

    def take_embed(self, model: int) -> Embed | None:
        """Take the next shard of a model, or None."""
        queue = self._embeds.get(model)
        if not queue:
            return None
        task = queue.popleft()
        self._taken.add(task)
        return task

    def complete(self, task: Task) -> list[Task]:
        """Mark a taken task done. Returns the tasks whose results nobody will read any more."""
        self._taken.discard(task)
        self._done.add(task)
        for dependent in self._dependents[task]:
            waiting = self._waiting.get(dependent)
            if waiting is not None:
                waiting.discard(task)
                if not waiting:
                    del self._waiting[dependent]
                    self._enqueue(dependent)
        return [need for need in self._prerequisites[task] if self._unread(need)]

    def give_back(self, task: Task) -> None:
        """Return a taken task to the queue: its attempt failed."""
        self._taken.discard(task)
        self._enqueue(task)

    def undo(self, task: Task) -> None:
        """Take back that a task is done: its result was lost. What needs it waits again."""
        if task not in self._done:
            return
        self._done.discard(task)
        self._enqueue(task)
        for dependent in self._dependents[task]:
            if dependent in self._done or dependent in self._taken:
                continue
            if dependent not in self._waiting:
                self._forget_ready(dependent)
                self._waiting[dependent] = set()
            self._waiting[dependent].add(task)

    def _forget_ready(self, task: Task) -> None:
        queues: Iterable[deque] = (
            [self._embeds.get(task.model, deque())] if isinstance(task, Embed) else self._ready
        )
        for queue in queues:
            if task in queue:
                queue.remove(task)

    def _unread(self, task: Task) -> bool:
        return all(dependent in self._done for dependent in self._dependents[task])

    def needs(self, task: Task) -> Iterator[Task]:
        """Iterate over the tasks whose results a task reads."""
        return iter(self._prerequisites[task])


def _urgency(task: Task) -> int:
    """Merges first (they free partial results) and clamps (tiles wait for them), then what else reads
    one model (it frees features).
    """
    if isinstance(task, NeighborBlock | Clamp):
        return 0
    return 1 if isinstance(task, NeighborTile | RowState) else 2
