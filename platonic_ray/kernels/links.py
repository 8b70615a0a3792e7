"""Similarities of neighbors, for every layer pair of two models at once: sums over what both list.

A *link* is an ordered pair (row, neighbor). The layers of a model list mostly the same links, and two
models share few: so a model's distinct links are found once (`Links`), those that two models share are
looked up, and small matrix products over the layers of both give the sums of all layer pairs.

Blocks are those of the fixed grid of `MICRO` rows. What a block gives depends on the two models and on
the block alone; blocks are added up by `tree_sum`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from platonic_ray.kernels.grams import MICRO, blocks_of, one_thread, span
from platonic_ray.kernels.trees import tree_sum

_CELLS = 2**18  # row × layer pairs whose sums are held at a time


@dataclass(frozen=True, eq=False)
class Links:
    """The links of a model's layers, each distinct one once, with every layer that has it.

    `key` `[U] int64`: row · n + neighbor, ascending; `back` `[U]`: the places of the links in the order
    of `back_key`, neighbor · n + row. Layers and values of link u are the entries `starts[u]` to
    `starts[u + 1]` of `layer`, `value` `[E]` and `mutual` `[E] bool`: whether the layer also has the
    link from the neighbor to the row.
    """

    n: int
    layers: int
    key: Tensor
    back: Tensor
    back_key: Tensor
    starts: Tensor
    layer: Tensor
    value: Tensor
    mutual: Tensor

    @classmethod
    def of(cls, ids: Tensor, values: Tensor) -> Links:
        """Make them of neighbor tables `[L, n, k] int64` and the similarities there, `[L, n, k] float64`.

        The ids of a row are distinct; −1 stands for no neighbor.
        """
        layers, n, _ = ids.shape
        rows = torch.arange(n, device=ids.device)[:, None]
        layer = torch.arange(layers, device=ids.device)[:, None, None].expand_as(ids)
        there = ids >= 0
        order_key = ((rows * n + ids) * layers + layer)[there]
        order_key, order = order_key.sort()
        reverse = ((ids * n + rows) * layers + layer)[there][order]
        place = torch.searchsorted(order_key, reverse).clamp_(max=max(0, order_key.shape[0] - 1))
        key, counts = (order_key // layers).unique_consecutive(return_counts=True)
        back_key, back = ((key % n) * n + key // n).sort()
        return cls(
            n=n,
            layers=layers,
            key=key,
            back=back,
            back_key=back_key,
            starts=torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
            layer=layer[there][order],
            value=values[there][order],
            mutual=order_key[place] == reverse,
        )

    def out_of(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Return keys and places of the links from some rows, keys ascending."""
        part = self._between(self.key, rows)
        return self.key[part], torch.arange(part.start, part.stop, device=self.key.device)

    def into(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Return keys (row last) and places of the links to some rows, keys ascending."""
        part = self._between(self.back_key, rows)
        return self.back_key[part], self.back[part]

    def _between(self, keys: Tensor, rows: slice) -> slice:
        ends = torch.tensor([rows.start * self.n, rows.stop * self.n], device=keys.device)
        return slice(*torch.searchsorted(keys, ends).tolist())

    def spread(self, places: Tensor) -> _Spread:
        """Return the layers and values of some links as matrices over the layers."""
        first = self.starts[places]
        counts = self.starts[places + 1] - first
        line = torch.repeat_interleave(counts)
        before = counts.cumsum(0) - counts
        entry = torch.arange(line.shape[0], device=line.device) + (first - before)[line]
        return _Spread(
            (places.shape[0], self.layers),
            line * self.layers + self.layer[entry],
            self.value[entry],
            self.mutual[entry],
        )


@dataclass(frozen=True)
class _Spread:
    """Some links as the cells of a matrix `[P, L]` that are not 0."""

    shape: tuple[int, int]
    cell: Tensor
    value: Tensor
    mutual: Tensor

    @property
    def listed(self) -> Tensor:
        """1 where a layer has the link, `[P, L] float64`."""
        return self._matrix(torch.ones_like(self.value))

    @property
    def values(self) -> Tensor:
        """The similarity where a layer has the link, `[P, L] float64`."""
        return self._matrix(self.value)

    @property
    def mutual_values(self) -> Tensor:
        """The similarity where a layer has the link and the one back, `[P, L] float64`."""
        return self._matrix(self.value * self.mutual)

    def _matrix(self, values: Tensor) -> Tensor:
        count, layers = self.shape
        return values.new_zeros(count * layers).scatter_(0, self.cell, values).reshape(count, layers)


def linked_products(x: Links, y: Links, rows: slice) -> Tensor:
    """Return Σ_ij m_ij K_ij L_ij over a block of rows i, m_ij = 1 where both models list j for i.

    :param rows: a block of at most `MICRO` rows.
    :returns: `[Lx, Ly] float64`.

    >>> x = Links.of(torch.tensor([[[1], [0]]]), torch.tensor([[[0.5], [0.5]]], dtype=torch.float64))
    >>> linked_products(x, x, slice(0, 2)).tolist()
    [[0.5]]
    """
    _, of_x, of_y = _shared(x.out_of(rows), y.out_of(rows))
    return x.spread(of_x).values.T @ y.spread(of_y).values


def masked_kernel_sums(x: Links, y: Links, rows: slice) -> Tensor:
    """Return the sums that HSIC takes of A = m∘K and B = m∘L, over a block of rows.

    m_ij = 1 where both models list j for i; A and B are not symmetric. In this order, over rows j of
    the block: Σ_ij A_ji B_ij (where the links go both ways in both models); Σ_ij A_ij; Σ_ij B_ji; and
    Σ_j (Σ_i A_ij) (Σ_i B_ji), of which 1ᵀAB1 is the sum over all rows.

    :param rows: a block of at most `MICRO` rows.
    :returns: `[4, Lx, Ly] float64`.
    """
    start, count = rows.start, rows.stop - rows.start
    key_out, of_x, of_y = _shared(x.out_of(rows), y.out_of(rows))
    out_x, out_y = x.spread(of_x), y.spread(of_y)
    trace = out_x.mutual_values.T @ out_y.mutual_values
    lines = _Grouped(key_out // x.n - start, count, out_x.listed, out_y.values)
    key_in, of_x, of_y = _shared(x.into(rows), y.into(rows))
    columns = _Grouped(key_in // x.n - start, count, x.spread(of_x).values, y.spread(of_y).listed)
    totals = trace.new_zeros(3, x.layers, y.layers)
    step = max(1, _CELLS // max(1, x.layers * y.layers))
    for first in range(0, count, step):
        into, out = (each.products(first, min(first + step, count)) for each in (columns, lines))
        totals[0] += into.sum(0)
        totals[1] += out.sum(0)
        totals[2] += into.mul_(out).sum(0)
    return torch.cat([trace[None], totals])


def own_kernel_sums(x: Links) -> Tensor:
    """Return the sums of `masked_kernel_sums` of every layer with itself, over all rows.

    :returns: `[3, L] float64`: Σ_ij A_ij A_ji; Σ_ij A_ij; 1ᵀAA1, with A_ij = K_ij where the layer lists j
        for i, else 0.
    """
    trace, lines, columns = (x.value.new_zeros(x.n, x.layers) for _ in range(3))
    link = torch.repeat_interleave(x.starts.diff())
    row, neighbor = x.key[link] // x.n, x.key[link] % x.n
    for into, at, values in (
        (trace, row, x.value.square() * x.mutual),
        (lines, row, x.value),
        (columns, neighbor, x.value),
    ):
        into.view(-1).index_add_(0, at * x.layers + x.layer, values)
    return _over_blocks(torch.stack([trace, lines, lines * columns]))


def own_products(x: Links) -> Tensor:
    """Return Σ_ij A_ij² of every layer over all rows, `[L] float64`, A as in `own_kernel_sums`."""
    squares = x.value.new_zeros(x.n, x.layers)
    row = x.key[torch.repeat_interleave(x.starts.diff())] // x.n
    squares.view(-1).index_add_(0, row * x.layers + x.layer, x.value.square())
    return _over_blocks(squares)


def _over_blocks(rows: Tensor) -> Tensor:
    """Add up `[…, n, L]` over its rows, in the tree over the blocks of the fixed grid."""
    n = rows.shape[-2]
    with one_thread():
        return tree_sum(
            rows[..., span(0, block, n), :].contiguous().sum(-2) for block in range(blocks_of(n, MICRO))
        )


def _shared(x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the keys that two ascending lists of (key, place) share, and their places in both."""
    (key_x, place_x), (key_y, place_y) = x, y
    if not key_y.shape[0]:
        key_x, place_x, key_y, place_y = key_x[:0], place_x[:0], key_y[:0], place_y[:0]
        return key_x, place_x, place_y
    at = torch.searchsorted(key_y, key_x).clamp_(max=key_y.shape[0] - 1)
    both = key_y[at] == key_x
    return key_x[both], place_x[both], place_y[at[both]]


class _Grouped:
    """Two matrices `[P, Lx]` and `[P, Ly]` whose lines belong to groups, for the product of each group."""

    def __init__(self, group: Tensor, groups: int, x: Tensor, y: Tensor) -> None:
        """:param group: `[P]` ascending, below `groups`."""
        self._counts = group.bincount(minlength=groups)
        self._first = self._counts.cumsum(0) - self._counts
        # A line of zeros at the end fills groups up to the width of their product.
        self._x, self._y = (torch.cat([each, each.new_zeros(1, each.shape[1])]) for each in (x, y))

    def products(self, start: int, stop: int) -> Tensor:
        """Return Xᵀ Y of the groups `start` to `stop`, `[groups, Lx, Ly]`.

        Groups of about the same size are one batch of products, the smaller ones filled up.
        """
        x, y = self._x, self._y
        counts, first = self._counts[start:stop], self._first[start:stop]
        made = x.new_zeros(stop - start, x.shape[1], y.shape[1])
        width = 1
        while (chosen := ((counts > width // 2) & (counts <= width)).nonzero()[:, 0]).numel() or (
            counts > width
        ).any():
            if chosen.numel():
                step = torch.arange(width, device=x.device)
                at = (first[chosen, None] + step).where(step < counts[chosen, None], x.shape[0] - 1)
                made[chosen] = torch.bmm(x[at].transpose(1, 2), y[at])
            width *= 2
        return made
