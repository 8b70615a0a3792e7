"""The graph of a study: every task, what it reads, and what it leaves in the store. Pure.

No clock, no I/O, no Ray, no tensors. What the tasks are stands in `tasks`, what they are called in
`keys`, which of them may run next in `graph`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property

from platonic_ray.kernels import CLAMPED, MICRO, Kernel
from platonic_ray.plan.keys import Layout
from platonic_ray.plan.tasks import (
    Clamp,
    ColumnSums,
    Embed,
    KernelProducts,
    KernelTile,
    NeighborBlock,
    NeighborTile,
    PermutedKernel,
    RowState,
    Scale,
    Score,
    Span,
    Task,
)


@dataclass(frozen=True)
class Plan(Layout):
    """The tasks of a study."""

    @cached_property
    def prerequisites(self) -> dict[Task, tuple[Task, ...]]:
        """Every task of the plan, with the tasks whose results it reads."""
        models, blocks = range(len(self.models)), range(len(self.blocks))
        # Each once: of a million samples there are thousands a tile, and a tile a pair of blocks.
        embeds = {m: tuple(Embed(m, shard) for shard in range(len(self.shards))) for m in models}
        graph: dict[Task, tuple[Task, ...]] = {embed: () for of in embeds.values() for embed in of}
        if self.k:
            within = {tile: self.shards_of(*tile) for tile in self.tiles}
            for m in models:
                tiles = {(a, b): NeighborTile(m, a, b) for a, b in self.tiles}
                for at, searched in tiles.items():
                    graph[searched] = tuple(embeds[m][shard] for shard in within[at])
                for a in blocks:
                    graph[NeighborBlock(m, a)] = tuple(tiles[min(a, b), max(a, b)] for b in blocks)
        tiled = [kernel for kernel in self.kernels if not self.by_products(kernel)]
        kernel_tiles = tuple(KernelTile(a, b, kernel) for kernel in tiled for a, b in self.tiles)
        products = tuple(
            KernelProducts(kernel, part)
            for kernel in self.kernels
            for part in range(len(self.ranges))
            if self.by_products(kernel)
        )
        for tile in kernel_tiles:
            shards = self.kernel_shards(tile.a, tile.b)
            scales = self._scales(tile.kernel)
            graph.update({scale: embeds[scale.model] for scale in scales})
            graph[tile] = (*scales, *(embeds[m][shard] for m in models for shard in shards))
        for product in products:
            columns = tuple(ColumnSums(m, product.kernel) for m in models)
            graph.update({column: embeds[column.model] for column in columns})
            # Beside the range's rows, the first, for the origin.
            first = self.shards_within(Span(0, min(MICRO, self.n)))
            shards = tuple(sorted({*first, *self.shards_within(self.ranges[product.part])}))
            graph[product] = (*columns, *(embeds[m][shard] for m in models for shard in shards))
        for task in self.permuted:
            graph[task] = (*self._scales(task.kernel), *(embed for of in embeds.values() for embed in of))
        if self.states:
            graph.update({RowState(m): embeds[m] for m in models})
        for x, y in self.pairs:
            permuted = () if x == y else self.permuted
            both = tuple(dict.fromkeys((x, y)))
            neighbors = [NeighborBlock(m, a) for m in both for a in blocks if self.k]
            states = [RowState(m) for m in both if self.states]
            features = [embed for m in both for embed in embeds[m] if self.winners]
            graph[Score(x, y)] = (*neighbors, *kernel_tiles, *products, *permuted, *states, *features)
        return self._with_clamps(graph) if self.recipe in CLAMPED else graph

    def _scales(self, kernel: Kernel) -> tuple[Scale, ...]:
        """Return the tasks that the widths of a kernel come from."""
        found = (self.scale_of(kernel, model) for model in range(len(self.models)))
        return tuple(scale for scale in found if scale is not None)

    def _with_clamps(self, graph: dict[Task, tuple[Task, ...]]) -> dict[Task, tuple[Task, ...]]:
        """Let every task that reads shards of a model wait for the model's clamp."""
        clamped = {}
        for task, needs in graph.items():
            read = dict.fromkeys(need.model for need in needs if isinstance(need, Embed))
            clamped[task] = (*(Clamp(model) for model in read), *needs)
        for model in range(len(self.models)):
            clamped[Clamp(model)] = tuple(Embed(model, shard) for shard in range(len(self.shards)))
        return clamped

    def length(self, task: Task) -> float:
        """Return about how long a task takes beside others of its urgency: the cells of kernels it covers."""
        if isinstance(task, PermutedKernel):
            return float(len(self.pairs) * self.n**2 * (task.stop - task.start))
        if isinstance(task, NeighborTile | KernelTile):
            cells = len(self.blocks[task.a]) * len(self.blocks[task.b]) / (2 if task.a == task.b else 1)
            return cells * (len(self.pairs) if isinstance(task, KernelTile) else 1)
        return float(self.n) if isinstance(task, Scale | ColumnSums | KernelProducts | RowState) else 0.0

    def artifacts(self, task: Task) -> tuple[tuple[str, str], ...]:
        """Return the (kind, key) of everything durable that a task makes; empty for the others."""
        if isinstance(task, Embed):
            return (("features", self.models[task.model].shard_keys[task.shard]),)
        if isinstance(task, Clamp):
            return (("recipes", self.clamp_key(task.model)),)
        if isinstance(task, NeighborBlock):
            return (("neighbors", self.neighbors_key(task.model, task.a)),)
        if isinstance(task, Scale):
            return (("scales", self.scales_key(task)),)
        if isinstance(task, ColumnSums):
            return (("columns", self.columns_key(task)),)
        if isinstance(task, KernelProducts):
            keys = (self.products_key(task, x, y) for x, y in self.pairs)
            return tuple(("kernels", key) for key in keys)
        if isinstance(task, PermutedKernel):
            keys = (self.permuted_key(task, x, y) for x, y in self.pairs if x != y)
            return tuple(("permuted", key) for key in keys)
        if isinstance(task, KernelTile):
            keys = (self.kernels_key(task.a, task.b, task.kernel, x, y) for x, y in self.pairs)
            return tuple(("kernels", key) for key in keys)
        if isinstance(task, Score) and self.scoring:
            return (("scores", self.scores_key(task.x, task.y)),)
        return ()


def found(plan: Plan, exists: Callable[[str, str], bool]) -> frozenset[Task]:
    """Return the tasks all of whose artifacts exist."""
    return frozenset(
        task
        for task in plan.prerequisites
        if (artifacts := plan.artifacts(task)) and all(exists(kind, key) for kind, key in artifacts)
    )


def needed(plan: Plan, there: Collection[Task]) -> frozenset[Task]:
    """Return the tasks that must run, given those whose results are there.

    Demand runs backwards from the scores: no tile is computed whose block or sums are there.
    """
    wanted: set[Task] = set()
    # A result also states the layers, zero rows and truncations of every shard, every clamp, and the ties
    # of every block.
    kinds = Score | Embed | Clamp | NeighborBlock
    frontier: list[Task] = [task for task in plan.prerequisites if isinstance(task, kinds)]
    while frontier:
        task = frontier.pop()
        if task in wanted or task in there:
            continue
        wanted.add(task)
        frontier.extend(plan.prerequisites[task])
    return frozenset(wanted)
