"""Panels: a few micro-tiles whose cells are made together, layer by layer, for groups of models.

The leaves of the tree of sums (`grams`) come from here. A layer's rows are moved to its anchor once
a panel, not once a micro-tile; the cells of all models of a group are held until their inner products
are taken. What a micro-tile contributes does not depend on the panel or group that it was made in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from platonic_ray.kernels.forms import Anchor, Kernel, Side, cells, move
from platonic_ray.kernels.threads import Run

Key = Any
"""What the caller calls a model: anything hashable."""

Place = tuple[int, int]
"""A micro-tile: its blocks of rows (i, j), i ≤ j."""

_CHUNK = 4096


@dataclass(frozen=True)
class LayerSums:
    """What a layer brings by itself to one micro-tile, in float64; see `TileSums`."""

    squares: Tensor
    rows: Tensor
    columns: Tensor
    diagonal: Tensor


def layer_cells(
    rows: Callable[[int], Tensor],
    kernel: Kernel,
    anchor: Anchor,
    places: Sequence[Place],
    out: Sequence[Tensor],
    sums: bool = True,
) -> list[LayerSums]:
    """Put the cells of one layer's micro-tiles into `out`, flat, and return what they sum to, if wanted.

    :param rows: returns the prepared rows of a block.
    """
    sides: dict[int, Side] = {}
    for block in dict.fromkeys(block for place in places for block in place):
        sides[block] = move(rows(block), kernel, anchor)
    found = []
    for (i, j), flat in zip(places, out, strict=True):
        tile = cells(sides[i], sides[j], same=i == j)
        flat.copy_(tile.reshape(-1))
        if sums:
            wide = tile.double()
            line = wide.reshape(-1)
            found.append(LayerSums(torch.dot(line, line), wide.sum(1), wide.sum(0), sides[i].diagonal))
    return found


@dataclass(frozen=True)
class Panel:
    """Micro-tiles `places` of some models' kernels.

    `rows(model, layer, block)` are prepared rows, `size(block)` is how many.
    """

    places: Sequence[Place]
    kernel: Kernel
    about: Mapping[Key, Sequence[Anchor]]
    rows: Callable[[Key, int, int], Tensor]
    size: Callable[[int], int]
    run: Run

    def sums(
        self,
        models: Sequence[Key],
        pairs: Collection[tuple[Key, Key]],
        unary: Collection[Key],
        limit_bytes: int,
    ) -> tuple[dict[tuple[Key, Key], list[Tensor]], dict[Key, list[list[LayerSums]]]]:
        """Return Σ K ∘ L `[Lx, Ly]` of every pair, place by place, and of every model in `unary` the
        sums of its layers, layer by layer and place by place.

        Holds the cells of all models if they take `limit_bytes` or less; else of two groups of models
        at a time.
        """
        inner: dict[tuple[Key, Key], list[Tensor]] = {}
        alone: dict[Key, list[list[LayerSums]]] = {}
        groups = self._groups(models, limit_bytes)
        for g, group in enumerate(groups):
            held = self._make(group, unary, alone)
            for other in groups[g:]:
                wanted = [
                    (x, y)
                    for x, y in pairs
                    if (x in group and y in other) or (x in other and y in group)
                    if (x, y) not in inner
                ]
                if wanted:
                    more = {} if other is group else self._make(other, unary, alone)
                    inner |= self._products(wanted, {**held, **more})
                    more.clear()  # before others are made
            held.clear()
        return inner, alone

    def _groups(self, models: Sequence[Key], limit_bytes: int) -> list[list[Key]]:
        of_layer = self.kernel.dtype.itemsize * sum(self._size(place) for place in self.places)
        sizes = {model: len(self.about[model]) * of_layer for model in models}
        if sum(sizes.values()) <= limit_bytes:
            return [list(models)]
        groups: list[list[Key]] = []
        room = 0
        for model in models:
            if not groups or sizes[model] > room:
                groups.append([])
                room = limit_bytes // 2
            groups[-1].append(model)
            room -= sizes[model]
        return groups

    def _make(
        self, group: Sequence[Key], unary: Collection[Key], alone: dict[Key, list[list[LayerSums]]]
    ) -> dict[Key, list[Tensor]]:
        """Return the cells `[L, P]` of every model and place; add what models bring by themselves."""
        first = {model for model in group if model in unary and model not in alone}
        tiles = {
            model: [
                torch.empty(
                    len(self.about[model]),
                    self._size(place),
                    dtype=self.kernel.dtype,
                    device=self.rows(model, 0, place[0]).device,
                )
                for place in self.places
            ]
            for model in group
        }
        jobs = [(model, layer) for model in group for layer in range(len(self.about[model]))]
        made = self.run(partial(self._layer, *job, tiles[job[0]], job[0] in first) for job in jobs)
        for (model, _), sums in zip(jobs, made, strict=True):
            if model in first:
                alone.setdefault(model, []).append(sums)
        return tiles

    def _layer(self, model: Key, layer: int, out: Sequence[Tensor], sums: bool) -> list[LayerSums]:
        rows = partial(self.rows, model, layer)
        tiles = [of_place[layer] for of_place in out]
        return layer_cells(rows, self.kernel, self.about[model][layer], self.places, tiles, sums)

    def _products(
        self, pairs: Sequence[tuple[Key, Key]], tiles: Mapping[Key, Sequence[Tensor]]
    ) -> dict[tuple[Key, Key], list[Tensor]]:
        jobs = [(x, y, at) for x, y in pairs for at in range(len(self.places))]
        products = self.run(partial(tile_inner, tiles[x][at], tiles[y][at]) for x, y, at in jobs)
        size = len(self.places)
        return {pair: products[p * size : (p + 1) * size] for p, pair in enumerate(pairs)}

    def _size(self, place: Place) -> int:
        """Return the number of cells of a micro-tile."""
        return self.size(place[0]) * self.size(place[1])


def tile_inner(tile_x: Tensor, tile_y: Tensor) -> Tensor:
    """Return Σ K ∘ L of every layer pair, `[Lx, Ly] float64`, of flat tiles `[Lx, P]` and `[Ly, P]`.

    Float32 tiles are multiplied in float32, chunk by chunk; the chunks add in float64.
    """
    if tile_x.dtype == torch.float64:
        return tile_x @ tile_y.T
    (lx, size), ly = tile_x.shape, tile_y.shape[0]
    whole = size - size % _CHUNK
    total = torch.zeros(lx, ly, dtype=torch.float64, device=tile_x.device)
    if whole:
        x = tile_x[:, :whole].reshape(lx, -1, _CHUNK).transpose(0, 1)
        y = tile_y[:, :whole].reshape(ly, -1, _CHUNK).permute(1, 2, 0)
        total += torch.bmm(x, y).sum(0, dtype=torch.float64)
    if whole < size:
        total += tile_x[:, whole:] @ tile_y[:, whole:].T
    return total
