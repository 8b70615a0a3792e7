"""Work under way on Ray, and which of it is late.

What is late is begun again elsewhere when cores are idle; what is finished first counts. Both write the same
bytes under the same key, so that two at once harm nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from ray import ObjectRef

from platonic_ray.engine.replica import Replica
from platonic_ray.engine.work import OBJECTS_ONLY
from platonic_ray.plan import Embed, Task, TaskGraph

STRAGGLER_S = 5.0
"""What has taken less is not late."""

_TIMES = 3.0


@dataclass(frozen=True)
class Attempt:
    """A task under way: its result's reference, when it was sent, in which environment, for how many cores."""

    task: Task
    output: ObjectRef
    since: float
    environment: int
    cores: float = 0.0


def late_shards(replicas: Sequence[Replica], took: Mapping[int, float]) -> list[Embed]:
    """Return the first shard of each call that has taken much longer than so many shards of its model take.

    Of those calls alone of which no other replica has any shard.

    :param took: seconds that a shard last took each model that finished one.
    """
    having = Counter(task for replica in replicas for task in replica.tasks)
    now = time.monotonic()
    return [
        replica.tasks[0]
        for replica in replicas
        if replica.tasks
        and all(having[task] == 1 for task in replica.tasks)
        and not replica.searching
        and now - replica.since
        > max(STRAGGLER_S, _TIMES * len(replica.tasks) * took.get(replica.model, float("inf")))
    ]


def late_tasks(
    attempts: Collection[Attempt], took: Mapping[type, Collection[float]], graph: TaskGraph
) -> list[Task]:
    """Return the tasks that one attempt alone has been at for much longer than others of their kind took.

    Only those that can be done from the store alone.
    """
    having = Counter(attempt.task for attempt in attempts)
    now = time.monotonic()
    return [
        attempt.task
        for attempt in attempts
        if having[attempt.task] == 1
        and not any(isinstance(need, OBJECTS_ONLY) for need in graph.needs(attempt.task))
        and (others := took.get(type(attempt.task)))
        and now - attempt.since > max(STRAGGLER_S, _TIMES * median(others))
    ]
