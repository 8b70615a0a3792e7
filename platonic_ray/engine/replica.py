"""A model actor as the driver sees it: what it was started with, what it is doing, what a call has brought.

A call embeds a shard, or several where they are short: a call and its objects cost Ray some milliseconds of the driver
and of its own processes, whatever is in them. Their features come as one object a layer, which holds a table for each
shard of the call, after every one of these shards is durable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray import ObjectRef, ObjectRefGenerator

from platonic_ray.engine.failures import StreamCutError
from platonic_ray.plan import Embed
from platonic_ray.plan.calls import CALL_S


@dataclass(eq=False)
class Replica:
    """A model actor and what it is doing: loading (`layers` unknown), idle, or streaming `tasks` since `since`.

    `searching` says that its stream is that of one shard's samples one by one, the last of them `sample`.
    `environment` and `pieces` are what its process was started with (`platonic_ray.engine.losses`).
    """

    model: int
    actor: Any
    loading: ObjectRef | None
    gpus: float = 0.0
    cores: float = 0.0
    environment: int = 0
    pieces: int = 0
    started: float = field(default_factory=time.monotonic)
    node: str = ""
    layers: int = 0
    tasks: tuple[Embed, ...] = ()
    since: float = 0.0
    stream: ObjectRefGenerator | None = None
    searching: bool = False
    sample: str | None = None

    @property
    def awaited(self) -> ObjectRef | ObjectRefGenerator | None:
        """What tells that something has come: the end of a stream of layers, the next id of a search.

        Nothing can be done with layers before the last is there, and to wait for each takes the driver as long as
        for a task.
        """
        return self.stream if self.stream is None or self.searching else self.stream.completed()

    def begin(self, tasks: Sequence[Embed]) -> None:
        """Stream some shards of its model in one call."""
        self.tasks, self.since = tuple(tasks), time.monotonic()
        self.stream = self.actor.embed.remote([task.shard for task in tasks], CALL_S)

    def search(self, task: Embed) -> None:
        """Embed a shard's samples one by one; the driver takes each id before the next is begun."""
        self.tasks, self.searching, self.sample = (task,), True, None
        one_at_a_time = self.actor.embed_alone.options(_generator_backpressure_num_objects=1)
        self.stream = one_at_a_time.remote(task.shard)

    def brought(
        self, fetch: Callable[[ObjectRef], Any]
    ) -> tuple[tuple[ObjectRef, ...], Sequence[dict[str, Any]]]:
        """Take what a stream that has ended has brought: an object a layer, and the reports of its first shards.

        Shards are done when their stream has ended, not when a report is there: Ray fails the objects of a stream
        whose actor goes before the end of it was noted. A call that takes long ends before its last shard.

        :param fetch: brings an object into the driver.
        :raises StreamCutError: if the stream ended before its reports; else whatever ended the actor, or its call.
        """
        assert self.stream is not None
        items = list(self.stream)
        # Of a stream that broke, the last item holds the error.
        reports: Any = fetch(items[-1]) if items else ()
        if len(items) != self.layers + 1 or not isinstance(reports[0], dict):
            raise StreamCutError(f"The stream of blocks ended after {len(items)} items.")
        return tuple(items[:-1]), reports

    def rest(self) -> None:
        """Be idle: what its stream brought was taken."""
        self.tasks, self.stream = (), None
