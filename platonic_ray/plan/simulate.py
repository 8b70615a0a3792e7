"""A run before it is made: a discrete-event simulation of the schedule, with losses. Pure and seeded.

Workers take tasks of the most advanced group that has any free, as the scheduler does, and a worker
that goes leaves its task to others: what was durable is read, what was not is done again. Nothing
here is an object a task: a worker is handed a **run** of equal tasks, long while much is left and a
single one at the end, so that 10⁸ tasks take some ten thousand events and the tail is that of single
tasks. A loss finds the task that was in progress within a run, so what is repeated is exact.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from platonic_ray.plan.costs import Group, seconds_of, setup_seconds, tasks_a_call
from platonic_ray.plan.machines import REPLACED_S, Cluster

_SHARES = 4  # a run is at most this part of a worker's fair share of what is left
_RELEASE = {"rows": 1, "tiles": 2}
_MOST_EVENTS = 20_000_000


@dataclass(frozen=True)
class Losses:
    """How nodes go: so many an hour for each node; another takes the place after `replaced_s`."""

    node_hour: float = 0.0
    replaced_s: float = REPLACED_S


@dataclass(frozen=True)
class Outcome:
    """What a run would take.

    `busy_s` are worker-seconds of tasks that counted, `setup_s` of loading models and compiled loops,
    `repeated_s` of work that was lost and done again; the rest of `workers × seconds` is waiting, for
    tasks or for bytes. `dispatch_s` is what the driver spent.
    """

    seconds: float
    workers: int
    nodes: int
    tasks: int
    busy_s: float
    setup_s: float
    repeated_s: float
    repeated_tasks: int
    losses: int
    dispatch_s: float
    finished_s: dict[str, float] = field(default_factory=dict)

    @property
    def busy_share(self) -> float:
        """The share of the workers' time in which they did what counted."""
        return self.busy_s / (self.workers * self.seconds) if self.seconds else 1.0

    @property
    def node_hours(self) -> float:
        """Hours of nodes, from the first task to the last."""
        return self.nodes * self.seconds / 3600

    @property
    def repeated_share(self) -> float:
        """What was done again, as a share of what counted."""
        return self.repeated_s / self.busy_s if self.busy_s else 0.0


def critical_path_s(groups: Sequence[Group], cluster: Cluster) -> float:
    """Return the longest chain of single tasks: no number of workers is faster."""
    ends: list[float] = []
    for group in groups:
        before = max((ends[at] for at, _ in group.after), default=0.0)
        ends.append(before + (seconds_of(group, cluster) if group.count else 0.0))
    return max(ends, default=0.0)


def shared_seconds(group: Group, cluster: Cluster) -> tuple[float, ...]:
    """Return what one task takes of what all workers share: the driver, the store, the network."""
    machine, nodes, work = cluster.machine, cluster.busy_nodes, group.work
    dispatch_s = machine.dispatch_s / tasks_a_call(group.kind, seconds_of(group, cluster), work)
    if not machine.overlaps:
        return (dispatch_s,)
    return (
        dispatch_s,
        (work.store_bytes + work.written_bytes) / (machine.store_bytes_s * nodes),
        work.object_bytes / (machine.network_bytes_s * nodes) if nodes > 1 else 0.0,
    )


def total_work_s(groups: Sequence[Group], cluster: Cluster) -> float:
    """Return the worker-seconds of all tasks."""
    return sum(group.count * seconds_of(group, cluster) for group in groups)


def efficiency(groups: Sequence[Group], cluster: Cluster, workers: int) -> float:
    """Return the parallel efficiency of so many workers: T(1) / (workers · T(workers))."""
    one = simulate(groups, cluster.of(1)).seconds
    return one / (workers * simulate(groups, cluster.of(workers)).seconds)


def simulate(
    groups: Sequence[Group], cluster: Cluster, losses: Losses | None = None, seed: int = 0
) -> Outcome:
    """Return what a run of these groups takes on a cluster.

    :raises ValueError: if a group reads one that does not come before it.
    """
    for at, group in enumerate(groups):
        if any(not 0 <= other < at for other, _ in group.after):
            raise ValueError(f"group {at} ({group.kind}) reads a group that does not come before it")
    return _Simulation(groups, cluster, losses or Losses(), seed).run()


@dataclass
class _Worker:
    """A worker and the run it is at: `size` tasks of a group from `start` on, each of `task_s`."""

    node: int
    group: int | None = None
    loaded: int | None = None
    start: float = 0.0
    setup_s: float = 0.0
    task_s: float = 0.0
    size: int = 0
    turn: int = 0
    alive: bool = True


class _Simulation:
    def __init__(self, groups: Sequence[Group], cluster: Cluster, losses: Losses, seed: int) -> None:
        self._groups, self._cluster, self._losses = groups, cluster, losses
        self._random = random.Random(seed)
        count = cluster.workers
        self._workers = [_Worker(at // cluster.machine.workers) for at in range(count)]
        self._task_s = [seconds_of(group, cluster) for group in groups]
        # Of each path that all workers share, the part that a worker asks for while it does such tasks.
        self._shares = [
            tuple(shared / max(task, 1e-9) for shared in shared_seconds(group, cluster))
            for group, task in zip(groups, self._task_s, strict=True)
        ]
        paths = len(self._shares[0]) if groups else 0
        self._demands, self._users = [0.0] * paths, [0] * paths
        self._setup_s = [setup_seconds(group, cluster.machine) for group in groups]
        self._loaded = [0] * len(groups)  # workers that hold each group's model
        self._taken = [0] * len(groups)
        self._done = [0] * len(groups)
        self._readers: list[list[int]] = [[] for _ in groups]
        for at, group in enumerate(groups):
            for other, _ in group.after:
                self._readers[other].append(at)
        self._free = [self._released(at) for at in range(len(groups))]
        # What a node holds of results that are not durable.
        self._held: list[dict[int, int]] = [{} for _ in range(cluster.busy_nodes)]
        self._events: list[tuple[float, int, int, int]] = []  # time, order, worker (or −1 − node), turn
        self._order = 0
        self._open = [at for at, group in enumerate(groups) if group.count]
        self._busy = self._setup = self._repeated = 0.0
        self._repeated_tasks = self._lost = 0
        self._finished: dict[str, float] = {}

    def run(self) -> Outcome:
        now = 0.0
        idle = list(range(len(self._workers)))
        self._hand_out(idle, now)
        self._next_loss(now)
        handled = 0
        while self._open:
            handled += 1
            if not self._events or handled > _MOST_EVENTS:
                raise RuntimeError("the simulation does not end: a fault of platonic_ray")
            now, _, who, turn = heapq.heappop(self._events)
            if who < 0:
                self._node_event(-1 - who, turn, now, idle)
            else:
                worker = self._workers[who]
                if turn != worker.turn or worker.group is None:
                    continue
                self._complete(worker, worker.size, now)
                self._demand(worker, -1)
                worker.group = None
                heapq.heappush(idle, who)
            self._hand_out(idle, now)
        done = sum(group.count for group in self._groups)
        return Outcome(
            seconds=now,
            workers=len(self._workers),
            nodes=self._cluster.busy_nodes,
            tasks=done,
            busy_s=self._busy - self._repeated,
            setup_s=self._setup,
            repeated_s=self._repeated,
            repeated_tasks=self._repeated_tasks,
            losses=self._lost,
            dispatch_s=self._dispatch_s(),
            finished_s=self._finished,
        )

    def _dispatch_s(self) -> float:
        """Return what the driver spent on all tasks, and on those that were done again."""
        told = sum(group.count * shared_seconds(group, self._cluster)[0] for group in self._groups)
        return told + self._repeated_tasks * self._cluster.machine.dispatch_s

    def _push(self, time: float, who: int, turn: int) -> None:
        self._order += 1
        heapq.heappush(self._events, (time, self._order, who, turn))

    # -- work ----------------------------------------------------------------------------------

    def _hand_out(self, idle: list[int], now: float) -> None:
        begun: list[int] = []
        while idle:
            who = heapq.heappop(idle)
            worker = self._workers[who]
            if not worker.alive or worker.group is not None:
                continue
            found = self._choose(worker)
            if found is None:
                heapq.heappush(idle, who)
                break
            at, size = found
            self._taken[at] += size
            worker.group, worker.start, worker.size = at, now, size
            worker.setup_s = self._setup_s[at] if self._setup_s[at] and worker.loaded != at else 0.0
            if self._setup_s[at]:
                self._load(worker, at)
            if not worker.turn:
                worker.setup_s += self._cluster.machine.warm_s
            self._demand(worker, 1)
            begun.append(who)
        for who in begun:
            worker = self._workers[who]
            assert worker.group is not None
            worker.task_s = self._task_s[worker.group] * self._slowed(worker.group)
            worker.turn += 1
            self._push(now + worker.setup_s + worker.size * worker.task_s, who, worker.turn)

    def _demand(self, worker: _Worker, sign: int) -> None:
        """Count a run among the users of the shared paths, or take it out."""
        assert worker.group is not None
        for path, share in enumerate(self._shares[worker.group]):
            if share:
                self._demands[path] += sign * share
                self._users[path] += sign

    def _slowed(self, at: int) -> float:
        """Return how many times as long a task takes because others use the same paths.

        A path gives each of its users the same, and what one leaves to the others; so a task is slowed
        where it wants more than its part of a path that is asked for more than it has.
        """
        slowed = 1.0
        for path, share in enumerate(self._shares[at]):
            if self._demands[path] > 1:
                slowed = max(slowed, min(share * self._users[path], self._demands[path]))
        return slowed

    def _load(self, worker: _Worker, group: int | None) -> None:
        if worker.loaded is not None:
            self._loaded[worker.loaded] -= 1
        if group is not None:
            self._loaded[group] += 1
        worker.loaded = group

    def _choose(self, worker: _Worker) -> tuple[int, int] | None:
        """Choose the most advanced group that has tasks free, and how many of them to take.

        A worker stays with the model that it has loaded; else it takes one that fewest others have.
        """
        best: int | None = None
        for at in reversed(self._open):
            if self._free[at] <= self._taken[at]:
                continue
            if not self._setup_s[at] or at == worker.loaded:
                best = at
                break
            if best is None or self._loaded[at] < self._loaded[best]:
                best = at
        if best is None:
            return None
        left = self._groups[best].count - self._taken[best]
        size = max(1, left // (_SHARES * len(self._workers)))
        return best, min(size, self._free[best] - self._taken[best])

    def _released(self, at: int) -> int:
        """Return how many tasks of a group may have started: what they read is there."""
        share = 1.0
        for other, how in self._groups[at].after:
            total = self._groups[other].count
            if self._done[other] >= total:
                continue
            if how == "all":
                return 0
            share = min(share, (self._done[other] / total) ** _RELEASE[how])
        return int(share * self._groups[at].count)

    def _release_readers(self, at: int) -> None:
        for reader in self._readers[at]:
            self._free[reader] = self._released(reader)

    def _complete(self, worker: _Worker, count: int, now: float) -> None:
        at = worker.group
        assert at is not None
        self._done[at] += count
        self._release_readers(at)
        self._busy += count * self._task_s[at]
        self._setup += worker.setup_s
        group = self._groups[at]
        if not group.durable and count:
            held = self._held[worker.node]
            held[at] = held.get(at, 0) + count
        if self._done[at] >= group.count and at in self._open:
            self._open.remove(at)
            self._finished[group.kind] = now

    # -- losses --------------------------------------------------------------------------------

    def _next_loss(self, now: float) -> None:
        rate = self._losses.node_hour * self._cluster.busy_nodes / 3600
        if rate > 0:
            node = self._random.randrange(self._cluster.busy_nodes)
            self._push(now + self._random.expovariate(rate), -1 - node, 0)

    def _node_event(self, node: int, back: int, now: float, idle: list[int]) -> None:
        """A node goes (`back` = 0), or another has come in its place."""
        here = [who for who, worker in enumerate(self._workers) if worker.node == node]
        if back:
            for who in here:
                self._workers[who].alive = True
                heapq.heappush(idle, who)
            return
        self._next_loss(now)
        if not self._workers[here[0]].alive:
            return  # it has gone already
        self._lost += 1
        for who in here:
            self._lose_worker(self._workers[who], now)
        self._lose_results(node)
        self._push(now + self._losses.replaced_s, -1 - node, 1)

    def _lose_worker(self, worker: _Worker, now: float) -> None:
        worker.alive = False
        self._load(worker, None)
        worker.turn += 1
        at = worker.group
        if at is None:
            return
        ran = now - worker.start - worker.setup_s
        done = min(worker.size, max(0, int(ran / worker.task_s))) if worker.task_s else worker.size
        self._taken[at] -= worker.size - done
        self._complete(worker, done, now)
        partly = max(0.0, ran - done * worker.task_s) * self._task_s[at] / max(worker.task_s, 1e-9)
        self._demand(worker, -1)
        self._busy += partly
        self._repeated += partly
        self._repeated_tasks += int(done < worker.size and ran > 0)
        worker.group = None

    def _lose_results(self, node: int) -> None:
        """Do again what lived on a node alone and is still to be read."""
        for at, count in self._held[node].items():
            readers = [self._groups[reader] for reader in self._readers[at]]
            total = sum(group.count for group in readers)
            read = sum(self._done[reader] for reader in self._readers[at])
            again = round(count * (1 - read / total)) if total else 0
            again = min(again, self._done[at])
            if not again:
                continue
            self._done[at] -= again
            self._release_readers(at)
            self._taken[at] -= again
            self._repeated += again * self._task_s[at]
            self._repeated_tasks += again
            if at not in self._open:
                self._open = sorted([*self._open, at])
        self._held[node] = {}
