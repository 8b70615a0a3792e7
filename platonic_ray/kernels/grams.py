"""Sums over linear kernels K = X Xᵀ, on a fixed grid of micro-tiles, added in a fixed tree.

The N × N kernel of a layer is cut into micro-tiles of `MICRO` × `MICRO` cells whose grid starts at
row 0 of the dataset; no plan changes it. What a micro-tile contributes depends on the models and on
the micro-tile alone, and contributions are added as `trees` says, so the sums have the same bytes
however the work is cut into tasks. A task computes one node of the tree, a **super-tile**:

    parts = [super_tile(a_rows, b_rows, pairs, level, a, b, n) for …]   # any level, any order
    sums = merge_tree(parts, n)                                         # the whole kernel

An **origin** (one vector a layer, subtracted from its rows) changes no centered quantity of a linear
kernel (CKA, HSIC) and spares it the cancellation that a large common direction brings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from platonic_ray.kernels.trees import children, root_level, tree_sum

MICRO = 256

Key = Any
"""What the caller calls a model: anything hashable."""

Stack = Sequence[Tensor]
"""The prepared rows of a model's layers, `[rows, D_l] float32` each."""


@dataclass(frozen=True)
class TileSums:
    """What the kernels of some models sum to over one node (level, a, b) of the tree; all float64.

    The node covers rows from block `a << level` and columns from block `b << level`. Cells of
    micro-tiles off the diagonal count twice in `inner` and `squares`, for their mirror image.
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


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one intra-op thread, so that bytes do not depend on how many there are.

    The number is the process's: other threads that use torch meanwhile have one as well.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def blocks_of(n: int, micro: int = MICRO) -> int:
    """Return how many micro-blocks n rows make."""
    return -(-n // micro)


def span(level: int, index: int, n: int, micro: int = MICRO) -> slice:
    """Return the rows that a node's interval covers."""
    return slice(min(index * micro << level, n), min((index + 1) * micro << level, n))


def origins(first_rows: Stack, micro: int = MICRO) -> list[Tensor]:
    """Return the origin of every layer, `[D_l] float64`: the mean of its first `micro` rows.

    Any vector near the rows serves; this one is known as soon as the first shard is. For a
    constant layer it is the row itself, and the kernel exactly zero.

    :param first_rows: `[≥ min(n, micro), D_l] float32`, from row 0 of the dataset.
    """
    with one_thread():
        sums = [rows[:micro].double().sum(0) for rows in first_rows]
        return [
            total / torch.full_like(total, min(micro, rows.shape[0]))
            for total, rows in zip(sums, first_rows, strict=True)
        ]


def kernel_tile(rows_a: Stack, rows_b: Stack, origin: Stack | None = None) -> Tensor:
    """Return K = X_a X_bᵀ of every layer in float64, flattened: `[L, |a| · |b|]`."""
    size_a, size_b = rows_a[0].shape[0], rows_b[0].shape[0]
    tile = torch.empty(len(rows_a), size_a, size_b, dtype=torch.float64, device=rows_a[0].device)
    for layer, (a, b) in enumerate(zip(rows_a, rows_b, strict=True)):
        # Fresh tensors are aligned alike, which the matrix product's bytes may depend on.
        a64, b64 = _fresh(a), _fresh(b)
        if origin is not None:
            a64, b64 = a64 - origin[layer], b64 - origin[layer]
        tile[layer] = a64 @ b64.T
    return tile.reshape(len(rows_a), size_a * size_b)


def tile_inner(tile_x: Tensor, tile_y: Tensor) -> Tensor:
    """Return Σ K ∘ L of every layer pair, `[Lx, Ly]`, of flat tiles `[Lx, P]` and `[Ly, P]`."""
    return tile_x @ tile_y.T


def super_tile(
    stacks_a: Mapping[Key, Stack],
    stacks_b: Mapping[Key, Stack],
    pairs: Collection[tuple[Key, Key]],
    level: int,
    a: int,
    b: int,
    n: int,
    *,
    unary: Collection[Key] = (),
    origin: Mapping[Key, Stack] | None = None,
    micro: int = MICRO,
) -> TileSums:
    """Compute node (level, a ≤ b) of the tree for some models.

    A model's kernel micro-tile is computed once and serves all its pairs. A micro-tile of all
    models in the call is held at a time, `L · micro²` float64 each.

    :param stacks_a: prepared rows of every model over `span(level, a, n)`.
    :param stacks_b: the same over `span(level, b, n)`.
    :param pairs: the pairs of models whose `inner` is wanted.
    :param unary: the models whose `squares`, `rows`, `columns` and `diagonal` are wanted.
    :param origin: origins of every model; the same in all calls that will be merged.
    :raises ValueError: if there is no such node, or a stack does not have its rows.
    """
    blocks = blocks_of(n, micro)
    if not 0 <= a <= b <= (blocks - 1) >> level:
        raise ValueError(f"there is no node (level {level}, {a}, {b}) over {blocks} blocks")
    models = list(dict.fromkeys([*unary, *(model for pair in pairs for model in pair)]))
    rows_a, rows_b = span(level, a, n, micro), span(level, b, n, micro)
    for stacks, rows in ((stacks_a, rows_a), (stacks_b, rows_b)):
        for model in models:
            if any(layer.shape[0] != rows.stop - rows.start for layer in stacks[model]):
                raise ValueError(f"{model!r} must come with rows {rows.start} to {rows.stop}")

    def node(level: int, i: int, j: int) -> TileSums:
        if level:
            return _combine(level, i, j, [node(level - 1, *at) for at in children(level, i, j, blocks)])
        at_i, at_j = _shift(span(0, i, n, micro), rows_a.start), _shift(span(0, j, n, micro), rows_b.start)
        tiles = {
            model: kernel_tile(
                [layer[at_i] for layer in stacks_a[model]],
                [layer[at_j] for layer in stacks_b[model]],
                None if origin is None else origin[model],
            )
            for model in models
        }
        return _leaf(tiles, pairs, unary, i, j, at_i.stop - at_i.start)

    with one_thread():
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


def _leaf(
    tiles: Mapping[Key, Tensor],
    pairs: Collection[tuple[Key, Key]],
    unary: Collection[Key],
    a: int,
    b: int,
    size_a: int,
) -> TileSums:
    weight = 1.0 if a == b else 2.0  # exact: a power of two
    cells = {model: tiles[model].reshape(tiles[model].shape[0], size_a, -1) for model in unary}
    return TileSums(
        level=0,
        a=a,
        b=b,
        inner={(x, y): tile_inner(tiles[x], tiles[y]) * weight for x, y in pairs},
        squares={x: torch.stack([torch.dot(row, row) for row in tiles[x]]) * weight for x in unary},
        rows={x: kernel.sum(2) for x, kernel in cells.items()},
        columns={} if a == b else {x: kernel.sum(1) for x, kernel in cells.items()},
        diagonal={x: kernel.diagonal(dim1=1, dim2=2).clone() for x, kernel in cells.items()}
        if a == b
        else {},
    )


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
