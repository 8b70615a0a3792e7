"""What a run on Ray does about lost work: how often it is tried again, and how; what is given up, and why.

A piece of work may be lost three times. After that it is refused with all that needs it, the rest goes on,
and the run ends with an error that names what was refused. A shard that cost three processes is searched
for the sample that ends them. Work that ran out of memory is tried again in smaller pieces. What a
node took with it that was told to go does not count.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Collection, Sequence
from typing import Any

from platonic_ray.engine.context import MOST_ATTEMPTS, Context, MissingInputError, facts_of, label
from platonic_ray.engine.events import EventLog
from platonic_ray.engine.failures import Failure, Loss
from platonic_ray.errors import DataError, PlatonicRayError, RunError
from platonic_ray.plan import Embed, Task, TaskGraph

MOST_REFUSED = 20
"""So many refusals are no matter of single samples: the run ends."""

_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)


class Losses:
    """Counts what was lost, and puts it back into the graph or refuses it.

    `suspects` are shards to be searched for a sample that ends every process; `paused_until` (of
    `time.monotonic`) is when the next process may be started.
    """

    def __init__(self, context: Context, graph: TaskGraph, events: EventLog) -> None:
        self._plan, self._graph, self._events = context.plan, graph, events
        self._store = context.store
        self._attempts: Counter[Task] = Counter()
        self._loads: Counter[int] = Counter()
        self._memory: Counter[Task | int] = Counter()
        self._reasons: list[PlatonicRayError] = []
        self._environment = 0
        self.suspects: deque[Embed] = deque()
        self.paused_until = 0.0

    def attempt(self, task: Task) -> int:
        """Return which attempt at a task is under way, from 1."""
        return self._attempts[task] + 1

    def pieces(self, of: Task | int) -> int:
        """Return how often a task, or a model, ran out of memory: how many times its pieces are halved."""
        return self._memory[of]

    # -- what was lost -------------------------------------------------------------------------

    def task(self, task: Task, failure: Failure) -> None:
        """A task's attempt was lost.

        :raises PlatonicRayError: if the failure was the application's, or when too much was refused.
        """
        if failure.loss is Loss.APPLICATION:
            raise failure.error
        if failure.loss is Loss.MEMORY:
            self._memory[task] += 1
        if failure.loss is Loss.INPUT and isinstance(failure.error, MissingInputError):
            # What the store turned out not to hold is made again.
            for missing in failure.error.tasks:
                if self._graph.is_done(missing):  # else another reader has reported it already
                    self._graph.undo(missing)
                    self._count(missing, failure)
            self._graph.give_back(task)
            return
        self._graph.give_back(task)
        self._count(task, failure)

    def call(self, tasks: Sequence[Embed], failure: Failure, elsewhere: Collection[Task]) -> None:
        """An actor was lost with a call: the shard that it had in hand counts as lost, the others go back.

        It took one after another, and each is durable before the next begins: what it had in hand is the first that
        the store does not have; where it has all, the last was being handed over.

        :param elsewhere: shards that another actor has, too.
        :raises PlatonicRayError: as `task`.
        """
        in_hand = next((task for task in tasks[:-1] if not self._is_stored(task)), tasks[-1])
        for task in tasks:
            if task not in elsewhere and task != in_hand:
                self._graph.give_back(task)
        if in_hand not in elsewhere:
            self._shard(in_hand, failure)

    def _is_stored(self, task: Embed) -> bool:
        artifacts = self._plan.artifacts(task)
        return all(self._store.manifest(kind, key) is not None for kind, key in artifacts)

    def _shard(self, task: Embed, failure: Failure) -> None:
        if failure.loss is Loss.MEMORY:
            self._memory[task.model] += 1
        if failure.loss is Loss.WORKER and not failure.by_the_node and self.attempt(task) == MOST_ATTEMPTS:
            self._lost(task, failure, MOST_ATTEMPTS)
            self.suspects.append(task)  # it stays taken
            return
        self._graph.give_back(task)
        self._count(task, failure)

    def load(self, model: int, failure: Failure) -> None:
        """A model's process was lost while it loaded.

        :raises RunError: when too much was refused.
        """
        if failure.loss is Loss.APPLICATION:
            raise failure.error
        name = self._plan.models[model].name
        self._note(f"model {name}", failure, model=name)
        self._loads[model] += not failure.by_the_node
        if self._loads[model] == MOST_ATTEMPTS:
            self.suspects = deque(task for task in self.suspects if task.model != model)
            self._refuse(
                [Embed(model, shard) for shard in range(len(self._plan.shards))],
                RunError(
                    f"The process loading model {name!r} died {MOST_ATTEMPTS} times ({short(failure.error)}). "
                    "It may not fit into memory."
                ),
            )

    def searched(self, task: Embed, sample: str | None) -> None:
        """A suspect was searched: `sample` ends its process, or no single one does.

        :raises RunError: when too much was refused.
        """
        name = self._plan.models[task.model].name
        span = self._plan.shards[task.shard]
        if sample is None:
            reason: PlatonicRayError = RunError(
                f"{label(self._plan, task)} (samples {span.start} to {span.stop - 1}) was lost {MOST_ATTEMPTS} times "
                "with its process, and no sample alone does that: together they may not fit into memory."
            )
        else:
            reason = DataError(
                f"Sample {sample!r} ends the process of model {name!r} every time ({MOST_ATTEMPTS} tries at its shard, "
                "and once alone). Leave it out of the dataset, or run the model on it by itself to see why."
            )
        self._refuse([task], reason)

    def environment(self, environment: int, error: BaseException) -> None:
        """A node could not set up what the job brings along: try after a pause, under another name.

        Nodes remember for minutes that an environment failed, and know it by its content alone.

        :raises RunError: after five pauses.
        """
        if environment < self._environment:
            return  # others of the same have said so already
        if environment == len(_PAUSES_S):
            raise RunError(
                f"No process could be started in the job's environment, {environment + 1} times over "
                f"{sum(_PAUSES_S):.0f} s: {_last_line(error)} Check that every node reaches the head, and has room "
                "on its disk. Finished work is kept; run again to resume."
            )
        self._environment, self.paused_until = environment + 1, time.monotonic() + _PAUSES_S[environment]
        self._events.add("lost", what="environment", loss=Loss.ENVIRONMENT.value, error=_last_line(error))

    def renewed_environment(self) -> tuple[int, dict[str, Any] | None]:
        """Return how often the job's environment failed, and what to add to it for that: nothing at first."""
        if self._environment == 0:
            return 0, None
        return self._environment, {"env_vars": {"PLATONIC_RAY_ENVIRONMENT": str(self._environment)}}

    # -- what is given up ----------------------------------------------------------------------

    def raise_refused(self) -> None:
        """End the run if anything was refused.

        :raises DataError: if that was for samples alone; RunError otherwise.
        """
        if not self._reasons:
            return
        every = "\n".join(str(reason) for reason in self._reasons)
        told = (
            f"{every}\nWhat needs it was left out ({len(self._graph.refused)} tasks); everything else is finished and "
            "kept: run again to go on."
        )
        of_data = all(isinstance(reason, DataError) for reason in self._reasons)
        raise DataError(told) if of_data else RunError(told)

    def _count(self, task: Task, failure: Failure) -> None:
        self._attempts[task] += not failure.by_the_node
        self._lost(task, failure, self._attempts[task])
        if self._attempts[task] >= MOST_ATTEMPTS:
            what = f"{label(self._plan, task)} was lost {MOST_ATTEMPTS} times; last: {short(failure.error)}."
            if failure.loss is Loss.MEMORY:
                what += " It ran alone and in smaller pieces: its nodes have too little memory for it."
            self._refuse([task], RunError(what))

    def _refuse(self, tasks: list[Any], reason: PlatonicRayError) -> None:
        self._reasons.append(reason)
        for task in tasks:
            self._graph.refuse(task)
        self._events.add("refused", reason=str(reason), refused=len(self._graph.refused))
        if len(self._reasons) >= MOST_REFUSED:
            self.raise_refused()

    def _lost(self, task: Task, failure: Failure, attempt: int) -> None:
        of = {name: fact for name, fact in facts_of(self._plan, task).items() if name != "task"}
        self._note(label(self._plan, task), failure, attempt=attempt, **of)

    def _note(self, what: str, failure: Failure, **facts: Any) -> None:
        self._events.add("lost", what=what, loss=failure.loss.value, error=short(failure.error), **facts)


def short(error: BaseException) -> str:
    """Return what an error says in a line, with its kind."""
    if "creation task" in str(error):  # what an actor's constructor raised, with its traceback
        return f"{type(error).__name__}: {_last_line(error)}"[:200]
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


def _last_line(error: BaseException) -> str:
    """Return what a text that holds a traceback of another process comes to."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:400]
