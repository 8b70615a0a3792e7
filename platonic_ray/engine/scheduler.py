"""The driver's side of a run on Ray: starts models, dispatches tasks, answers every loss.

The driver moves references, never features. Its whole state:

* `graph`: which task waits, is ready, taken or done (`platonic_ray.plan.TaskGraph`);
* `fleet`: the model actors, each loading, idle, or streaming one shard;
* `running`: the tasks under way, by the reference of their report;
* `outputs`: references to results that are still to be read: a cache. What is not there is read
  from the store, and what is not there either is made again.

A shard, block or tile is durable before its worker reports it, so dropping any reference, or this
whole process, loses nothing that was finished.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import ray
from ray import ObjectRef

from platonic_ray.engine import cluster, remote
from platonic_ray.engine.context import MOST_ATTEMPTS, Context, MissingInputError, event_of, label
from platonic_ray.engine.events import EventLog
from platonic_ray.engine.failures import Failure, Loss, classify
from platonic_ray.engine.fleet import Fleet, Replica
from platonic_ray.engine.progress import ProgressDisplay
from platonic_ray.engine.rows import wanted_layers
from platonic_ray.engine.sharing import Sharing
from platonic_ray.engine.work import OBJECTS_ONLY
from platonic_ray.errors import RunError
from platonic_ray.plan import (
    Clamp,
    Embed,
    KernelTile,
    NeighborTile,
    PermutedKernel,
    RowState,
    Score,
    Task,
    TaskGraph,
)

_TASKS_PER_CORE = 3
_OBJECT_STORE_SHARE = 0.4
_POLL_S = 0.5
_SAY_S = 5.0
_ENVIRONMENT_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)


class Scheduler:
    """Runs a plan's graph to its end on the Ray that is connected."""

    def __init__(
        self,
        context: Context,
        graph: TaskGraph,
        events: EventLog,
        progress: ProgressDisplay,
        sharing: Sharing,
        costs: Sequence[float],
    ) -> None:
        self.context = context
        self.plan = context.plan
        self.graph = graph
        self.events = events
        self.progress = progress
        self._sharing = sharing
        self.scores: dict[Score, pa.Table] = {}
        self.fleet = Fleet(context.run, costs, context.gpus)
        self.running: dict[ObjectRef, Task] = {}
        self.outputs: dict[Task, tuple[ObjectRef, ...]] = {}
        self.fetched_bytes = 0
        self._attempts: Counter[Task] = Counter()
        self._load_attempts: Counter[int] = Counter()
        self._live: deque[tuple[Embed, int]] = deque()
        self._live_bytes = 0
        self._context_ref = ray.put(context)
        self._resources = cluster.resources()
        self._resources_read = self._moved = time.monotonic()
        self._said_waiting = False
        self._environment, self._paused_until = 0, 0.0
        self._environments: dict[ObjectRef, int] = {}

    @property
    def replicas(self) -> list[Replica]:
        """The model actors there are."""
        return self.fleet.replicas

    def run(self) -> dict[Score, pa.Table]:
        """Run until every task is done; return the score tables.

        :raises PlatonicRayError: the first error of the application (bad features, disk full, …),
            or `RunError` when one piece of work was lost too many times.
        """
        try:
            while not self.graph.finished:
                if time.monotonic() >= self._paused_until:
                    self._start_models()
                    self._submit()
                self._wait()
        finally:
            self._stop()
        return self.scores

    # -- dispatch ------------------------------------------------------------------------------

    def _start_models(self) -> None:
        """Give idle replicas their next shard, end those without work, start others in free slots."""
        for replica in [r for r in self.replicas if r.loading is None and r.task is None]:
            self._next_shard(replica)
        if time.monotonic() - self._resources_read > 2.0:
            self._resources, self._resources_read = cluster.resources(), time.monotonic()
            self._sharing.check_joined()
        while (model := self.fleet.next_model(self.graph.pending_embeds(), self._resources)) is not None:
            run, gpus = self.context.run, self.fleet.gpus_of(model, self._resources)
            # More threads than a node has cores are slow, but must not wait for a node that never comes.
            cpus = min(1.0, gpus) or min(cluster.HALF_CORE * run.threads, self._resources.node_cpus or 1.0)
            actor = remote.ModelActor.options(
                num_cpus=cpus,
                num_gpus=gpus,
                scheduling_strategy="SPREAD",
                runtime_env=self._renewed_environment(),
            ).remote(self._context_ref, model)
            loading = actor.describe.remote()
            self.replicas.append(Replica(model, actor, loading, gpus, environment=self._environment))

    def _next_shard(self, replica: Replica) -> None:
        """Give a replica a shard of its model, else another model, else end it."""
        task = self.graph.take_embed(replica.model)
        if task is not None:
            replica.task, replica.items = task, []
            replica.stream = replica.actor.embed.remote(task.shard)
            return
        model = self.fleet.next_model(self.graph.pending_embeds(), self._resources, leaving=replica)
        # A process that has imported what models need takes the next one in less time than a new one starts.
        if model is not None and self.fleet.gpus_of(model, self._resources) == replica.gpus:
            replica.model, replica.started = model, time.monotonic()
            replica.loading = replica.actor.take.remote(model)
            return
        ray.kill(replica.actor)
        self.replicas.remove(replica)

    def _submit(self) -> None:
        """Dispatch ready tasks, bounded by a window of a few a core."""
        window = max(2, int(self._resources.cpus * _TASKS_PER_CORE))
        while len(self.running) < window:
            task = self.graph.take()
            if task is None:
                return
            slots: list[tuple[Task, int]] = []
            refs: list[ObjectRef] = []
            lost = []
            for need in self.graph.needs(task):
                found = self._handed(task, need)
                if not found and isinstance(need, OBJECTS_ONLY):
                    lost.append(need)
                elif found:
                    slots.append((need, len(found)))
                    refs.extend(found)
            if lost:
                for need in lost:
                    self.graph.undo(need)
                self.graph.give_back(task)
                continue
            function = remote.run_task.options(
                name=label(self.plan, task),
                num_cpus=cluster.HALF_CORE,
                runtime_env=self._renewed_environment(),
            )
            report, output = function.remote([self._context_ref], task, tuple(slots), *refs)
            self.running[report] = task
            self._environments[report] = self._environment
            self.outputs[task] = (output,)

    def _handed(self, task: Task, need: Task) -> tuple[ObjectRef, ...]:
        """Return the references that a task is handed of what it needs.

        A clamp reads whole models, shard by shard, and a score some of their layers: from the store,
        where all shards at once may not fit. States are made of the layers asked for alone.
        """
        found = self.outputs.get(need, ())
        if not isinstance(need, Embed) or not found:
            return found
        if isinstance(task, RowState):
            return tuple(found[layer] for layer in wanted_layers(self.context.metrics, len(found)))
        return () if isinstance(task, Clamp | Score) else found

    # -- what comes back -----------------------------------------------------------------------

    def _wait(self) -> None:
        waiting: list[Any] = list(self.running)
        by_source: dict[Any, Replica] = {}
        for replica in self.replicas:
            source = replica.loading or replica.stream
            if source is not None:
                by_source[source] = replica
        waiting += by_source
        if not waiting:
            if (pause := self._paused_until - time.monotonic()) > 0:
                time.sleep(min(pause, _POLL_S))
            elif not self.graph.pending_embeds():
                raise RunError("Nothing is running and nothing is ready: this is a fault of platonic_ray.")
            return
        ready, _ = ray.wait(waiting, num_returns=1, timeout=_POLL_S, fetch_local=False)
        self.events.flush_if_due()
        self._watch_for_machines(bool(ready))
        if ready:  # take whatever else has finished meanwhile
            ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0, fetch_local=False)
        for source in ready:
            owner = by_source.get(source)
            if owner is None:
                self._task_ended(source)
            elif owner.loading is not None:
                self._model_loaded(owner)
            else:
                self._block_streamed(owner)

    def _watch_for_machines(self, moved: bool) -> None:
        """Say what the run waits for where no node can do it, and end it when that takes too long.

        :raises RunError: after `run.wait_s`.
        """
        gpus = self.fleet.most_gpus(self.graph.pending_embeds(), self._resources)
        short = self._resources.node_gpus < gpus
        if moved or not (short or self._resources.node_cpus == 0):
            self._moved, self._said_waiting = time.monotonic(), False
            return
        waited, run = time.monotonic() - self._moved, self.context.run
        what = (
            f"a node with {gpus:g} GPUs (run.device, run.gpus_per_model)" if short else "a node with a core"
        )
        if waited > run.wait_s:
            raise RunError(
                f"No {what[2:]} came within {run.wait_s:g} s (run.wait_s). Finished work is kept; start one, or "
                "let the autoscaler bring one, and run again."
            )
        if waited > _SAY_S and not self._said_waiting:
            self._said_waiting = True
            self.progress.say(f"Waiting for {what}, up to {run.wait_s:g} s: the cluster has none.")

    def _fetch(self, ref: ObjectRef) -> Any:
        """Bring a value into the driver, counting its bytes; every `ray.get` of a run is this one."""
        value = ray.get(ref)
        self.fetched_bytes += value.nbytes if isinstance(value, pa.Table) else len(repr(value))
        return value

    def _model_loaded(self, replica: Replica) -> None:
        assert replica.loading is not None
        try:
            report = self._fetch(replica.loading)
        except Exception as error:
            self._lose_replica(replica, classify(error, of_actor=True))
            return
        replica.loading, replica.layers = None, report["layers"]
        self.fleet.loaded(replica)
        self.events.add("model_loaded", model=self.plan.models[replica.model].name, **report)
        self.progress.advance("models loaded")

    def _block_streamed(self, replica: Replica) -> None:
        """Take the next item of a stream: a layer's reference, the report, or the end."""
        assert replica.stream is not None
        try:
            replica.items.append(next(replica.stream))
        except StopIteration:
            self._stream_ended(replica)

    def _stream_ended(self, replica: Replica) -> None:
        """A shard is done when its stream has ended, not when its report is there: Ray fails the
        objects of a stream whose actor goes before the end of it was noted.
        """
        assert replica.task is not None
        blocks = replica.items[:-1]
        try:
            # Of a stream that broke, the last item holds the error.
            report = self._fetch(replica.items[-1]) if replica.items else None
        except Exception as error:
            self._lose_replica(replica, classify(error, of_actor=True))
            return
        if len(blocks) != replica.layers or not isinstance(report, dict):
            ended = RunError(f"The stream of blocks ended after {len(replica.items)} items.")
            self._lose_replica(replica, Failure(Loss.WORKER, ended))
            return
        task = replica.task
        self.outputs[task] = tuple(blocks)
        replica.task, replica.stream, replica.items = None, None, []
        self.fleet.embedded(replica.model, report["end"] - report["start"])
        self._live.append((task, report["bytes_out"]))
        self._live_bytes += report["bytes_out"]
        self._complete(task, report)
        self.progress.advance("samples embedded", len(self.plan.shards[task.shard]))
        self._bound_objects()

    def _task_ended(self, ref: ObjectRef) -> None:
        task, environment = self.running.pop(ref), self._environments.pop(ref)
        try:
            report = self._fetch(ref)
            if isinstance(task, Score):
                self.scores[task] = self._fetch(self.outputs[task][0])
        except Exception as error:
            self.outputs.pop(task, None)
            self._lose_task(task, error, environment)
            return
        self._complete(task, report)
        if isinstance(task, Score):
            self.progress.advance("pairs")
        elif isinstance(task, NeighborTile | KernelTile | PermutedKernel | RowState):
            self.progress.advance("tiles")

    def _complete(self, task: Task, report: dict[str, Any]) -> None:
        self.events.add(
            event_of(task), task=label(self.plan, task), attempt=self._attempts[task] + 1, **report
        )
        for unread in self.graph.complete(task):
            self.outputs.pop(unread, None)
        if isinstance(task, Score):
            self.outputs.pop(task, None)

    def _bound_objects(self) -> None:
        """Drop the oldest feature objects beyond a share of the object store: readers take the store."""
        budget = self._resources.object_store_bytes * _OBJECT_STORE_SHARE
        while self._live and (self._live_bytes > budget or self._live[0][0] not in self.outputs):
            task, size = self._live.popleft()
            self._live_bytes -= size
            if self.outputs.pop(task, None) is not None:
                self.events.add("objects_dropped", task=label(self.plan, task), bytes=size)

    # -- losses --------------------------------------------------------------------------------

    def _lose_replica(self, replica: Replica, failure: Failure) -> None:
        """An actor failed while loading or embedding: its shard goes back, others take over."""
        self.replicas.remove(replica)
        ray.kill(replica.actor)
        if failure.loss is Loss.APPLICATION:
            raise failure.error
        if failure.loss is Loss.ENVIRONMENT:
            if replica.task is not None:
                self.graph.give_back(replica.task)
            self._lose_environment(replica.environment, failure.error)
            return
        if replica.task is not None:
            self._again(replica.task, failure.loss, failure.error)
            return
        name = self.plan.models[replica.model].name
        self._load_attempts[replica.model] += 1
        self.events.add("lost", what=f"model {name}", loss=failure.loss.value, error=_short(failure.error))
        if self._load_attempts[replica.model] >= MOST_ATTEMPTS:
            raise RunError(
                f"The process loading model {name!r} died {MOST_ATTEMPTS} times ({_short(failure.error)}). "
                "It may not fit into memory. Finished work is kept; run again to resume."
            )

    def _lose_task(self, task: Task, error: Exception, environment: int) -> None:
        failure = classify(error, of_actor=False)
        if failure.loss is Loss.APPLICATION:
            raise failure.error
        if failure.loss is Loss.ENVIRONMENT:
            self.graph.give_back(task)
            self._lose_environment(environment, failure.error)
            return
        if failure.loss is Loss.INPUT:
            # Whatever was handed over as objects is read from the store next time, and what the
            # store turned out not to hold is made again.
            for need in self.graph.needs(task):
                self.outputs.pop(need, None)
            if isinstance(failure.error, MissingInputError):
                for missing in failure.error.tasks:
                    if self.graph.is_done(missing):  # else another reader has reported it already
                        self.graph.undo(missing)
                        self._count_attempt(missing, failure.loss, failure.error)
                self.graph.give_back(task)
                return
        self._again(task, failure.loss, failure.error)

    def _lose_environment(self, environment: int, error: BaseException) -> None:
        """A node could not set up what the job brings along: try after a pause, under another name.

        Nodes remember for minutes that an environment failed, and an environment by its name alone.
        """
        if environment < self._environment:
            return  # others of the same have said so already
        if environment == len(_ENVIRONMENT_PAUSES_S):
            raise RunError(
                f"No process could be started in the job's environment, {environment + 1} times over "
                f"{sum(_ENVIRONMENT_PAUSES_S):.0f} s: {_last_line(error)} Check that every node reaches the head, "
                "and has room on its disk. Finished work is kept; run again to resume."
            )
        pause = _ENVIRONMENT_PAUSES_S[environment]
        self._environment, self._paused_until = environment + 1, time.monotonic() + pause
        self.events.add("lost", what="environment", loss=Loss.ENVIRONMENT.value, error=_last_line(error))

    def _renewed_environment(self) -> dict[str, Any] | None:
        """Return what to add to the job's environment: nothing, until it could not be set up."""
        if self._environment == 0:
            return None
        return {"env_vars": {"PLATONIC_RAY_ENVIRONMENT": str(self._environment)}}

    def _again(self, task: Task, loss: Loss, error: BaseException) -> None:
        self._count_attempt(task, loss, error)
        self.graph.give_back(task)

    def _count_attempt(self, task: Task, loss: Loss, error: BaseException) -> None:
        self._attempts[task] += 1
        self.events.add(
            "lost",
            what=label(self.plan, task),
            loss=loss.value,
            attempt=self._attempts[task],
            error=_short(error),
        )
        if self._attempts[task] >= MOST_ATTEMPTS:
            raise RunError(
                f"{label(self.plan, task)} was lost {MOST_ATTEMPTS} times; last: {_short(error)}. "
                "Finished work is kept; run again to resume."
            )

    def _stop(self) -> None:
        """End every actor and task of this run; what they had committed stays."""
        for replica in self.replicas:
            ray.kill(replica.actor)
        for ref in self.running:
            ray.cancel(ref, force=True)
        self.fleet.replicas, self.running, self.outputs = [], {}, {}


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


def _last_line(error: BaseException) -> str:
    """Return what a text that holds a traceback of another process comes to."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:400]
