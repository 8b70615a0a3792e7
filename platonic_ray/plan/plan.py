"""From a study's shape to tasks: what is computed, from what, and under which key. Pure.

No clock, no I/O, no Ray, no tensors. The rows of a study are cut twice: into **shards** (the unit of
embedding; the study fixes their size, because it fixes what is batched together) and into **blocks**
(the unit of tiles; the planner chooses their size, a power of two times the micro-tile, so that
every block of sums is a complete subtree of the fixed tree and no choice changes a number).

    Embed(model, shard)          features of every layer                      kind `features`
    Clamp(model)                 what the recipe clamps its layers to         kind `recipes`
    NeighborTile(model, a, b)    top-k of block a among b and of b among a    lives as an object only
    NeighborBlock(model, a)      the merge over all b                         kind `neighbors`
    Scale(model, precision)      median distance of every layer               kind `scales`
    KernelTile(a, b, kernel)     sums of one kernel, every pair of models     kind `kernels`
    PermutedKernel(…)            the same under permutations of samples       kind `permuted`
    RowState(model)              states of the rows family, layers asked for  lives as an object only
    Score(x, y)                  every layer pair of two models, all metrics  in the result

Under a recipe that clamps, whoever reads rows of a model reads its clamp too, which all its shards
determine: a barrier for that model, while others are still being embedded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property

from platonic_ray.digest import digest
from platonic_ray.kernels import AT_ONCE, CLAMPED, MICRO, Kernel

_MOST_BLOCKS = 4
_LARGEST_BLOCK = 4096
_PERMUTATIONS = 25 * AT_ONCE
_NEIGHBORS_VERSION = 1
_RECIPES_VERSION = 1
_PERMUTED_VERSION = 1
_KERNELS_VERSION = 2
_SCALES_VERSION = 1


@dataclass(frozen=True)
class Span:
    """Rows `start` (included) to `stop` (excluded)."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def cut(n: int, rows: int) -> tuple[Span, ...]:
    """Cut n rows into spans of `rows`; the last may be shorter."""
    return tuple(Span(start, min(start + rows, n)) for start in range(0, n, rows))


def choose_block_rows(n: int) -> int:
    """Return the rows of a block: few blocks where n is small, so that small problems stay small.

    >>> choose_block_rows(100), choose_block_rows(1300), choose_block_rows(1_000_000)
    (256, 512, 4096)
    """
    rows = MICRO
    while rows * _MOST_BLOCKS < n and rows < _LARGEST_BLOCK:
        rows *= 2
    return rows


def permuted_kernels(kernel: Kernel, count: int) -> tuple[PermutedKernel, ...]:
    """Cut the permutations of a kernel into tasks, each worth making the kernel's cells for.

    >>> [(task.start, task.stop) for task in permuted_kernels(Kernel(), 202)]
    [(0, 100), (100, 200), (200, 202)]
    """
    return tuple(PermutedKernel(kernel, span.start, span.stop) for span in cut(count, _PERMUTATIONS))


def features_key(model: str, samples: str, corpus: str | None = None) -> str:
    """Return the key of a shard of features.

    :param model: key of the model's specification.
    :param samples: digest of the content of the shard's samples.
    :param corpus: digest of the whole view, for a model that is fitted on it.
    """
    return digest({"kind": "features", "model": model, "samples": samples, "corpus": corpus})


@dataclass(frozen=True)
class PlannedModel:
    """A model of the study: its name, the view it reads, and the key of each shard of its features.

    `tie_digest` stands for the representation (without its layer) in the tie rule: it is known
    before any feature is, so that tiles can start before the last shard is embedded.
    """

    name: str
    view: str
    tie_digest: str
    shard_keys: tuple[str, ...]


@dataclass(frozen=True)
class Embed:
    """Features of every layer of one model over one shard."""

    model: int
    shard: int


@dataclass(frozen=True)
class Clamp:
    """What the recipe clamps each layer of one model to, over all rows."""

    model: int


@dataclass(frozen=True)
class NeighborTile:
    """Neighbors within one tile of a model's kernels, a ≤ b; serves the rows of both blocks."""

    model: int
    a: int
    b: int


@dataclass(frozen=True)
class NeighborBlock:
    """The neighbors of a block's rows among all rows: the merge of that block's tiles."""

    model: int
    a: int


@dataclass(frozen=True)
class Scale:
    """The median distance between rows, of every layer of one model; a barrier for the model.

    `precision` is that of the products that distances are made of.
    """

    model: int
    precision: str


@dataclass(frozen=True)
class KernelTile:
    """Sums of one kernel over one tile, a ≤ b, for every pair of models."""

    a: int
    b: int
    kernel: Kernel


@dataclass(frozen=True)
class PermutedKernel:
    """Inner products of one kernel under permutations `start` … `stop − 1`, for every pair of models.

    All pairs in one task: what a permutation gathers of a model serves all its pairs. A model that is
    added to a study therefore makes all of them anew.
    """

    kernel: Kernel
    start: int
    stop: int


@dataclass(frozen=True)
class RowState:
    """What the metrics of the rows family keep of the layers of one model, over all rows."""

    model: int


@dataclass(frozen=True)
class Score:
    """All layer pairs of two models, x ≤ y, under every metric."""

    x: int
    y: int


Task = Embed | Clamp | NeighborTile | NeighborBlock | Scale | KernelTile | RowState | PermutedKernel | Score


@dataclass(frozen=True)
class Plan:
    """The tasks of a study and the keys of what they make.

    `k` is the largest k of the study's neighbor metrics (None: there is none), and `row_sums` says
    whether any of them needs the row sums of the linear kernel; `kernels` are those whose sums its
    metrics need. `permuted` is what the nulls of kernel metrics need, and `drawn` a digest of how their
    permutations are drawn. `states` says whether any metric needs states of layers that are known
    beforehand, `winners` whether scores read features of layers that only they know.
    """

    n: int
    shard_rows: int
    block_rows: int
    recipe: str
    k: int | None
    kernels: tuple[Kernel, ...]
    models: tuple[PlannedModel, ...]
    permuted: tuple[PermutedKernel, ...] = ()
    drawn: str = ""
    row_sums: bool = False
    states: bool = False
    winners: bool = False

    @cached_property
    def shards(self) -> tuple[Span, ...]:
        """Rows of each shard."""
        return cut(self.n, self.shard_rows)

    @cached_property
    def blocks(self) -> tuple[Span, ...]:
        """Rows of each block."""
        return cut(self.n, self.block_rows)

    @cached_property
    def tiles(self) -> tuple[tuple[int, int], ...]:
        """Every tile (a, b) with a ≤ b, in the order in which embedding makes them possible."""
        return tuple((a, b) for b in range(len(self.blocks)) for a in range(b + 1))

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Every pair of models x ≤ y, each model with itself included."""
        return tuple((x, y) for y in range(len(self.models)) for x in range(y + 1))

    def shards_of(self, *blocks: int) -> tuple[int, ...]:
        """Return the shards that hold the rows of some blocks, ascending."""
        wanted: set[int] = set()
        for block in blocks:
            span = self.blocks[block]
            wanted.update(range(span.start // self.shard_rows, -(-span.stop // self.shard_rows)))
        return tuple(sorted(wanted))

    def kernel_shards(self, a: int, b: int) -> tuple[int, ...]:
        """Return the shards that a kernel tile reads: its blocks', and the first for the origin."""
        return self.shards_of(0, a, b)

    def clamp_key(self, model: int) -> str:
        """Key of what a model is clamped to: it depends on all of its rows and layers."""
        return digest(
            {
                "kind": "recipes",
                "version": _RECIPES_VERSION,
                "recipe": self.recipe,
                "features": self.models[model].shard_keys,
            }
        )

    def recipe_key(self, *models: int) -> str | list[str]:
        """Return what stands for the recipe in the key of what is made from some rows of models."""
        return [self.recipe, *map(self.clamp_key, models)] if self.recipe in CLAMPED else self.recipe

    def neighbors_key(self, model: int, a: int) -> str:
        """Key of a block's neighbors: they depend on every row of the model."""
        return digest(
            {
                "kind": "neighbors",
                "version": _NEIGHBORS_VERSION,
                "features": self.models[model].shard_keys,
                "ties": self.models[model].tie_digest,
                "recipe": self.recipe,
                "k": self.k,
                **({"row_sums": True} if self.row_sums else {}),
                "rows": [self.blocks[a].start, self.blocks[a].stop],
            }
        )

    def scales_key(self, scale: Scale) -> str:
        """Key of a model's median distances: they depend on all of its rows."""
        return digest(
            {
                "kind": "scales",
                "version": _SCALES_VERSION,
                "features": self.models[scale.model].shard_keys,
                "recipe": self.recipe,
                "precision": scale.precision,
            }
        )

    def scale_of(self, kernel: Kernel, model: int) -> Scale | None:
        """Return the task that a kernel's width comes from, where it is a multiple of the median."""
        return None if kernel.median is None else Scale(model, kernel.precision)

    def kernels_key(self, a: int, b: int, kernel: Kernel, x: int, y: int) -> str:
        """Key of a pair's kernel sums over one tile: they depend on the rows of its two blocks.

        Where the kernel's width is a multiple of a median, on all rows.
        """
        shards = self.kernel_shards(a, b)
        scales = [self.scale_of(kernel, model) for model in (x, y)]
        return digest(
            {
                "kind": "kernels",
                "version": _KERNELS_VERSION,
                "unary": x == y,  # a model with itself brings more, also where another has its features
                "x": [self.models[x].shard_keys[shard] for shard in shards],
                "y": [self.models[y].shard_keys[shard] for shard in shards],
                "first_shard_rows": [self.shards[shard].start for shard in shards],
                "recipe": self.recipe_key(x, y),
                "kernel": kernel.key,
                "scales": [None if scale is None else self.scales_key(scale) for scale in scales],
                "tile": [[self.blocks[i].start, self.blocks[i].stop] for i in (a, b)],
            }
        )

    def permuted_key(self, task: PermutedKernel) -> str:
        """Key of a kernel's inner products under some permutations: they depend on all rows of all models."""
        return digest(
            {
                "kind": "permuted",
                "version": _PERMUTED_VERSION,
                "features": [model.shard_keys for model in self.models],
                "recipe": self.recipe,
                "kernel": task.kernel.key,
                "drawn": self.drawn,
                "permutations": [task.start, task.stop],
            }
        )

    @cached_property
    def prerequisites(self) -> dict[Task, tuple[Task, ...]]:
        """Every task of the plan, with the tasks whose results it reads."""
        models, blocks = range(len(self.models)), range(len(self.blocks))
        graph: dict[Task, tuple[Task, ...]] = {}
        for m in models:
            graph.update({Embed(m, shard): () for shard in range(len(self.shards))})
        if self.k:
            for m in models:
                for a, b in self.tiles:
                    graph[NeighborTile(m, a, b)] = tuple(Embed(m, shard) for shard in self.shards_of(a, b))
                for a in blocks:
                    graph[NeighborBlock(m, a)] = tuple(NeighborTile(m, min(a, b), max(a, b)) for b in blocks)
        kernel_tiles = tuple(KernelTile(a, b, kernel) for kernel in self.kernels for a, b in self.tiles)
        for tile in kernel_tiles:
            shards = self.kernel_shards(tile.a, tile.b)
            found = (self.scale_of(tile.kernel, m) for m in models)
            scales = tuple(scale for scale in found if scale is not None)
            for scale in scales:
                graph[scale] = tuple(Embed(scale.model, shard) for shard in range(len(self.shards)))
            graph[tile] = (*scales, *(Embed(m, shard) for m in models for shard in shards))
        for task in self.permuted:
            found = (self.scale_of(task.kernel, m) for m in models)
            scales = tuple(scale for scale in found if scale is not None)
            graph[task] = (*scales, *(Embed(m, shard) for m in models for shard in range(len(self.shards))))
        embeds = {m: tuple(Embed(m, shard) for shard in range(len(self.shards))) for m in models}
        if self.states:
            graph.update({RowState(m): embeds[m] for m in models})
        for x, y in self.pairs:
            permuted = () if x == y else self.permuted
            both = tuple(dict.fromkeys((x, y)))
            neighbors = [NeighborBlock(m, a) for m in both for a in blocks if self.k]
            states = [RowState(m) for m in both if self.states]
            features = [embed for m in both for embed in embeds[m] if self.winners]
            graph[Score(x, y)] = (*neighbors, *kernel_tiles, *permuted, *states, *features)
        return self._with_clamps(graph) if self.recipe in CLAMPED else graph

    def _with_clamps(self, graph: dict[Task, tuple[Task, ...]]) -> dict[Task, tuple[Task, ...]]:
        """Let every task that reads shards of a model wait for the model's clamp."""
        clamped = {}
        for task, needs in graph.items():
            read = dict.fromkeys(need.model for need in needs if isinstance(need, Embed))
            clamped[task] = (*(Clamp(model) for model in read), *needs)
        for model in range(len(self.models)):
            clamped[Clamp(model)] = tuple(Embed(model, shard) for shard in range(len(self.shards)))
        return clamped

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
        if isinstance(task, PermutedKernel):
            return (("permuted", self.permuted_key(task)),)
        if isinstance(task, KernelTile):
            keys = (self.kernels_key(task.a, task.b, task.kernel, x, y) for x, y in self.pairs)
            return tuple(("kernels", key) for key in keys)
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
    # A result also states the layers, zero rows and truncations of every shard, and every clamp.
    frontier: list[Task] = [task for task in plan.prerequisites if isinstance(task, Score | Embed | Clamp)]
    while frontier:
        task = frontier.pop()
        if task in wanted or task in there:
            continue
        wanted.add(task)
        frontier.extend(plan.prerequisites[task])
    return frozenset(wanted)
