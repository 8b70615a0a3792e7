"""Sums of linear kernels without their N × N cells: D × D products of the rows, in one pass.

With moved rows u_i = scale · (x_i − origin) and v_i of two layers (`forms`), d_i = ‖u_i‖² and S = Σ u_j,

    Σ_{i≠j} K_ij L_ij = ‖Σ_i u_i v_iᵀ‖²_F − Σ_i d_i e_i,       r_i = Σ_{j≠i} K_ij = u_i · S − d_i

(Kornblith et al. 2019, eq. 3, with the diagonal taken out). That is 2 N D_x D_y operations a layer pair
in place of N² (D_x + D_y + 1). It loses digits where the diagonal is most of the kernel's sum, which
takes N below about D: `worthwhile` asks for many more rows than that.

First S of every model (`column_sums`), then what a range of rows brings (`range_sums`), then all ranges
together (`whole_sums`). Rows go in blocks of a fixed grid; products of a block are made on one thread, in
the kernel's precision, and added in float64: block after block within a leaf of `LEAF` rows, leaves in the
tree of `trees`. So neither threads nor memory change a byte, nor do ranges of 2^m leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from platonic_ray.kernels.forms import MICRO, Anchor, Kernel, Stack, move
from platonic_ray.kernels.grams import TileSums, blocks_of, row_inner
from platonic_ray.kernels.panels import Key
from platonic_ray.kernels.threads import Run, one_thread, workers
from platonic_ray.kernels.trees import root_level, tree_sum

_BLOCK = 8 * MICRO  # rows of one product
LEAF = 8 * _BLOCK
"""Rows whose products are added one block after another: a leaf of the tree."""

_LEAST_ROWS = 16384
_ROWS_A_COLUMN = 4  # and so many times as many rows as columns
_MOST_BYTES = 2**31

T = TypeVar("T")

Read = Callable[[Key, int, int], Stack]
"""Gives the prepared rows `start` to `stop` of every layer of a model, `[stop − start, D_l] float32`."""

Cell = tuple[Key, int, Key, int]
"""A layer of a model and one of another."""


def worthwhile(
    widths: Mapping[Key, Sequence[int]], pairs: Collection[tuple[Key, Key]], n: int, kernel: Kernel
) -> bool:
    """Return whether D × D products give the sums of these models, and for less work than cells do.

    A pure function of shapes, so that what is added to what depends on the study alone.

    :param widths: the widths of the layers of every model.
    """
    if kernel.form != "linear" or n < _LEAST_ROWS:
        return False
    if n < _ROWS_A_COLUMN * max(width for of in widths.values() for width in of):
        return False
    models = {model for pair in pairs for model in pair}
    every = dict.fromkeys([*pairs, *((model, model) for model in models)])
    layers = sum(len(widths[x]) * len(widths[y]) for x, y in every)
    cells = n * (sum(sum(widths[model]) for model in models) + layers)
    held = 2 + (n // LEAF).bit_length()  # one that is made, and one a level of the tree
    return held * product_bytes(widths, pairs) <= _MOST_BYTES and product_bytes(widths, pairs) // 4 < cells


def product_bytes(widths: Mapping[Key, Sequence[int]], pairs: Collection[tuple[Key, Key]]) -> int:
    """Return the bytes of the products of all pairs, and of every model with itself."""
    models = {model for pair in pairs for model in pair}
    every = dict.fromkeys([*pairs, *((model, model) for model in models)])
    return 8 * sum(sum(widths[x]) * sum(widths[y]) for x, y in every)


@dataclass(frozen=True)
class RangeSums:
    """What a range of rows brings, all float64.

    `products` `[D_x, D_y]` of pairs of layers; of models `rows` (r_i) and `diagonal` (d_i), `[L, rows]`.
    """

    products: Mapping[Cell, Tensor]
    rows: Mapping[Key, Tensor]
    diagonal: Mapping[Key, Tensor]


def column_sums(
    read: Read, model: Key, n: int, kernel: Kernel, about: Sequence[Anchor], threads: int | None = None
) -> list[Tensor]:
    """Return S `[D_l] float64` of every layer of a model.

    :param about: the anchors of its layers.
    :param threads: leaves that are read and summed at a time; by default as many as torch has threads.
    """

    def leaf(start: int) -> Tensor:
        rows = read(model, start, min(start + LEAF, n))
        sums = [torch.zeros(layer.shape[1], dtype=torch.float64) for layer in rows]
        for block in range(0, rows[0].shape[0], _BLOCK):
            for total, layer, anchor in zip(sums, rows, about, strict=True):
                total += move(layer[block : block + _BLOCK], kernel, anchor).moved.sum(0, dtype=torch.float64)
        return torch.cat(sums)

    at_once = threads or torch.get_num_threads()
    with one_thread(), workers(at_once) as run:
        total = tree_sum(_batches(run, leaf, range(0, n, LEAF), at_once))
    return list(total.split([anchor.origin.shape[0] for anchor in about]))


def range_sums(
    read: Read,
    pairs: Collection[tuple[Key, Key]],
    rows: range,
    kernel: Kernel,
    about: Mapping[Key, Sequence[Anchor]],
    sums: Mapping[Key, Sequence[Tensor]],
    threads: int | None = None,
) -> RangeSums:
    """Return what a range of rows brings to pairs of models, and to those that are paired with themselves.

    :param rows: from a multiple of `LEAF` on; 2^m leaves or all that are left.
    :param about: the anchors of every model.
    :param sums: S of every model.
    :param threads: as of `column_sums`; they change no byte.
    """
    models = list(dict.fromkeys(model for pair in pairs for model in pair))
    alone = [x for x, y in pairs if x == y]
    cells = [(x, i, y, j) for x, y in pairs for i in range(len(about[x])) for j in range(len(about[y]))]
    shapes = [(sums[x][i].shape[0], sums[y][j].shape[0]) for x, i, y, j in cells]
    sizes = [a * b for a, b in shapes]

    def leaf(start: int) -> tuple[Tensor, list[Tensor]]:
        total = torch.zeros(sum(sizes), dtype=torch.float64)
        stacks = {model: read(model, start, min(start + LEAF, rows.stop)) for model in models}
        lines: dict[Key, list[Tensor]] = {model: [] for model in alone}
        for block in range(0, min(LEAF, rows.stop - start), _BLOCK):
            moved = {
                model: [
                    move(layer[block : block + _BLOCK], kernel, anchor)
                    for layer, anchor in zip(stack, about[model], strict=True)
                ]
                for model, stack in stacks.items()
            }
            for at, (x, i, y, j) in zip(total.split(sizes), cells, strict=True):
                at += (moved[x][i].moved.T @ moved[y][j].moved).reshape(-1)
            for model in alone:
                sides = list(zip(moved[model], sums[model], strict=True))
                of_rows = torch.stack([side.moved.double() @ of - side.norms for side, of in sides])
                lines[model].append(torch.stack([of_rows, torch.stack([side.norms for side, _ in sides])]))
        return total, [torch.cat(lines[model], 2) for model in alone]

    starts = range(rows.start, rows.stop, LEAF)
    at_once = max(1, min(threads or torch.get_num_threads(), _MOST_BYTES // (8 * sum(sizes) or 1)))
    lines: list[list[Tensor]] = []
    with one_thread(), workers(at_once) as run:
        total = tree_sum(_first(_batches(run, leaf, starts, at_once), lines))
    products = [part.reshape(shape) for part, shape in zip(total.split(sizes), shapes, strict=True)]
    of_model = {model: torch.cat(parts, 2) for model, *parts in zip(alone, *lines, strict=True)}
    return RangeSums(
        products=dict(zip(cells, products, strict=True)),
        rows={model: found[0] for model, found in of_model.items()},
        diagonal={model: found[1] for model, found in of_model.items()},
    )


def whole_sums(parts: Sequence[RangeSums], pairs: Collection[tuple[Key, Key]]) -> TileSums:
    """Return what `grams.super_tile` returns of the whole of a linear kernel, to rounding.

    :param parts: the sums of ranges that make up all rows, in order, all of as many rows but the last.
    :param pairs: the pairs of models of which the parts have products; each model's own among them.
    """
    models = [x for x, y in pairs if x == y]
    rows, diagonal = (
        {model: torch.cat([getattr(part, name)[model] for part in parts], 1) for model in models}
        for name in ("rows", "diagonal")
    )
    with one_thread():
        squared = {cell: _squared([part.products[cell] for part in parts]) for cell in parts[0].products}
    inner = {}
    for x, y in pairs:
        layers = range(diagonal[x].shape[0]), range(diagonal[y].shape[0])
        whole = torch.tensor(
            [[squared[x, i, y, j] for j in layers[1]] for i in layers[0]], dtype=torch.float64
        )
        inner[x, y] = whole - row_inner(diagonal[x], diagonal[y])
    n = next(iter(rows.values())).shape[1]
    return TileSums(
        level=root_level(blocks_of(n)),
        a=0,
        b=0,
        inner=inner,
        squares={model: inner[model, model].diagonal().clone() for model in models},
        rows=rows,
        columns={},
        diagonal=diagonal,
    )


def _squared(parts: Sequence[Tensor]) -> float:
    """Return ‖Σ parts‖²_F; of a tensor of its own, since where a sum begins in memory shows in its last bits."""
    whole = tree_sum(parts).reshape(-1).clone()
    return float(whole.dot(whole))


def linear_sums(
    rows: Mapping[Key, Stack],
    pairs: Collection[tuple[Key, Key]],
    n: int,
    kernel: Kernel,
    about: Mapping[Key, Sequence[Anchor]],
) -> TileSums:
    """Return the sums of pairs of models that are in memory, and of every model with itself.

    :param rows: prepared rows of every model, `[n, D_l] float32` a layer.
    """

    def read(model: Key, start: int, stop: int) -> Stack:
        return [layer[start:stop] for layer in rows[model]]

    models = dict.fromkeys(model for pair in pairs for model in pair)
    every = list(dict.fromkeys([*pairs, *((model, model) for model in models)]))
    sums = {model: column_sums(read, model, n, kernel, about[model]) for model in models}
    return whole_sums([range_sums(read, every, range(n), kernel, about, sums)], every)


def _batches(run: Run, make: Callable[[int], T], starts: range, threads: int) -> Iterator[T]:
    """Make what leaves bring side by side, and no more of it at a time than there are threads."""
    for at in range(0, len(starts), threads):
        yield from run(partial(make, start) for start in starts[at : at + threads])


def _first(made: Iterable[tuple[Tensor, T]], others: list[T]) -> Iterator[Tensor]:
    """Iterate over the first of every two, and keep the second."""
    for first, second in made:
        others.append(second)
        yield first
