"""Sums of the kernels of models that come one by one, whole: their rows need not stay.

`super_tile` goes over panels of micro-tiles with the rows of all models at hand. Where all cells of a
model fit in memory, they can take the place of its rows: a model is met with those before it and its
rows are gone. Micro-tiles, and the tree in which they are added, are those of `grams`: so are the bytes.

    x = Cells.of(len(layers), n, kernel)          # as soon as the model's shape is known
    x.fill(layer, rows, kernel, anchor)           # for every layer, on any thread
    x.sums(), inner_of_cells(x, y)                # unary sums, and Σ K ∘ L of every layer pair
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from platonic_ray.kernels.forms import Anchor, Kernel
from platonic_ray.kernels.grams import (
    TileSums,
    add_up,
    blocks_of,
    leaves_of,
    places_below,
    span,
)
from platonic_ray.kernels.panels import LayerSums, Place, layer_cells, tile_inner
from platonic_ray.kernels.threads import each, one_thread
from platonic_ray.kernels.trees import root_level


@dataclass(frozen=True, eq=False)
class Cells:
    """The kernels of a model's layers, every micro-tile of them above and on the diagonal.

    `tiles` `[L, P]` a place, P the cells of its micro-tile; `alone` what each layer brings by itself.
    """

    n: int
    kernel: Kernel
    places: tuple[Place, ...]
    tiles: tuple[Tensor, ...]
    alone: list[list[LayerSums]]

    @classmethod
    def of(cls, layers: int, n: int, kernel: Kernel) -> Cells:
        """Make room for so many layers over n rows."""
        places = tuple(places_below(root_level(blocks_of(n)), 0, 0, blocks_of(n)))
        dtype = kernel.at(n).dtype
        tiles = (torch.empty(layers, _size(i, n) * _size(j, n), dtype=dtype) for i, j in places)
        return cls(n, kernel, places, tuple(tiles), [[] for _ in range(layers)])

    @staticmethod
    def bytes_of_layer(n: int, kernel: Kernel) -> int:
        """Return how much memory the cells of one layer take."""
        places = places_below(root_level(blocks_of(n)), 0, 0, blocks_of(n))
        return sum(_size(i, n) * _size(j, n) for i, j in places) * kernel.at(n).dtype.itemsize

    def fill(self, layer: int, rows: Tensor, anchor: Anchor) -> None:
        """Make the cells of a layer from its prepared rows `[n, D] float32`."""

        def block(at: int) -> Tensor:
            return rows[span(0, at, self.n)]

        out = [tile[layer] for tile in self.tiles]
        with one_thread():
            made = layer_cells(block, self.kernel.at(self.n), anchor, self.places, out)
        self.alone[layer].extend(made)

    def sums(self) -> TileSums:
        """Return the unary sums of the model, which goes by None in them."""
        return self._add_up(leaves_of(self.places, {}, {None: self.alone}))

    def square(self, layer: int) -> Tensor:
        """Return the kernel of a layer, `[n, n]`, 0 on the diagonal."""
        square = torch.empty(self.n, self.n, dtype=self.tiles[0].dtype)
        for (i, j), tile in zip(self.places, self.tiles, strict=True):
            rows, columns = span(0, i, self.n), span(0, j, self.n)
            cells = tile[layer].view(rows.stop - rows.start, -1)
            square[rows, columns] = cells
            square[columns, rows] = cells.T
        return square

    def _add_up(self, leaves: dict[Place, TileSums]) -> TileSums:
        blocks = blocks_of(self.n)
        return add_up(root_level(blocks), 0, 0, leaves, blocks)


def inner_of_cells(pairs: Iterable[tuple[Cells, Cells]]) -> list[Tensor]:
    """Return Σ_{i≠j} K_ij L_ij of every layer pair, `[Lx, Ly] float64`, of some pairs of models."""
    todo = list(pairs)
    jobs: list[Callable[[], Tensor]] = [
        partial(tile_inner, of_x, of_y) for x, y in todo for of_x, of_y in zip(x.tiles, y.tiles, strict=True)
    ]
    made = iter(each(lambda job: job(), jobs))
    found = []
    for x, _ in todo:
        parts = [next(made) for _ in x.places]
        leaves = leaves_of(x.places, {(None, None): parts}, {})
        found.append(x._add_up(leaves).inner[None, None])
    return found


def _size(block: int, n: int) -> int:
    rows = span(0, block, n)
    return rows.stop - rows.start
