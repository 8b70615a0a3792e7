"""The driver's side of a run on Ray: starts models, dispatches tasks, takes what comes back.

The driver moves references, never features. Its whole state:

* `graph`: which task waits, is ready, taken, done or refused (`platonic_ray.plan.TaskGraph`);
* `fleet`: the model actors, each loading, idle, or streaming a shard, or several where they are short;
* `running`: the attempts under way, by the reference of their report;
* `held`: references to results that are still to be read.

What is done about losses stands in `losses`, what machines there are in `watching`. A shard, block or
tile is durable before its worker reports it, so dropping any reference, or this whole process, loses
nothing that was finished; and doing a thing twice, as is done with stragglers, harms nothing.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import ray
from ray import ObjectRef
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from platonic_ray.engine import cluster, remote
from platonic_ray.engine.attempts import Attempt, late_shards, late_tasks
from platonic_ray.engine.context import MOST_ATTEMPTS, Context, event_of, facts_of, label
from platonic_ray.engine.events import EventLog
from platonic_ray.engine.failures import Failure, Loss, classify
from platonic_ray.engine.fleet import Fleet
from platonic_ray.engine.held import Held
from platonic_ray.engine.losses import Losses
from platonic_ray.engine.progress import ProgressDisplay
from platonic_ray.engine.replica import Replica
from platonic_ray.engine.sharing import Sharing
from platonic_ray.engine.watching import Machines
from platonic_ray.engine.work import OBJECTS_ONLY, TILES
from platonic_ray.errors import RunError
from platonic_ray.plan import Embed, Score, Task, TaskGraph
from platonic_ray.plan.costs import name_of

_TASKS_PER_CORE = 3
_OBJECT_STORE_SHARE = 0.4
_POLL_S = 0.25


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
        weight_bytes: Sequence[int],
        peaks: Mapping[tuple[str, str], float],
        told_to_end: threading.Event,
    ) -> None:
        self._told_to_end = told_to_end
        self._weight_bytes, self._peaks = weight_bytes, peaks
        self.context = context
        self.plan = context.plan
        self.graph = graph
        self.events = events
        self.progress = progress
        self.losses = Losses(context, graph, events)
        self.machines = Machines(context.run, progress, sharing)
        self.scores: dict[Score, pa.Table] = {}
        self.fleet = Fleet(context.run, costs, context.gpus)
        self.running: dict[ObjectRef, Attempt] = {}
        self.held = Held(context.metrics)
        self.fetched_bytes = 0
        self._took: defaultdict[type, deque[float]] = defaultdict(lambda: deque(maxlen=99))
        self._late: Counter[Task] = Counter()
        self._context_ref = ray.put(context)

    @property
    def replicas(self) -> list[Replica]:
        """The model actors there are."""
        return self.fleet.replicas

    def run(self) -> dict[Score, pa.Table]:
        """Run until every task is done; return the score tables.

        :raises PlatonicRayError: the first error of the application (bad features, disk full, …), or,
            when everything else is done, what was lost too many times.
        """
        self._start_models()
        self._prepare_workers()
        try:
            while not self.graph.finished:
                if self._told_to_end.is_set():
                    raise KeyboardInterrupt
                if time.monotonic() >= self.losses.paused_until:
                    self._start_models()
                    self._submit()
                self._wait()
        finally:
            self._stop()
        self.losses.raise_refused()
        return self.scores

    # -- dispatch ------------------------------------------------------------------------------

    def _start_models(self) -> None:
        """Give idle replicas their next shards, end those without work, start others in free slots."""
        self.machines.look()
        for replica in [r for r in self.replicas if r.loading is None and not r.tasks]:
            self._next_shards(replica)
        if not self.graph.pending_embeds() and not self.losses.suspects and not self._late_shards():
            for replica in [r for r in self.replicas if r.loading is not None]:
                self._end(replica)  # it would have come too late; while it waits, it asks for a machine
        there = self.machines.resources
        while (model := self._next_model()) is not None:
            gpus, pieces = self.fleet.gpus_of(model, there), self.losses.pieces(model)
            cpus = self._cores_of(model)
            if pieces and not gpus:  # what ran out of memory has a node alone
                cpus = max(cpus, there.node_cpus)
            environment, renewed = self.losses.renewed_environment()
            actor = remote.ModelActor.options(
                num_cpus=cpus,
                num_gpus=gpus,
                scheduling_strategy="SPREAD",
                runtime_env=renewed,
            ).remote(self._context_ref, model, pieces)
            loading = actor.describe.remote()
            self.replicas.append(Replica(model, actor, loading, gpus, cpus, environment, pieces))

    def _prepare_workers(self) -> None:
        """Have a process ready for every core, where each will do some tasks.

        To start one takes seconds, and Ray would do it when a task is handed out: as models end and leave their cores
        to tiles, these would be idle for so long.
        """
        nodes = {name: int(offers.get("CPU", 0)) for name, offers in cluster.nodes().items()}
        if self.graph.count(TILES) < _TASKS_PER_CORE * sum(nodes.values()):
            return
        for name, cores in nodes.items():
            there = NodeAffinitySchedulingStrategy(name, soft=True)
            for _ in range(cores):
                remote.get_ready.options(name="get ready", scheduling_strategy=there).remote()

    def _cores_of(self, model: int) -> float:
        """Return the cores that Ray is told of a model: what its threads take, or those that have its memory."""
        there = self.machines.resources
        if gpus := self.fleet.gpus_of(model, there):
            return min(1.0, gpus)
        # More threads than a node has cores are slow, but must not wait for a node that never comes.
        threads = min(cluster.HALF_CORE * self.context.run.threads, there.node_cpus or 1.0)
        return max(threads, cluster.cores_for(self._weight_bytes[model], there))

    def _next_model(self, leaving: Replica | None = None) -> int | None:
        left = Counter(self.graph.pending_embeds()) + Counter(task.model for task in self.losses.suspects)
        late = {task.model for task in self._late_shards()}
        return self.fleet.next_model(left, self.machines.resources, leaving, late, self._cores_of)

    def _late_shards(self) -> list[Embed]:
        return late_shards(self.replicas, self.fleet.shard_s) if self.machines.several else []

    def _next_shards(self, replica: Replica) -> None:
        """Give a replica a suspect, shards that wait, or one that is late elsewhere; else another model."""
        there, stays = self.machines.resources, not self.machines.goes(replica.node)
        if stays and replica.pieces == self.losses.pieces(replica.model):
            suspect = next((task for task in self.losses.suspects if task.model == replica.model), None)
            if suspect is not None:
                self.losses.suspects.remove(suspect)
                replica.search(suspect)
                return
            waiting = self.graph.pending_embeds().get(replica.model, 0)
            most = 1 if replica.pieces else self.fleet.at_once(replica.model, waiting)
            tasks = self.graph.take_embeds(replica.model, most, self._go_together)
            if not tasks:
                tasks = tuple(task for task in self._late_shards() if task.model == replica.model)[:1]
                for task in tasks:
                    self.events.add("late", **facts_of(self.plan, task))
            if tasks:
                replica.begin(tasks)
                return
        model = self._next_model(leaving=replica) if stays and not replica.pieces else None
        # A process that has imported what models need takes the next one in less time than a new one starts.
        if (
            model is not None
            and not self.losses.pieces(model)
            and self.fleet.gpus_of(model, there) == replica.gpus
            and self._cores_of(model) == replica.cores
        ):
            replica.model, replica.started = model, time.monotonic()
            replica.loading = replica.actor.take.remote(model, 0)
            return
        self._end(replica)

    def _go_together(self, first: Embed, other: Embed) -> bool:
        """Whether two shards may be done in one call: what was lost goes alone, and what no tile reads together."""
        tries = {self.losses.attempt(first), self.losses.attempt(other)}
        blocks = {self.plan.shards[task.shard].start // self.plan.block_rows for task in (first, other)}
        return tries == {1} and len(blocks) == 1

    def _end(self, replica: Replica) -> None:
        self.replicas.remove(replica)
        ray.kill(replica.actor)

    def _submit(self) -> None:
        """Dispatch ready tasks, bounded by a window of a few a core; where cores are idle, late ones again.

        What waits for a core is what an autoscaler goes by: of cores that were asked for, there are tasks at once.
        """
        self._withdraw_impossible()
        window = max(2, int(self.machines.resources.cpus * _TASKS_PER_CORE))
        asked = self.context.run.ask_cpus or 0
        while len(self.running) < window or (asked and self._sent_cores() < asked):
            task = self.graph.take()
            if task is None:
                break
            needs = list(self.graph.needs(task))
            lost = [need for need in needs if isinstance(need, OBJECTS_ONLY) and need not in self.held]
            if lost:
                for need in lost:
                    self.graph.undo(need)
                self.graph.give_back(task)
                continue
            self._send(task, *self.held.handed(task, needs))
        if self._sent_cores() < self.machines.resources.cpus and self.machines.several:
            for task in late_tasks(self.running.values(), self._took, self.graph):
                if self._late[task] == MOST_ATTEMPTS:
                    continue  # its first attempt goes on, and whatever else was begun has failed
                self._late[task] += 1
                # From the store: what its first attempt was handed may be what it waits for.
                self.events.add("late", **facts_of(self.plan, task))
                self._send(task, (), [])

    def _sent_cores(self) -> float:
        """Return the cores that the tasks under way have, or wait for."""
        return sum(attempt.cores for attempt in self.running.values())

    def _withdraw_impossible(self) -> None:
        """Take back what asks for more cores than any node has, now that the node it was meant for is gone."""
        most = self.machines.resources.node_cpus
        for replica in [r for r in self.replicas if r.loading is not None and 0 < most < r.cores]:
            self._end(replica)
        for ref, attempt in list(self.running.items()):
            if 0 < most < attempt.cores:
                del self.running[ref]
                ray.cancel(ref, force=True)
                if not any(other.task == attempt.task for other in self.running.values()):
                    self.graph.give_back(attempt.task)

    def _send(self, task: Task, slots: remote.Slots, refs: list[ObjectRef]) -> None:
        pieces = self.losses.pieces(task)
        environment, renewed = self.losses.renewed_environment()
        there = self.machines.resources
        # What ran out of memory runs alone on its node.
        cores = (
            max(there.node_cpus, cluster.HALF_CORE)
            if pieces
            else cluster.cores_of_task(
                self._peaks.get(name_of(self.plan, task), 0.0), there, len(self.replicas)
            )
        )
        function = remote.run_task.options(
            name=label(self.plan, task),
            num_cpus=cores,
            runtime_env=renewed,
            scheduling_strategy="DEFAULT" if refs else "SPREAD",
        )
        report, output = function.remote([self._context_ref], task, pieces, slots, *refs)
        self.running[report] = Attempt(task, output, time.monotonic(), environment, cores)

    # -- what comes back -----------------------------------------------------------------------

    def _wait(self) -> None:
        waiting: list[Any] = list(self.running)
        by_source: dict[Any, Replica] = {}
        for replica in self.replicas:
            source = replica.loading or replica.awaited
            if source is not None:
                by_source[source] = replica
        waiting += by_source
        if not waiting:
            if (pause := self.losses.paused_until - time.monotonic()) > 0:
                time.sleep(min(pause, _POLL_S))
            elif not self.graph.pending_embeds() and not self.losses.suspects and not self.graph.finished:
                raise RunError("Nothing is running and nothing is ready: this is a fault of platonic_ray.")
            return
        ready, _ = ray.wait(waiting, num_returns=1, timeout=_POLL_S, fetch_local=False)
        self.events.flush_if_due()
        gpus = self.fleet.most_gpus(self.graph.pending_embeds(), self.machines.resources)
        self.machines.wait_for_some(bool(ready), gpus)
        if ready:  # take whatever else has finished meanwhile
            ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0, fetch_local=False)
        for source in ready:
            owner = by_source.get(source)
            if owner is None:
                if source in self.running:  # else another of its attempts came first
                    self._task_ended(source)
            elif owner not in self.replicas:
                continue
            elif owner.loading is not None:
                self._model_loaded(owner)
            else:
                self._streamed(owner)

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
        replica.loading, replica.layers, replica.node = None, report["layers"], report["node"]
        self.fleet.loaded(replica)
        self.events.add("model_loaded", model=self.plan.models[replica.model].name, **report)
        self.progress.advance("models loaded")

    def _streamed(self, replica: Replica) -> None:
        """Take a stream that has ended; of a search, the next id."""
        assert replica.stream is not None
        if not replica.searching:
            self._stream_ended(replica)
            return
        try:
            replica.sample = self._fetch(next(replica.stream))
        except StopIteration:
            self._searched(replica, None)
        except Exception as error:
            failure = classify(error, of_actor=True)
            if failure.loss is Loss.APPLICATION:
                raise failure.error from None
            self._searched(replica, replica.sample, again=failure.by_the_node)

    def _searched(self, replica: Replica, sample: str | None, *, again: bool = False) -> None:
        (task,) = replica.tasks
        self._end(replica)
        if again:
            self.losses.suspects.append(task)
        else:
            self.losses.searched(task, sample)

    def _stream_ended(self, replica: Replica) -> None:
        try:
            layers, reports = replica.brought(self._fetch)
        except Exception as error:
            self._lose_replica(replica, classify(error, of_actor=True))
            return
        tasks, done = replica.tasks, replica.tasks[: len(reports)]
        replica.rest()
        # Of two that had the same, this one was the first; what else the other had goes back.
        twins = [other for other in self.replicas if not set(done).isdisjoint(other.tasks)]
        for twin in twins:
            self._end(twin)
        sizes = [report["bytes_out"] or report.get("bytes_found", 0) for report in reports]
        self.held.add_call(done, layers, sizes)
        if not any(report.get("found") for report in reports):
            seconds = sum(report["end"] - report["start"] for report in reports)
            self.fleet.embedded(replica.model, seconds / len(done), sum(sizes) / len(done))
        for task, report in zip(done, reports, strict=True):
            self._complete(task, report)
            self.progress.advance("samples embedded", len(self.plan.shards[task.shard]))
        self._let_go((*tasks[len(done) :], *(task for twin in twins for task in twin.tasks)))
        self._bound_objects()

    def _let_go(self, tasks: Iterable[Embed]) -> None:
        """Give back the shards that are neither done nor any actor's."""
        had = {task for replica in self.replicas for task in replica.tasks}
        for task in dict.fromkeys(tasks):
            if task not in had and not self.graph.is_done(task):
                self.graph.give_back(task)

    def _task_ended(self, ref: ObjectRef) -> None:
        attempt = self.running.pop(ref)
        task = attempt.task
        others = [other for other, twin in self.running.items() if twin.task == task]
        try:
            report = self._fetch(ref)
            if isinstance(task, Score):
                self.scores[task] = self._fetch(attempt.output)
        except Exception as error:
            failure = classify(error, of_actor=False)
            if not others or failure.loss is Loss.APPLICATION:
                self._lose_task(attempt, failure)
            return
        for other in others:
            del self.running[other]  # it was the later of two
            ray.cancel(other, force=True)
        self.held.add(task, attempt.output)
        self._took[type(task)].append(report["end"] - report["start"])
        self._complete(task, report)
        if isinstance(task, Score):
            self.progress.advance("pairs")
        elif isinstance(task, TILES):
            self.progress.advance("tiles")

    def _complete(self, task: Task, report: dict[str, Any]) -> None:
        self.events.add(
            event_of(task), **facts_of(self.plan, task), attempt=self.losses.attempt(task), **report
        )
        for unread in self.graph.complete(task):
            self.held.drop(unread)
        if isinstance(task, Score):
            self.held.drop(task)

    def _bound_objects(self) -> None:
        """Drop the oldest feature objects beyond a share of the object store: readers take the store."""
        budget = self.machines.resources.object_store_bytes * _OBJECT_STORE_SHARE
        for task, size in self.held.bound(budget).items():
            self.events.add("objects_dropped", **facts_of(self.plan, task), bytes=size)

    # -- losses --------------------------------------------------------------------------------

    def _lose_replica(self, replica: Replica, failure: Failure) -> None:
        """An actor failed while loading or embedding: its shards go back, others take over."""
        self._end(replica)
        if failure.loss is Loss.APPLICATION:
            raise failure.error
        if failure.loss is Loss.ENVIRONMENT:
            self._let_go(replica.tasks)
            self.losses.environment(replica.environment, failure.error)
        elif not replica.tasks:
            self.losses.load(replica.model, failure)
        else:
            had = {task for other in self.replicas for task in other.tasks}
            self.losses.call(replica.tasks, failure, had)

    def _lose_task(self, attempt: Attempt, failure: Failure) -> None:
        if failure.loss is Loss.ENVIRONMENT:
            self.graph.give_back(attempt.task)
            self.losses.environment(attempt.environment, failure.error)
            return
        if failure.loss is Loss.INPUT:
            # Whatever was handed over as objects is read from the store next time.
            for need in self.graph.needs(attempt.task):
                self.held.drop(need)
        self.losses.task(attempt.task, failure)

    def _stop(self) -> None:
        """End every actor and task of this run; what they had committed stays."""
        for replica in self.replicas:
            ray.kill(replica.actor)
        for ref in self.running:
            ray.cancel(ref, force=True)
        self.fleet.replicas, self.running = [], {}
        self.held.clear()
