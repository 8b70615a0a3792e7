"""Sums over the N × N kernels of layers, on a fixed grid of micro-tiles, added in a fixed tree.

The kernel of a layer (`forms`) is cut into micro-tiles of `MICRO` × `MICRO` cells whose grid starts
at row 0 of the dataset; no plan changes it. What a micro-tile contributes depends on the models and
on the micro-tile alone, and contributions are added as `trees` says, so the sums have the same bytes
however the work is cut into tasks. A task computes one node of the tree, a **super-tile**:

    parts = [super_tile(a_rows, b_rows, pairs, level, a, b, n, kernel, about) for …]   # in any order
    sums = merge_tree(parts, n)                                         # the whole kernel

Cells (i, i) are left out of all sums and kept apart, in float64: with them, a score that leaves them
out would be a small difference of large numbers.

With `Kernel.precision` "float32", and more rows than one micro-tile has (`Kernel.at`), cells are
float32, and Σ K ∘ L of a micro-tile adds up to 4,096 of their products in float32; all else (those
chunks, sums of rows, squares, the tree) is added in float64.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from platonic_ray.kernels.forms import MICRO, Anchor, Kernel, Stack
from platonic_ray.kernels.panels import Key, LayerSums, Panel, Place
from platonic_ray.kernels.threads import one_thread, workers
from platonic_ray.kernels.trees import children, root_level, tree_sum

_PANEL_BYTES = 2**30


@dataclass(frozen=True)
class TileSums:
    """What the kernels of some models sum to over one node (level, a, b) of the tree; all float64.

    The node covers rows from block `a << level` and columns from block `b << level`. No sum but
    `diagonal` counts a cell (i, i). Cells of micro-tiles off the diagonal count twice in `inner` and
    `squares`, for their mirror image.
    """

    level: int
    a: int
    b: int
    inner: dict[tuple[Key, Key], Tensor]
    """Σ K ∘ L of every layer pair of a pair of models, `[Lx, Ly]`."""
    squares: dict[Key, Tensor]
    """Σ K ∘ K of every layer, `[L]`."""
    rows: dict[Key, Tensor]
    """Σ over the node's columns of every row of the kernel, `[L, rows]`."""
    columns: dict[Key, Tensor]
    """The same of the mirror image, `[L, columns]`; nothing where a = b."""
    diagonal: dict[Key, Tensor]
    """K_ii, `[L, rows]`; nothing where a ≠ b."""


def blocks_of(n: int, micro: int = MICRO) -> int:
    """Return how many micro-blocks n rows make."""
    return -(-n // micro)


def span(level: int, index: int, n: int, micro: int = MICRO) -> slice:
    """Return the rows that a node's interval covers."""
    return slice(min(index * micro << level, n), min((index + 1) * micro << level, n))


def super_tile(
    stacks_a: Mapping[Key, Stack],
    stacks_b: Mapping[Key, Stack],
    pairs: Collection[tuple[Key, Key]],
    level: int,
    a: int,
    b: int,
    n: int,
    kernel: Kernel,
    about: Mapping[Key, Sequence[Anchor]],
    *,
    unary: Collection[Key] = (),
    micro: int = MICRO,
    panel_bytes: int = _PANEL_BYTES,
) -> TileSums:
    """Compute node (level, a ≤ b) of the tree for some models.

    A model's cells are made once and serve all its pairs. A panel of 2 × 2 micro-tiles of all models is
    held at a time, or of one if those take more than `panel_bytes`; where that is too much as well,
    models go in groups, two at a time, and cells are made again for every group that theirs meets. Works
    on as many threads as torch is set to, each tile on one, so that their number changes no byte.

    :param stacks_a: prepared rows of every model over `span(level, a, n)`.
    :param stacks_b: the same over `span(level, b, n)`.
    :param pairs: the pairs of models whose `inner` is wanted.
    :param about: the anchors of every model (`anchors`); the same in all calls that will be merged.
    :param unary: the models whose `squares`, `rows`, `columns` and `diagonal` are wanted.
    :raises ValueError: if there is no such node, or a stack does not have its rows.
    """
    blocks, kernel = blocks_of(n, micro), kernel.at(n)
    if not 0 <= a <= b <= (blocks - 1) >> level:
        raise ValueError(f"there is no node (level {level}, {a}, {b}) over {blocks} blocks")
    models = list(dict.fromkeys([*unary, *(model for pair in pairs for model in pair)]))
    rows_a, rows_b = span(level, a, n, micro), span(level, b, n, micro)
    for stacks, rows in ((stacks_a, rows_a), (stacks_b, rows_b)):
        for model in models:
            if any(layer.shape[0] != rows.stop - rows.start for layer in stacks[model]):
                raise ValueError(f"{model!r} must come with rows {rows.start} to {rows.stop}")

    def rows_of(model: Key, layer: int, block: int) -> Tensor:
        rows = span(0, block, n, micro)
        if rows_a.start <= rows.start < rows_a.stop:
            return stacks_a[model][layer][_shift(rows, rows_a.start)]
        return stacks_b[model][layer][_shift(rows, rows_b.start)]

    def size_of(block: int) -> int:
        rows = span(0, block, n, micro)
        return rows.stop - rows.start

    def node(level: int, i: int, j: int) -> TileSums:
        if level > panel_level:
            return _combine(level, i, j, [node(level - 1, *at) for at in children(level, i, j, blocks)])
        places = places_below(level, i, j, blocks)
        panel = Panel(places, kernel, about, rows_of, size_of, run)
        leaves = leaves_of(places, *panel.sums(models, pairs, unary, panel_bytes))
        return add_up(level, i, j, leaves, blocks)

    of_panel = sum(len(stacks_a[model]) for model in models) * (2 * micro) ** 2 * kernel.dtype.itemsize
    panel_level = 1 if of_panel <= panel_bytes else 0
    threads = torch.get_num_threads()
    with one_thread(), workers(threads) as run:
        return node(level, a, b)


def merge_tree(parts: Iterable[TileSums], n: int, micro: int = MICRO) -> TileSums:
    """Merge super-tiles of one level, in any order, up to the root: the sums of whole kernels.

    :raises ValueError: if a super-tile is missing, given twice, or of another level.
    """
    blocks = blocks_of(n, micro)
    nodes: dict[tuple[int, int], TileSums] = {}
    level = -1
    for part in parts:
        level = part.level if level < 0 else level
        if part.level != level or (part.a, part.b) in nodes:
            raise ValueError(f"super-tile (level {part.level}, {part.a}, {part.b}) does not belong here")
        nodes[part.a, part.b] = part
    last = (blocks - 1) >> max(level, 0)
    missing = [(i, j) for i in range(last + 1) for j in range(i, last + 1) if (i, j) not in nodes]
    if level < 0 or missing:
        raise ValueError(f"super-tiles are missing: {missing[:20]}")
    while level < root_level(blocks):
        level += 1
        above = {(i // 2, j // 2) for i, j in nodes}
        nodes = {
            (i, j): _combine(level, i, j, [nodes[at] for at in children(level, i, j, blocks)])
            for i, j in sorted(above)
        }
    return nodes[0, 0]


def row_inner(x: Tensor, y: Tensor, micro: int = MICRO) -> Tensor:
    """Return Σ_i x_i y_i of every layer pair, `[Lx, Ly]`, of `[Lx, n]` and `[Ly, n]` float64.

    Micro-blocks of rows are added in the binary tree of `trees`.
    """
    parts = [slice(start, start + micro) for start in range(0, x.shape[1], micro)]
    with one_thread():
        return tree_sum([_fresh(x[:, part]) @ _fresh(y[:, part]).T for part in parts])


def row_total(x: Tensor, micro: int = MICRO) -> Tensor:
    """Return Σ_i x_i of every layer, `[L]`, of `[L, n] float64`, in the same tree."""
    parts = [slice(start, start + micro) for start in range(0, x.shape[1], micro)]
    with one_thread():
        return tree_sum([_fresh(x[:, part]).sum(1) for part in parts])


def leaves_of(
    places: Sequence[Place],
    inner: Mapping[tuple[Key, Key], Sequence[Tensor]],
    alone: Mapping[Key, Sequence[Sequence[LayerSums]]],
) -> dict[Place, TileSums]:
    made = {}
    for at, (i, j) in enumerate(places):
        weight = 1.0 if i == j else 2.0  # exact: a power of two

        def stack(name: str, at: int = at) -> dict[Key, Tensor]:
            return {
                model: torch.stack([getattr(sums[at], name) for sums in layers])
                for model, layers in alone.items()
            }

        made[i, j] = TileSums(
            level=0,
            a=i,
            b=j,
            inner={pair: parts[at] * weight for pair, parts in inner.items()},
            squares={model: squares * weight for model, squares in stack("squares").items()},
            rows=stack("rows"),
            columns={} if i == j else stack("columns"),
            diagonal=stack("diagonal") if i == j else {},
        )
    return made


def places_below(level: int, a: int, b: int, blocks: int) -> list[Place]:
    """Return the micro-tiles below a node."""
    if level == 0:
        return [(a, b)]
    return [place for at in children(level, a, b, blocks) for place in places_below(level - 1, *at, blocks)]


def add_up(level: int, a: int, b: int, leaves: Mapping[Place, TileSums], blocks: int) -> TileSums:
    """Add the leaves below a node up to it."""
    if level == 0:
        return leaves[a, b]
    below = [add_up(level - 1, *at, leaves, blocks) for at in children(level, a, b, blocks)]
    return _combine(level, a, b, below)


def _combine(level: int, a: int, b: int, parts: Sequence[TileSums]) -> TileSums:
    """Make node (level, a, b) of its children, which come in the order of `children`."""
    inner, squares = dict(parts[0].inner), dict(parts[0].squares)
    for part in parts[1:]:
        inner = {pair: total + part.inner[pair] for pair, total in inner.items()}
        squares = {model: total + part.squares[model] for model, total in squares.items()}
    at = {(part.a - 2 * a, part.b - 2 * b): part for part in parts}
    below, rows, columns, diagonal = at.get((1, 1)), {}, {}, {}
    for model in squares:
        # lines[i, j]: sums of the rows of child interval i of a over child interval j of b
        lines = {place: part.rows[model] for place, part in at.items()}
        if a == b:
            if (0, 1) in at:
                lines[1, 0] = at[0, 1].columns[model]
            diagonal[model] = torch.cat(
                [at[0, 0].diagonal[model]] + ([below.diagonal[model]] if below is not None else []), 1
            )
        else:
            mirror = {(j, i): part.columns[model] for (i, j), part in at.items()}
            columns[model] = _add_lines(mirror)
        rows[model] = _add_lines(lines)
    return TileSums(level, a, b, inner, squares, rows, columns, diagonal)


def _add_lines(lines: Mapping[tuple[int, int], Tensor]) -> Tensor:
    """Add left and right halves of every row interval, and put the intervals one after another."""
    return torch.cat(
        [lines[i, 0] + lines[i, 1] if (i, 1) in lines else lines[i, 0] for i in (0, 1) if (i, 0) in lines],
        1,
    )


def _fresh(x: Tensor) -> Tensor:
    """Return a contiguous float64 copy in memory of its own."""
    return x.to(torch.float64, memory_format=torch.contiguous_format, copy=True)


def _shift(rows: slice, by: int) -> slice:
    return slice(rows.start - by, rows.stop - by)
