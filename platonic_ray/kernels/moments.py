"""Sums of linear kernels without their N × N cells: D × D products of the rows, in one pass.

With moved rows u_i = scale · (x_i − origin) and v_i of two layers (`forms`), d_i = ‖u_i‖² and S = Σ u_j,

    Σ_{i≠j} K_ij L_ij = ‖Σ_i u_i v_iᵀ‖²_F − Σ_i d_i e_i,       r_i = Σ_{j≠i} K_ij = u_i · S − d_i

(Kornblith et al. 2019, eq. 3, with the diagonal taken out). That is 2 N D_x D_y operations a layer pair
in place of N² (D_x + D_y + 1). It loses digits where the diagonal is most of the kernel's sum, which
takes N below about D: `worthwhile` asks for many more rows than that.

Rows go in blocks of a fixed grid; products of a block are made on one thread, in the kernel's precision,
and added in float64: block after block within a run of `_RUN`, runs in the tree of `trees`. So neither
threads nor memory change a byte.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from platonic_ray.kernels.forms import MICRO, Anchor, Kernel, Stack, move
from platonic_ray.kernels.grams import TileSums, blocks_of, row_inner
from platonic_ray.kernels.panels import Key
from platonic_ray.kernels.threads import Run, one_thread, workers
from platonic_ray.kernels.trees import root_level, tree_sum

_BLOCK = 8 * MICRO  # rows of one product
_RUN = 8  # blocks whose products are added one after another
_LEAST_ROWS = 16384
_ROWS_A_COLUMN = 4  # and so many times as many rows as columns
_MOST_BYTES = 2**31


def worthwhile(rows: Mapping[Key, Stack], pairs: Collection[tuple[Key, Key]], n: int, kernel: Kernel) -> bool:
    """Return whether D × D products give the sums of these models, and for less work than cells do.

    A pure function of shapes, so that what is added to what depends on the study alone.
    """
    if kernel.form != "linear" or n < _LEAST_ROWS:
        return False
    widths = {model: [layer.shape[1] for layer in stack] for model, stack in rows.items()}
    if n < _ROWS_A_COLUMN * max(width for of in widths.values() for width in of):
        return False
    models = {model for pair in pairs for model in pair}
    every = [*pairs, *((model, model) for model in models)]
    entries = sum(sum(widths[x]) * sum(widths[y]) for x, y in every)
    layers = sum(len(widths[x]) * len(widths[y]) for x, y in every)
    cells = n * (sum(sum(widths[model]) for model in models) + layers)
    return 8 * entries * _held(n) <= _MOST_BYTES and 2 * entries < cells


def linear_sums(
    rows: Mapping[Key, Stack],
    pairs: Collection[tuple[Key, Key]],
    n: int,
    kernel: Kernel,
    about: Mapping[Key, Sequence[Anchor]],
    *,
    unary: Collection[Key] = (),
) -> TileSums:
    """Return what `grams.super_tile` returns of the whole of linear kernels, to rounding.

    Works on as many threads as torch is set to, which changes no byte.

    :param rows: prepared rows of every model, `[n, D_l] float32` a layer.
    :param pairs: the pairs of models whose `inner` is wanted.
    :param about: the anchors of every model.
    :param unary: the models whose `squares`, `rows` and `diagonal` are wanted.
    """
    models = list(dict.fromkeys([*unary, *(model for pair in pairs for model in pair)]))
    every = list(dict.fromkeys([*pairs, *((model, model) for model in unary)]))
    cells = [(x, i, y, j) for x, y in every for i in range(len(rows[x])) for j in range(len(rows[y]))]
    layers = [(model, layer) for model in models for layer in range(len(rows[model]))]

    def moved(model: Key, layer: int, start: int) -> tuple[Tensor, Tensor]:
        side = move(rows[model][layer][start : start + _BLOCK], kernel, about[model][layer])
        return side.moved, side.norms

    def products(start: int) -> Tensor:
        total = torch.zeros(
            sum(_size(rows, cell) for cell in cells) + _columns(rows, layers), dtype=torch.float64
        )
        for begin in range(start, min(start + _RUN * _BLOCK, n), _BLOCK):
            of = {key: moved(*key, begin)[0] for key in layers}
            at = 0
            for cell in cells:
                x, i, y, j = cell
                size = _size(rows, cell)
                total[at : at + size] += (of[x, i].T @ of[y, j]).reshape(-1)
                at += size
            for key in layers:
                total[at : at + of[key].shape[1]] += of[key].sum(0, dtype=torch.float64)
                at += of[key].shape[1]
        return total

    def row_facts(start: int, sums: Mapping[tuple[Key, int], Tensor]) -> list[tuple[Tensor, Tensor]]:
        found = []
        for key in layers:
            block, norms = moved(*key, start)
            found.append((block.double() @ sums[key] - norms, norms))
        return found

    threads = torch.get_num_threads()
    with one_thread(), workers(threads) as run:
        total = tree_sum(_batches(run, products, range(0, n, _RUN * _BLOCK), threads))
        matrices = total[: total.shape[0] - _columns(rows, layers)].split(
            [_size(rows, cell) for cell in cells]
        )
        squares = {cell: torch.dot(part, part) for cell, part in zip(cells, matrices, strict=True)}
        tail = total[total.shape[0] - _columns(rows, layers) :]
        sums = dict(zip(layers, tail.split([rows[m][layer].shape[1] for m, layer in layers]), strict=True))
        facts = run(partial(row_facts, start, sums) for start in range(0, n, _BLOCK))
    lines, diagonals = (
        {key: torch.cat([block[at][which] for block in facts]) for at, key in enumerate(layers)}
        for which in (0, 1)
    )
    del facts

    def stacked(of: Mapping[tuple[Key, int], Tensor], model: Key) -> Tensor:
        return torch.stack([of[model, layer] for layer in range(len(rows[model]))])

    diagonal = {model: stacked(diagonals, model) for model in models}
    inner = {}
    for x, y in every:
        whole = torch.stack([squares[x, i, y, j] for i in range(len(rows[x])) for j in range(len(rows[y]))])
        inner[x, y] = whole.reshape(len(rows[x]), len(rows[y])) - row_inner(diagonal[x], diagonal[y])
    return TileSums(
        level=root_level(blocks_of(n)),
        a=0,
        b=0,
        inner={pair: inner[pair] for pair in pairs},
        squares={model: inner[model, model].diagonal().clone() for model in unary},
        rows={model: stacked(lines, model) for model in unary},
        columns={},
        diagonal={model: diagonal[model] for model in unary},
    )


def _batches(run: Run, make, starts: range, threads: int) -> Iterator[Tensor]:  # type: ignore[no-untyped-def]
    """Make sums side by side, and no more of them at a time than there are threads."""
    for at in range(0, len(starts), threads):
        yield from run(partial(make, start) for start in starts[at : at + threads])


def _held(n: int) -> int:
    """Return how many sums are held at a time: one a thread, one a level of the tree."""
    return torch.get_num_threads() + (n // (_RUN * _BLOCK)).bit_length() + 1


def _size(rows: Mapping[Key, Stack], cell: tuple[Key, int, Key, int]) -> int:
    x, i, y, j = cell
    return rows[x][i].shape[1] * rows[y][j].shape[1]


def _columns(rows: Mapping[Key, Stack], layers: Sequence[tuple[Key, int]]) -> int:
    return sum(rows[model][layer].shape[1] for model, layer in layers)
