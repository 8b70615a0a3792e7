"""What a study costs: from shapes to groups of equal tasks, each with its work. Pure.

No clock, no I/O, no Ray, and no object a task: a group stands for up to 10⁸ tasks, so that the plan of
a billion samples takes as long as that of a thousand. Counts are those of `Plan.prerequisites`; sums
over ragged last blocks are exact, and a group's tasks are all given their mean. Peaks are of the
largest task.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from platonic_ray.kernels import DENSE_VALUES, LEAF, MICRO, Kernel
from platonic_ray.plan.blocks import (
    ID_BYTES,
    PANEL_BYTES,
    SCRATCH_BYTES,
    kernel_tile_bytes,
    neighbor_tile_bytes,
    products_bytes,
)
from platonic_ray.plan.calls import shards_a_call
from platonic_ray.plan.machines import Cluster, Machine
from platonic_ray.plan.plan import Plan
from platonic_ray.plan.tasks import KernelProducts, KernelTile, PermutedKernel, Score, Task, permuted_kernels
from platonic_ray.plan.workload import ModelShape, Workload

PROCESS_BYTES = 450 * 2**20
"""What a worker process takes before it has read anything: Python, torch, Arrow and Ray."""

_FAN_IN = 8  # of trees that merge partial results
_SUMS_BYTES = 32 * 2**30

Release = Literal["rows", "tiles", "all"]


@dataclass(frozen=True)
class Work:
    """What one task does.

    `flops` are those of its matrix products, `cells` the kernel cells it makes, `entries` the values it
    goes through one by one. It reads `store_bytes` from the store, `object_bytes` from other nodes (those
    that it finds on its own are counted too) and `local_bytes` that lie on its node for certain; it writes
    `written_bytes` durably, hands on `output_bytes`, and takes `peak_bytes` of memory.
    """

    flops: float = 0.0
    cells: float = 0.0
    entries: float = 0.0
    store_bytes: float = 0.0
    object_bytes: float = 0.0
    local_bytes: float = 0.0
    written_bytes: float = 0.0
    output_bytes: float = 0.0
    peak_bytes: float = 0.0


@dataclass(frozen=True)
class Group:
    """So many tasks of one kind, alike; `work` is that of one of them.

    `after` names the groups that its tasks read, by index, and how they come free: a share of the tasks as
    that share of the rows is there, its square where a task reads two blocks, or none before "all". A
    worker reads `setup_bytes` before the first task of a group: a model. What is not `durable` goes with its
    node. Where one kind of task has two ways to work, `way` names that of the group.
    """

    kind: str
    label: str
    count: int
    work: Work
    after: tuple[tuple[int, Release], ...] = ()
    setup_bytes: float = 0.0
    durable: bool = True
    partial: bool = False
    way: str = ""

    @property
    def pace(self) -> str:
        """What a machine's speed at these tasks is called."""
        return self.way or self.kind

    @property
    def name(self) -> tuple[str, str]:
        """What its tasks are told by; see `name_of`."""
        return self.kind, "" if self.kind == "Score" else self.label

    def total(self, name: str) -> float:
        """Return the sum of one figure over all tasks."""
        return self.count * getattr(self.work, name)


def name_of(plan: Plan, task: Task) -> tuple[str, str]:
    """Return the kind and label of the groups that a task of a plan belongs to."""
    kind = type(task).__name__
    if isinstance(task, KernelTile | KernelProducts | PermutedKernel):
        return kind, task.kernel.label
    return (kind, "") if isinstance(task, Score) else (kind, plan.models[task.model].name)


def seconds_of(group: Group, cluster: Cluster) -> float:
    """Return the expected seconds of one task on a busy worker of a cluster."""
    return task_seconds(group.pace, group.work, cluster)


def task_seconds(kind: str, work: Work, cluster: Cluster) -> float:
    """Return what a task takes of its worker.

    Where machines overlap, its bytes move while the worker is at another task: then they are bounded by
    the node's paths alone (`simulate`), and a task takes its arithmetic and what it reads on its node.
    """
    machine, sharing = cluster.machine, cluster.workers_a_node
    speed = machine.speed(kind)
    taken = (
        speed.task_s + work.flops * speed.flop_s + work.cells * speed.cell_s + work.entries * speed.entry_s
    )
    taken += work.local_bytes / machine.local_bytes_s
    if not machine.overlaps:
        taken += (work.store_bytes + work.written_bytes) * sharing / machine.store_bytes_s
        if cluster.nodes > 1:
            taken += work.object_bytes * sharing / machine.network_bytes_s
    return taken + cluster.control_s / tasks_a_call(kind, taken, work)


def tasks_a_call(kind: str, seconds: float, work: Work) -> int:
    """Return how many tasks Ray is told of at once: short shards go together, all else alone."""
    return shards_a_call(seconds, work.written_bytes) if kind == "Embed" else 1


def setup_seconds(group: Group, machine: Machine) -> float:
    """Return how long a worker loads what a group needs: weights, at the node's share of storage."""
    return group.setup_bytes / (machine.store_bytes_s / machine.workers)


def groups_of(work: Workload) -> tuple[Group, ...]:
    """Return every task of a study, in groups; a group comes after all that it reads."""
    return _Groups(work).made


class _Groups:
    """Collects the groups of a workload; knows which one made what the next reads."""

    def __init__(self, work: Workload) -> None:
        self._of = work
        self._made: list[Group] = []
        self._embeds: list[int] = []
        self._clamps: list[int] = []
        self._neighbors: list[int] = []
        self._kernels: list[int] = []
        self._states: list[int] = []
        self._permuted: list[int] = []
        self._shards = -(-work.n // work.shard_rows)
        self._blocks = -(-work.n // work.block_rows)
        for model in work.models:
            self._embed(model)
        for at, model in enumerate(work.models):
            if work.k:
                self._neighbors_of(at, model)
        if work.covariances:
            self._covariances()
        else:
            self._kernel_tiles()
        for at, model in enumerate(work.models):
            if work.row_layers:
                self._states_of(at, model)
        self._scores()

    @property
    def made(self) -> tuple[Group, ...]:
        return tuple(self._made)

    def _add(
        self, kind: str, label: str, count: int, work: Work, *after: tuple[int, Release], **how: Any
    ) -> int:
        work = replace(work, peak_bytes=work.peak_bytes + PROCESS_BYTES)
        self._made.append(Group(kind, label, count, work, after, **how))
        return len(self._made) - 1

    def _rows(self, model: int, release: Release) -> Iterator[tuple[int, Release]]:
        """What a reader of a model's rows waits for."""
        yield (self._embeds[model], release)
        if self._of.clamped:
            yield (self._clamps[model], "all")

    def _embed(self, model: ModelShape) -> None:
        of = self._of
        rows = of.n / self._shards
        size = of.value_bytes * rows * model.width
        held = 4.0 * min(of.n, of.shard_rows) * model.width
        at = self._add(
            "Embed", model.name, self._shards,
            Work(rows * model.sample_flops, entries=rows * model.width, written_bytes=size,
                 output_bytes=size, peak_bytes=2 * held + 1.25 * model.weight_bytes),
            setup_bytes=model.weight_bytes,
        )  # fmt: skip
        self._embeds.append(at)
        if of.clamped:
            whole = of.value_bytes * of.n * model.width
            clamp = Work(entries=of.n * model.width, store_bytes=whole, written_bytes=8.0 * model.layers,
                         peak_bytes=4 * held + SCRATCH_BYTES)  # fmt: skip
            self._clamps.append(self._add("Clamp", model.name, 1, clamp, (at, "all")))

    def _neighbors_of(self, at: int, model: ModelShape) -> None:
        of = self._of
        assert of.k is not None
        keep = of.k + 1
        if of.queries is not None:
            self._streamed(at, model, keep)
            return
        parts = model.layers if of.by_layer else 1
        width, layers = model.width / parts, model.layers / parts
        tiles: list[int] = []
        for diagonal in (True, False):
            count = self._blocks if diagonal else self._blocks * (self._blocks - 1) // 2
            if not count:
                continue
            cells = self._cells(diagonal) / count
            # One product serves both sides of a tile; each side's rows are filtered by themselves.
            sides = 1 if diagonal else 2
            rows = of.n / self._blocks if diagonal else of.n * (self._blocks - 1) / 2 / count
            output = sides * rows * layers * (keep * ID_BYTES + (8 if of.row_sums else 0))
            held = min(of.n, of.block_rows)
            peak = neighbor_tile_bytes(held, round(width), round(layers), of.k, sides)
            tile = Work(
                flops=2.0 * cells * width,
                cells=sides * cells * layers,
                entries=sides * rows * keep * layers,
                object_bytes=of.value_bytes * sides * rows * width,
                output_bytes=output,
                peak_bytes=peak,
            )
            way = "NeighborSweep" if held * held > DENSE_VALUES else ""
            after = self._rows(at, "tiles")
            tiles.append(
                self._add("NeighborTile", model.name, count * parts, tile, *after, durable=False, way=way)
            )
        rows = of.n / self._blocks
        merged = rows * layers * keep
        block = Work(
            entries=merged * self._blocks,
            object_bytes=merged * self._blocks * ID_BYTES,
            written_bytes=merged * ID_BYTES,
            output_bytes=merged * ID_BYTES,
            peak_bytes=min(of.n, of.block_rows) * layers * keep * ID_BYTES * (self._blocks + 6),
        )
        self._neighbors.append(
            self._add("NeighborBlock", model.name, self._blocks * parts, block,
                      *((tile, "all") for tile in tiles))
        )  # fmt: skip

    def _streamed(self, at: int, model: ModelShape, keep: int) -> None:
        """Few queries against a gallery that is read once, each shard where it was embedded."""
        of = self._of
        assert of.queries is not None
        rows = of.n / self._shards
        entries = of.queries * keep * model.layers
        strip = Work(
            flops=2.0 * of.queries * rows * model.width,
            cells=of.queries * rows * model.layers,
            entries=entries,
            local_bytes=of.value_bytes * rows * model.width,
            output_bytes=entries * ID_BYTES,
            peak_bytes=4.0 * (of.queries + 2 * of.shard_rows) * model.width + SCRATCH_BYTES,
        )
        after = self._rows(at, "rows")
        strips = self._add("NeighborStrip", model.name, self._shards, strip, *after, durable=False)
        merge = Work(
            entries=_FAN_IN * entries,
            object_bytes=_FAN_IN * entries * ID_BYTES,
            written_bytes=entries * ID_BYTES,
            output_bytes=entries * ID_BYTES,
            peak_bytes=2.0 * _FAN_IN * entries * ID_BYTES,
        )
        merges = max(1, math.ceil((self._shards - 1) / (_FAN_IN - 1)))
        self._neighbors.append(self._add("NeighborBlock", model.name, merges, merge, (strips, "rows")))

    def _kernel_tiles(self) -> None:
        of = self._of
        layers = sum(model.layers for model in of.models)
        width = sum(of.widths)
        products = self._layer_pairs()
        for kernel in of.kernels:
            if kernel.form == "linear" and of.product_rows:
                self._products_of(kernel)
                continue
            scales: list[tuple[int, Release]] = []
            if kernel.median is not None:
                for at, model in enumerate(of.models):
                    scale = Work(2.0 * of.n**2 * model.width, of.n**2 * model.layers,
                                 object_bytes=of.value_bytes * of.n * model.width,
                                 peak_bytes=16.0 * min(of.n, of.block_rows) * model.width)  # fmt: skip
                    scales.append((self._add("Scale", model.name, 1, scale, *self._rows(at, "all")), "all"))
            for diagonal in (True, False):
                count = self._blocks if diagonal else self._blocks * (self._blocks - 1) // 2
                if not count:
                    continue
                # A diagonal tile makes the micro-tiles on and above the diagonal.
                cells = self._cells(diagonal, halved=True) / count
                rows = of.n / self._blocks if diagonal else of.n * (self._blocks - 1) / 2 / count
                held = min(of.n, of.block_rows)
                written = 8.0 * (products + layers + 2 * rows * layers)
                tile = Work(
                    flops=2.0 * cells * width,
                    cells=cells * layers,
                    entries=cells * products,
                    object_bytes=of.value_bytes * rows * width * (2 if diagonal else 3),
                    written_bytes=written,
                    output_bytes=written,
                    peak_bytes=kernel_tile_bytes(held, width, layers, 2 if diagonal else 3),
                )
                after = [need for at in range(len(of.models)) for need in self._rows(at, "tiles")]
                self._kernels.append(
                    self._add("KernelTile", kernel.label, count, tile, *after, *scales, partial=True)
                )
        for kernel, permutations in of.permuted:
            tasks = permuted_kernels(kernel, permutations)
            drawn = permutations / len(tasks)
            different = products - sum(model.layers**2 for model in of.models)
            task = Work(
                flops=2.0 * of.n**2 * width,
                cells=float(of.n**2 * layers),
                # All rotations of a ring at once take about as long as gathering every cell twice.
                entries=2.0 * -(-(drawn + 1) // of.n) * of.n**2 * layers,
                object_bytes=of.value_bytes * of.n * width,
                written_bytes=8.0 * drawn * different,
                output_bytes=8.0 * drawn * different,
                peak_bytes=12.0 * of.n * width + PANEL_BYTES,
            )
            after = [need for at in range(len(of.models)) for need in self._rows(at, "all")]
            self._permuted.append(self._add("PermutedKernel", kernel.label, len(tasks), task, *after))

    def _products_of(self, kernel: Kernel) -> None:
        """A linear kernel by D × D products: sums of columns, a model a task, then ranges of rows."""
        of = self._of
        total = sum(x * y for at, y in enumerate(of.widths) for x in of.widths[: at + 1])
        ranges = -(-of.n // of.product_rows)
        rows, layers = of.n / ranges, sum(model.layers for model in of.models)
        held = min(of.n, LEAF)
        columns: list[tuple[int, Release]] = []
        for at, model in enumerate(of.models):
            work = Work(
                entries=of.n * model.width,
                object_bytes=of.value_bytes * of.n * model.width,
                written_bytes=8.0 * model.width,
                output_bytes=8.0 * model.width,
                peak_bytes=products_bytes(model.width, model.width, held),
            )
            columns.append((self._add("ColumnSums", model.name, 1, work, *self._rows(at, "all")), "all"))
        written = 8.0 * (total + 2 * rows * layers)
        work = Work(
            flops=2.0 * rows * total,
            entries=rows * sum(of.widths),
            object_bytes=of.value_bytes * rows * sum(of.widths),
            written_bytes=written,
            output_bytes=written,
            peak_bytes=products_bytes(sum(of.widths), (2 + math.log2(1 + rows / held)) * total, held)
            + written,
        )
        after = [need for at in range(len(of.models)) for need in self._rows(at, "all")]
        self._kernels.append(
            self._add("KernelProducts", kernel.label, ranges, work, *after, *columns, partial=True)
        )

    def _covariances(self) -> None:
        """Linear kernels as XᵀY of every pair of models: a range of rows a task, summed in trees of eight.

        Pairs are cut so that a task's sums fit `_SUMS_BYTES`; ranges are so long that sums are a quarter of
        what was read. All but the last sums live as objects.
        """
        of = self._of
        total = sum(x * y for at, y in enumerate(of.widths) for x in of.widths[: at + 1])
        parts = min(of.pairs, math.ceil(8 * total / _SUMS_BYTES))
        ranges = max(1, min(self._shards, int(of.feature_bytes / 4 / (8 * total))))
        rows, sums = of.n / ranges, 8.0 * total / parts
        task = Work(
            flops=2.0 * rows * total / parts,
            object_bytes=of.value_bytes * rows * sum(of.widths),
            output_bytes=sums,
            peak_bytes=sums + 16.0 * min(of.n, of.shard_rows) * max(of.widths),
        )
        after = [need for at in range(len(of.models)) for need in self._rows(at, "rows")]
        made = self._add("Covariance", "linear", ranges * parts, task, *after, durable=False)
        one = 8.0 * total / of.pairs
        merge = Work(
            entries=_FAN_IN * one / 8, object_bytes=_FAN_IN * one, output_bytes=one, written_bytes=one,
            peak_bytes=2 * one,
        )  # fmt: skip
        merges = max(1, math.ceil((ranges - 1) / (_FAN_IN - 1)))
        self._kernels.append(
            self._add("CovarianceSum", "linear", merges * of.pairs, merge, (made, "rows"), partial=True)
        )

    def _states_of(self, at: int, model: ModelShape) -> None:
        of = self._of
        width = model.widths[-1]
        state = Work(
            flops=of.row_layers * (2.0 * of.n * width**2 + 20.0 * width**3),
            store_bytes=of.value_bytes * of.row_layers * of.n * width,
            output_bytes=8.0 * of.row_layers * of.n * width,
            peak_bytes=24.0 * of.n * width,
        )
        after = self._rows(at, "all")
        self._states.append(self._add("RowState", model.name, 1, state, *after, durable=False))

    def _scores(self) -> None:
        of = self._of
        asked = of.n if of.queries is None else of.queries
        read = asked * ((of.k or 0) + 1) * ID_BYTES * max(model.layers for model in of.models)
        pairs = self._layer_pairs() / of.pairs
        drawn = 1 + of.permutations
        score = Work(
            entries=pairs * asked * (of.k or 0) * of.neighbor_metrics * drawn,
            cells=pairs * self._blocks**2 * len(of.kernels) / 2,
            object_bytes=2.0 * read,
            output_bytes=8.0 * pairs,
            peak_bytes=2.0 * read * 2.5 + SCRATCH_BYTES,
        )
        before = (*self._neighbors, *self._kernels, *self._states, *self._permuted)
        self._add("Score", f"{len(of.models)} models", of.pairs, score, *((at, "all") for at in before))

    def _layer_pairs(self) -> int:
        """Layer pairs of all pairs of models x ≤ y."""
        layers = [model.layers for model in self._of.models]
        return sum(x * y for at, y in enumerate(layers) for x in layers[: at + 1])

    def _cells(self, diagonal: bool, halved: bool = False) -> float:
        """Cells of all tiles a ≤ b on the diagonal, or off it, of one kernel."""
        n, rows = self._of.n, self._of.block_rows
        squares = sum(count * size**2 for size, count in self._sizes())
        if not diagonal:
            return (n**2 - squares) / 2
        if not halved:
            return float(squares)
        micro = min(rows, MICRO)
        return sum(count * size * (size + micro) / 2 for size, count in self._sizes())

    def _sizes(self) -> tuple[tuple[int, int], ...]:
        """Rows of a block, and how many blocks have so many."""
        whole, rest = divmod(self._of.n, self._of.block_rows)
        return (self._of.block_rows, whole), (rest, 1 if rest else 0)
