"""What every worker of a run has to know, and the names its work goes by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from platonic_ray.datasets import Dataset, open_dataset
from platonic_ray.engine.winners import Choices, Curves
from platonic_ray.errors import DataError, RunError
from platonic_ray.metrics import Metric
from platonic_ray.models import ModelSpec
from platonic_ray.plan import (
    Clamp,
    ColumnSums,
    Embed,
    KernelProducts,
    KernelTile,
    NeighborBlock,
    NeighborTile,
    PermutedKernel,
    Plan,
    RowState,
    Scale,
    Score,
    Task,
)
from platonic_ray.statistics import Intervals, Null
from platonic_ray.store import Store
from platonic_ray.study import DatasetEntry, RunEntry


@dataclass(frozen=True)
class Context:
    """A run as its workers see it: small, frozen, shipped once a process.

    `dropped` are rows of the opened dataset that are left out of the study; `fingerprint` is that of the
    rest, `ids_digest` that of its ids alone. `null` is None where no metric of the study has one or none is
    wanted, `intervals` where none are; `curves` are the curves of growth; `interval_groups` and
    `growth_groups` `[n]` number the groups that they take as drawn together. `owners` is, for each row of
    an expanded dataset, the first row of its sample (`platonic_ray.engine.expanded`). `features` is the
    type they are kept in, `gpus` how many of them each model asks for, where it runs on any. With
    `choices`, the layers of every pair were chosen on other samples. `pieces` says how often work ran out
    of memory: how many times it is to be halved.
    """

    store: Store
    plan: Plan
    specs: tuple[ModelSpec, ...]
    metrics: tuple[Metric, ...]
    dataset: DatasetEntry
    seed: int
    dropped: tuple[int, ...]
    fingerprint: str
    ids_digest: str
    run: RunEntry
    null: Null | None = None
    curves: Curves = ()
    intervals: Intervals | None = None
    interval_groups: tuple[int, ...] | None = None
    growth_groups: tuple[int, ...] | None = None
    owners: tuple[int, ...] | None = None
    features: str = "float32"
    choices: Choices | None = None
    gpus: tuple[float, ...] = ()
    pieces: int = 0

    @property
    def k(self) -> int | None:
        """The most neighbors that a metric of the study asks for; the plan looks for more where rows have owners."""
        return max((metric.k or 0 for metric in self.metrics if metric.joint is not None), default=None)

    def open_dataset(self) -> Dataset:
        """Open the study's samples in this process, and make sure that their ids are those planned for.

        Their content is compared shard by shard, by whoever embeds one: no process reads samples that are
        not its own.

        :raises DataError: if this process sees other samples than the driver did.
        """
        opened = open_dataset(self.dataset, self.seed)
        dropped = set(self.dropped)
        kept = opened.take([row for row in range(len(opened)) if row not in dropped]) if dropped else opened
        if kept.fingerprint([]) != self.ids_digest:
            raise DataError(
                f"The dataset {self.dataset.source!r} differs between the driver and a worker, or changed during "
                "the run. Put it where every node sees the same file, and run again."
            )
        return kept

    @property
    def views(self) -> tuple[str, ...]:
        """The views that the study's models read, sorted."""
        return views_of([model.view for model in self.plan.models], self.specs)


def views_of(read: Sequence[str], specs: Sequence[ModelSpec]) -> tuple[str, ...]:
    """Return the views that models embed, and those of which they are to predict the texts, sorted."""
    predicted = {spec.likelihood_view for spec in specs} - {None}
    return tuple(sorted({*read, *(view for view in predicted if view)}))


class MissingInputError(RunError):
    """Results of earlier tasks that are neither at hand as objects nor whole in the store."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__(f"{len(tasks)} earlier results are missing")
        self.tasks = tuple(tasks)

    def __reduce__(self) -> tuple[type[MissingInputError], tuple[tuple[Task, ...]]]:
        return MissingInputError, (self.tasks,)


MOST_ATTEMPTS = 3
"""How often one piece of work may be lost before a run gives up."""


def event_of(task: Task) -> str:
    """Return the name of the event that tells of a finished task: `shard`, `NeighborTile`, …"""
    return "shard" if isinstance(task, Embed) else type(task).__name__


def facts_of(plan: Plan, task: Task) -> dict[str, Any]:
    """Return what events say of a task: its `task` by name and, where it has them, its `model` and `shard`."""
    facts: dict[str, Any] = {"task": label(plan, task)}
    if (model := getattr(task, "model", None)) is not None:
        facts["model"] = plan.models[model].name
    if isinstance(task, Embed):
        facts["shard"] = task.shard
    return facts


def label(plan: Plan, task: Task) -> str:
    """Name a task for logs and dashboards, for example `neighbors[minilm, 0×2]`."""
    names = [model.name for model in plan.models]
    if isinstance(task, Embed):
        return f"embed[{names[task.model]}, {task.shard}]"
    if isinstance(task, Clamp):
        return f"clamp[{names[task.model]}]"
    if isinstance(task, NeighborTile):
        return f"neighbors[{names[task.model]}, {task.a}×{task.b}]"
    if isinstance(task, NeighborBlock):
        return f"merge[{names[task.model]}, {task.a}]"
    if isinstance(task, KernelTile):
        return f"kernels[{task.kernel.label}, {task.a}×{task.b}]"
    if isinstance(task, Scale):
        return f"median distance[{names[task.model]}]"
    if isinstance(task, ColumnSums):
        return f"column sums[{names[task.model]}]"
    if isinstance(task, KernelProducts):
        return f"products[{task.kernel.label}, {task.part}]"
    if isinstance(task, PermutedKernel):
        return f"null[{task.kernel.label}, {task.start} to {task.stop - 1}]"
    if isinstance(task, RowState):
        return f"states[{names[task.model]}]"
    assert isinstance(task, Score)
    return f"score[{names[task.x]} – {names[task.y]}]"
