"""What a run will take, before anything is spent: the costs of its tasks, simulated on a cluster. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from platonic_ray.plan.blocks import TASK_BYTES
from platonic_ray.plan.costs import Group, groups_of, seconds_of
from platonic_ray.plan.machines import Cluster
from platonic_ray.plan.simulate import Losses, Outcome, simulate
from platonic_ray.plan.workload import Workload

_MOST_N = 2**40
PARTIAL_SHARE = 0.1
"""Durable partial results may be this part of the bytes of the features."""


@dataclass(frozen=True)
class KindForecast:
    """All tasks of one kind: how many there are and are in the store; the rest is of those left to do."""

    kind: str
    tasks: int
    stored: int
    flops: float
    read_bytes: float
    written_bytes: float
    seconds: float
    longest_s: float
    peak_bytes: float


@dataclass(frozen=True)
class Forecast:
    """A study, or what is left of it, on a cluster.

    `longest` is its longest task (kind, label, seconds), `peak_bytes` what its largest task takes, of `peak_kind`.
    `largest_n` is the largest power of two of samples that fits (None: none does), and `limit` the kind
    of task that does not fit beyond. `cost` is in the currency of the price, of nodes from the first task
    to the last.
    """

    workload: Workload
    cluster: Cluster
    kinds: tuple[KindForecast, ...]
    outcome: Outcome
    longest: tuple[str, str, float]
    feature_bytes: int
    partial_bytes: float
    object_bytes: float
    peak_bytes: float
    peak_kind: str
    largest_n: int | None
    limit: str
    cost: float | None

    @property
    def fits(self) -> bool:
        """Whether every task fits the memory of a worker."""
        return self.peak_bytes <= self.cluster.machine.memory_bytes


def left_to_do(groups: Sequence[Group], todo: Mapping[tuple[str, str], int] | None) -> tuple[Group, ...]:
    """Return groups with as many tasks as are left of each kind and label (None: all)."""
    if todo is None:
        return tuple(groups)
    there: dict[tuple[str, str], int] = {}
    for group in groups:
        name = (group.kind, group.label)
        there[name] = there.get(name, 0) + group.count
    left = dict(todo)
    made = []
    for group in groups:
        name = (group.kind, group.label)
        if group.kind == "Score":
            count = sum(number for (kind, _), number in todo.items() if kind == "Score")
        else:
            count = min(group.count, left.get(name, 0), -(-todo.get(name, 0) * group.count // there[name]))
            left[name] = left.get(name, 0) - count
        made.append(replace(group, count=count))
    return tuple(made)


def forecast(
    workload: Workload,
    cluster: Cluster,
    todo: Mapping[tuple[str, str], int] | None = None,
    losses: Losses | None = None,
    price_h: float | None = None,
    task_bytes: float = TASK_BYTES,
) -> Forecast:
    """Forecast a study.

    :param todo: tasks that are left, by kind and label; None where all are.
    :param price_h: of a node and hour.
    :param task_bytes: what the study gives a task on tiles, for studies of other sizes.
    """
    every = groups_of(workload)
    groups = left_to_do(every, todo)
    outcome = simulate(groups, cluster, losses)
    running = [group for group in groups if group.count] or [every[-1]]
    longest = max(running, key=lambda group: seconds_of(group, cluster))
    largest = max(every, key=lambda group: group.work.peak_bytes)
    fits_to, limit = largest_n(workload, cluster, task_bytes)
    return Forecast(
        workload=workload,
        cluster=cluster,
        kinds=tuple(
            _kind(kind, every, groups, cluster) for kind in dict.fromkeys(group.kind for group in every)
        ),
        outcome=outcome,
        longest=(longest.kind, longest.label, seconds_of(longest, cluster)),
        feature_bytes=workload.feature_bytes,
        partial_bytes=sum(group.total("written_bytes") for group in every if group.partial),
        object_bytes=sum(group.total("output_bytes") for group in every if not group.durable),
        peak_bytes=largest.work.peak_bytes,
        peak_kind=largest.kind,
        largest_n=fits_to,
        limit=limit,
        cost=None if price_h is None else price_h * outcome.node_hours,
    )


def _kind(kind: str, every: Sequence[Group], left: Sequence[Group], cluster: Cluster) -> KindForecast:
    tasks = sum(group.count for group in every if group.kind == kind)
    groups = [group for group in left if group.kind == kind]
    return KindForecast(
        kind=kind,
        tasks=tasks,
        stored=tasks - sum(group.count for group in groups),
        flops=sum(group.total("flops") for group in groups),
        read_bytes=sum(
            group.total(name) for group in groups for name in ("store_bytes", "object_bytes", "local_bytes")
        ),
        written_bytes=sum(group.total("written_bytes") for group in groups),
        seconds=sum(group.count * seconds_of(group, cluster) for group in groups),
        longest_s=max((seconds_of(group, cluster) for group in groups if group.count), default=0.0),
        peak_bytes=max(group.work.peak_bytes for group in groups),
    )


def largest_n(workload: Workload, cluster: Cluster, task_bytes: float = TASK_BYTES) -> tuple[int | None, str]:
    """Return the largest power of two of samples at which every task fits a worker, and what stops there."""
    n, fitting, limit = 2, None, ""
    while n <= _MOST_N:
        largest = max(groups_of(workload.at(n, task_bytes)), key=lambda group: group.work.peak_bytes)
        if largest.work.peak_bytes > cluster.machine.memory_bytes:
            limit = largest.kind
            break
        fitting = n
        n *= 2
    return fitting, limit
