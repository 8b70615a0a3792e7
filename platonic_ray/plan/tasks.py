"""What there is to do: the kinds of task of a study, and the rows that they cover.

The rows of a study are cut twice: into **shards** (the unit of embedding; the study fixes their size,
because it fixes what is batched together) and into **blocks** (the unit of tiles; the planner chooses
their size, a power of two times the micro-tile, so that every block of sums is a complete subtree of
the fixed tree and no choice changes a number).

    Embed(model, shard)          features of every layer                      kind `features`
    Clamp(model)                 what the recipe clamps its layers to         kind `recipes`
    NeighborTile(model, a, b)    top-k of block a among b and of b among a    lives as an object only
    NeighborBlock(model, a)      the merge over all b                         kind `neighbors`
    Scale(model, precision)      median distance of every layer               kind `scales`
    KernelTile(a, b, kernel)     sums of one kernel, every pair of models     kind `kernels`
    ColumnSums(model, kernel)    sums of columns of every layer               kind `columns`
    KernelProducts(kernel, …)    D × D products of a range of rows, instead    kind `kernels`
    PermutedKernel(…)            the same under permutations of samples       kind `permuted`
    RowState(model)              states of the rows family, layers asked for  lives as an object only
    Score(x, y)                  every layer pair of two models, all metrics  in the result

Under a recipe that clamps, whoever reads rows of a model reads its clamp too, which all its shards
determine: a barrier for that model, while others are still being embedded.
"""

from __future__ import annotations

from dataclasses import dataclass

from platonic_ray.kernels import AT_ONCE, Kernel

_PERMUTATIONS = 25 * AT_ONCE


@dataclass(frozen=True, slots=True)
class Span:
    """Rows `start` (included) to `stop` (excluded)."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def cut(n: int, rows: int) -> tuple[Span, ...]:
    """Cut n rows into spans of `rows`; the last may be shorter."""
    return tuple(Span(start, min(start + rows, n)) for start in range(0, n, rows))


def permuted_kernels(kernel: Kernel, count: int, grouped: bool = False) -> tuple[PermutedKernel, ...]:
    """Cut the permutations of a kernel into tasks, each worth making the kernel's cells for.

    :param grouped: whether samples stay in groups; else they are rotations, which are made all at once.

    >>> [(task.start, task.stop) for task in permuted_kernels(Kernel(), 202, grouped=True)]
    [(0, 100), (100, 200), (200, 202)]
    >>> [(task.start, task.stop) for task in permuted_kernels(Kernel(), 202)]
    [(0, 202)]
    """
    spans = cut(count, _PERMUTATIONS if grouped else count)
    return tuple(PermutedKernel(kernel, span.start, span.stop) for span in spans)


@dataclass(frozen=True, slots=True)
class Embed:
    """Features of every layer of one model over one shard."""

    model: int
    shard: int


@dataclass(frozen=True, slots=True)
class Clamp:
    """What the recipe clamps each layer of one model to, over all rows."""

    model: int


@dataclass(frozen=True, slots=True)
class NeighborTile:
    """Neighbors within one tile of a model's kernels, a ≤ b; serves the rows of both blocks."""

    model: int
    a: int
    b: int


@dataclass(frozen=True, slots=True)
class NeighborBlock:
    """The neighbors of a block's rows among all rows: the merge of that block's tiles."""

    model: int
    a: int


@dataclass(frozen=True, slots=True)
class Scale:
    """The median distance between rows, of every layer of one model; a barrier for the model.

    `precision` is that of the products that distances are made of.
    """

    model: int
    precision: str


@dataclass(frozen=True, slots=True)
class KernelTile:
    """Sums of one kernel over one tile, a ≤ b, for every pair of models."""

    a: int
    b: int
    kernel: Kernel


@dataclass(frozen=True, slots=True)
class ColumnSums:
    """The sums of the columns of every layer of one model, moved as for a linear kernel; a barrier for the model."""

    model: int
    kernel: Kernel


@dataclass(frozen=True, slots=True)
class KernelProducts:
    """D × D products of the rows of range number `part`, for every pair of models: sums of a linear kernel."""

    kernel: Kernel
    part: int


@dataclass(frozen=True, slots=True)
class PermutedKernel:
    """Inner products of one kernel under permutations `start` … `stop − 1`, for every pair of models.

    All pairs that are not in the store in one task: what a permutation gathers of a model serves all its
    pairs.
    """

    kernel: Kernel
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class RowState:
    """What the metrics of the rows family keep of the layers of one model, over all rows."""

    model: int


@dataclass(frozen=True, slots=True)
class Score:
    """All layer pairs of two models, x ≤ y, under every metric."""

    x: int
    y: int


Task = (
    Embed
    | Clamp
    | NeighborTile
    | NeighborBlock
    | Scale
    | KernelTile
    | ColumnSums
    | KernelProducts
    | RowState
    | PermutedKernel
    | Score
)
