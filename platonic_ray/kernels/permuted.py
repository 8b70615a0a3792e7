"""Inner products of kernels whose samples are permuted, from cells that are made once.

Under a permutation π of one side, Σ_{i≠j} K_ij L_ij becomes Σ_{i≠j} K_ij L_π(i)π(j): no kernel changes,
its cells change places. The cells of a layer above the diagonal are held as one vector,

    K_ij = α_i + α_j + c u_ij,   α_i = r_i / (n−2) − S / (2 (n−1)(n−2)),   r_i = Σ_{j≠i} K_ij,  S = Σ r_i,

u of length 1 and U-centered (Székely & Rizzo 2014): it is orthogonal to whatever adds rows and columns,
and stays so when samples change places. Hence

    Σ_{i≠j} K_ij L_π(i)π(j) = 2 c c′ Σ_{i<j} u_ij u′_π(i)π(j) + 2 (n−2) Σ_i α_i α′_π(i) + 2 Σα Σα′.

Only the first sum is over n² / 2 cells; it is made in float32, for many layers at once, and its error is
relative to c c′: nothing that is scored from the sums loses digits by cancellation. For a chunk of
cells, those of the permuted side are gathered, and all layer pairs of the two sides are one product.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter

import torch
from torch import Tensor

from platonic_ray.kernels.forms import MICRO, Anchor, Kernel, cells, move
from platonic_ray.kernels.rotations import Key, Slot, Squares
from platonic_ray.kernels.threads import one_thread, workers

AT_ONCE = 4
"""Permutations that are multiplied together: portions of a multiple of it make equal bytes."""

MOST_PERMUTED = 8192
"""Of more samples, the cells of a few layers would not be held (33 million, 134 MB, a layer)."""

_CHUNK = 1024  # cells whose product is one float32 sum
_TOGETHER = 48  # layers of a side of a product
_HELD_BYTES = 2**30


@dataclass(frozen=True)
class Cells:
    """The kernels of some layers, as above.

    `unit` `[n (n−1) / 2, L] float32`, cell (i, j < i) at i (i−1) / 2 + j; `length` `[L] float64` c;
    `added` `[L, n] float64` α.
    """

    unit: Tensor
    length: Tensor
    added: Tensor


def kernel_cells(squares: Iterable[Tensor], n: int, layers: int) -> Cells:
    """Make the cells of some layers of their kernels `[n, n]`, 0 on the diagonal, n ≥ 2.

    A layer whose kernel is not finite has no length and counts as 0.
    """
    unit = torch.empty(n * (n - 1) // 2, layers, dtype=torch.float32)
    length = torch.empty(layers, dtype=torch.float64)
    added = torch.empty(layers, n, dtype=torch.float64)
    below = torch.ones(n, n, dtype=torch.bool).tril_(-1)
    with one_thread():
        for layer, square in enumerate(squares):
            sums = square.sum(1, dtype=torch.float64)
            alpha = sums / (n - 2) - sums.sum() / (2 * (n - 1) * (n - 2)) if n > 2 else sums / 2
            for block in range(0, n, MICRO):  # in float64, but never all of it
                part = square[block : block + MICRO]
                part.copy_(part.double() - alpha[block : block + MICRO, None] - alpha)
            vector = square[below]
            size = torch.linalg.vector_norm(vector, dtype=torch.float64)
            usable = bool(torch.isfinite(size) and size > 0)
            unit[:, layer] = (vector.double() / size).float() if usable else 0.0
            length[layer] = size if usable else 0.0
            added[layer] = alpha if bool(torch.isfinite(size)) else 0.0
    return Cells(unit, length, added)


def permuted_inner(
    square: Squares,
    layers: Mapping[Key, int],
    pairs: Collection[tuple[Key, Key]],
    perms: Tensor,
    limit_bytes: int = _HELD_BYTES,
) -> dict[tuple[Key, Key], Tensor]:
    """Return Σ_{i≠j} K_ij L_π(i)π(j) of every layer pair of pairs of models, `[K, Lx, Ly] float64`.

    K is the kernel of the first model of a pair, L that of the second, whose samples are permuted. What
    is made together depends on the models and their order: bytes are those of the same call.

    :param square: makes the cells of a layer (`kernel_square`); may be called several times for it.
    :param layers: how many every model has.
    :param perms: `[K, n] int64`.
    :param limit_bytes: how many bytes of cells are held if it can be helped; else of two groups of layers.
    """
    n, asked = perms.shape[1], set(pairs)
    models = list(dict.fromkeys(model for pair in pairs for model in pair))
    slots = [(model, layer) for model in models for layer in range(layers[model])]
    groups = _groups(slots, 4 * (n * (n - 1) // 2), limit_bytes)
    wanted = [
        (g, h)
        for g, first in enumerate(groups)
        for h, second in enumerate(groups)
        if any((x, y) in asked for x in {model for model, _ in first} for y in {model for model, _ in second})
    ]
    found = {(x, y): torch.zeros(perms.shape[0], layers[x], layers[y], dtype=torch.float64) for x, y in pairs}

    def make(group: Sequence[Slot]) -> Cells:
        return kernel_cells((square(*slot) for slot in group), n, len(group))

    threads = torch.get_num_threads()
    whole = sum(map(len, groups)) * 4 * (n * (n - 1) // 2) <= limit_bytes
    with one_thread(), workers(threads) as run:
        held: dict[int, Cells] = {}
        for some in [wanted] if whole else [[each] for each in wanted]:
            places = {place for both in some for place in both}
            held = {at: held[at] if at in held else make(groups[at]) for at in sorted(places)}
            starts = range(0, perms.shape[0], AT_ONCE)
            parts = run(partial(_inner, held, some, perms[start : start + AT_ONCE]) for start in starts)
            for g, h in some:
                _place(found, torch.cat([part[g, h] for part in parts]), groups[g], groups[h])
    return found


def kernel_square(rows: Tensor, kernel: Kernel, anchor: Anchor) -> Tensor:
    """Return the cells of one layer, `[n, n]`, 0 on the diagonal; micro-tile by micro-tile."""
    n = rows.shape[0]
    kernel = kernel.at(n)
    square = torch.empty(n, n, dtype=kernel.dtype)
    blocks = [slice(start, min(start + MICRO, n)) for start in range(0, n, MICRO)]
    sides = [move(rows[block], kernel, anchor) for block in blocks]
    for a, (rows_a, side_a) in enumerate(zip(blocks, sides, strict=True)):
        for rows_b, side_b in zip(blocks[a:], sides[a:], strict=True):
            tile = cells(side_a, side_b, same=side_a is side_b)
            square[rows_a, rows_b] = tile
            if side_a is not side_b:
                square[rows_b, rows_a] = tile.T
    return square


def _groups(slots: Sequence[Slot], bytes_of_one: int, limit_bytes: int) -> list[list[Slot]]:
    """Put models together in groups of layers, of which two fit the limit; a large model is cut."""
    most = max(1, min(_TOGETHER, limit_bytes // 2 // max(1, bytes_of_one)))
    groups: list[list[Slot]] = []
    for _, of_model in groupby(slots, key=itemgetter(0)):
        layers = list(of_model)
        pieces = [layers[start : start + most] for start in range(0, len(layers), most)]
        for piece in pieces:
            if groups and len(groups[-1]) + len(piece) <= most:
                groups[-1] += piece
            else:
                groups.append(piece)
    return groups


def _inner(
    held: Mapping[int, Cells], wanted: Sequence[tuple[int, int]], perms: Tensor
) -> dict[tuple[int, int], Tensor]:
    """Return the inner products of pairs of groups under a few permutations, `[B, Lg, Lh] float64`."""
    count, n = perms.shape
    first_of_row = torch.arange(n) * (torch.arange(n) - 1) // 2
    row, column = torch.tril_indices(n, n, -1)
    products = {
        (g, h): torch.zeros(held[g].unit.shape[1], count * held[h].unit.shape[1], dtype=torch.float64)
        for g, h in wanted
    }
    for start in range(0, len(row), _CHUNK):
        chunk = slice(start, min(start + _CHUNK, len(row)))
        i, j = perms[:, row[chunk]], perms[:, column[chunk]]
        at = (first_of_row[torch.maximum(i, j)] + torch.minimum(i, j)).T.reshape(-1)
        for h in dict.fromkeys(h for _, h in wanted):
            moved = held[h].unit.index_select(0, at).view(chunk.stop - start, -1)
            for g in (g for g, other in wanted if other == h):
                products[g, h] += held[g].unit[chunk].T @ moved
    found = {}
    for (g, h), product in products.items():
        x, y = held[g], held[h]
        cosines = product.view(len(x.length), count, -1).transpose(0, 1)
        moved_rows = y.added[:, perms].permute(1, 2, 0).contiguous()  # [B, n, Lh]
        rows = torch.matmul(x.added, moved_rows)
        totals = torch.outer(x.added.sum(1), y.added.sum(1))
        found[g, h] = 2 * (cosines * torch.outer(x.length, y.length) + (n - 2) * rows + totals)
    return found


def _place(
    found: Mapping[tuple[Key, Key], Tensor], products: Tensor, first: Sequence[Slot], second: Sequence[Slot]
) -> None:
    """Put the products of two groups of layers where they belong in the tables of pairs."""
    for (x, y), table in found.items():
        rows = [(at, layer) for at, (model, layer) in enumerate(first) if model == x]
        columns = [(at, layer) for at, (model, layer) in enumerate(second) if model == y]
        if rows and columns:
            (a, i), (b, j) = rows[0], columns[0]
            table[:, i : i + len(rows), j : j + len(columns)] = products[
                :, a : a + len(rows), b : b + len(columns)
            ]
