"""The null of neighbor overlaps: what two models share when the samples of one are relabelled.

Permuting the rows of a representation permutes its neighbor table, so nothing is computed anew:
under permutation π, row i of Y holds the labels π⁻¹(j) of the neighbors j of sample π(i). For
unrelated models a layer pair then shares about k² neighbors in all, of n · k, and only these are
looked at: the distinct neighbors of a row over all layers of one model are looked up among those of
the other, and what is found on both sides is counted for all layer pairs by one small product.

At n = 1,024, k = 10, 454 × 352 layers of 12 × 17 models, one core: 200 permutations take about 4 times
as long as the observed overlaps where a model's layers share most neighbors, 8 times where they share
none (extrapolated from every 10th and every 34th pair of models).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

_TABLE_CELLS = 2**24
_EXACT = 2**24  # float32 counts exactly up to here
_SPARSE = 64  # times fewer layer pairs that share a neighbor than layer pairs: then a sparse product pays

_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Labels:
    """The neighbors of every row over all layers of a model, each once; made once for a model.

    `row`, `column` `[u] int64`: the distinct (row, neighbor), rows in order; `starts` `[n + 1]
    int64`: where a row's begin. `members` `[u, L] uint8`: 1 where the layer has that neighbor.
    `k` is the width of the table it was made from.
    """

    row: _Ints
    column: _Ints
    starts: _Ints
    members: Tensor
    k: int

    @classmethod
    def of(cls, ids: Tensor) -> Labels:
        """Make them from the tables `[L, n, k] int64` of a model; −1 stands for no neighbor."""
        layers, n, k = ids.shape
        keys = ids + torch.arange(n)[:, None] * n
        layer = torch.arange(layers)[:, None, None].expand_as(ids)
        present = ids >= 0
        distinct, place = keys[present].unique(return_inverse=True)
        members = torch.zeros(distinct.shape[0], layers, dtype=torch.uint8)
        members[place, layer[present]] = 1
        row, column = np.divmod(distinct.numpy(), n) if n else (distinct.numpy(), distinct.numpy())
        return cls(row, column, np.searchsorted(row, np.arange(n + 1)), members, k)

    @property
    def n(self) -> int:
        return len(self.starts) - 1

    @property
    def layers(self) -> int:
        return int(self.members.shape[1])

    @cached_property
    def shared(self) -> float:
        """How many layers have a neighbor that one has, in the mean over `row`."""
        return float(self.members.sum()) / max(1, len(self.row))

    @cached_property
    def alone(self) -> _Ints:
        """The layer that has a neighbor, `[u]`; −1 where several do."""
        first = self.sparse.indptr[:-1]
        return np.where(np.diff(self.sparse.indptr) == 1, self.sparse.indices[first], -1).astype(np.int64)

    @cached_property
    def sparse(self) -> sparse.csr_array:
        """`members` as a sparse array of float32."""
        places, layers = self.members.nonzero(as_tuple=True)
        starts = np.searchsorted(places.numpy(), np.arange(len(self.row) + 1))
        ones = np.ones(len(places), dtype=np.float32)
        return sparse.csr_array(
            (ones, layers.numpy().astype(np.int32), starts.astype(np.int32)),
            shape=(len(self.row), self.layers),
        )

    def table(self, start: int, stop: int) -> npt.NDArray[np.int32]:
        """Return where each (row, neighbor) of a block of rows is, −1 where nowhere: `[rows · n]`."""
        found = np.full((stop - start) * self.n, -1, dtype=np.int32)
        span = slice(self.starts[start], self.starts[stop])
        found[(self.row[span] - start) * self.n + self.column[span]] = np.arange(span.start, span.stop)
        return found

    def of_rows(self, rows: _Ints) -> _Ints:
        """Return the places of the neighbors of some rows."""
        first, counts = self.starts[rows], self.starts[rows + 1] - self.starts[rows]
        before = np.cumsum(counts) - counts
        return np.repeat(first - before, counts) + np.arange(counts.sum())


def null_overlaps(x: Labels | Tensor, y: Labels | Tensor, perms: Tensor) -> Tensor:
    """Return, for every permutation, the largest overlap over all pairs of a layer of X and one of Y.

    The overlap of two layers under π is Σ_i |S_X(i) ∩ {π⁻¹(j) : j ∈ S_Y(π(i))}|. One permutation
    serves all layers, and the maximum is over all layer pairs, as that of the observed overlaps is:
    it is not the overlap of the pair that was best as observed.

    :param x: the neighbor tables `[Lx, n, k] int64` of a model, a row's ids distinct, −1 for no
        neighbor; or what `Labels.of` made of them.
    :param y: `[Ly, n, k] int64`, or its `Labels`.
    :param perms: `[K, n] int64`.
    :returns: `[K] int64`.
    :raises ValueError: if the tables have other rows or another k, or the permutations other samples.

    >>> two = torch.tensor([[0, 1, 2], [1, 0, 2]])
    >>> null_overlaps(torch.tensor([[[1], [0], [1]]]), torch.tensor([[[1], [0], [0]]]), two).tolist()
    [2, 3]
    """
    held, sought = (each if isinstance(each, Labels) else Labels.of(each) for each in (x, y))
    n = held.n
    if (n, held.k) != (sought.n, sought.k):
        raise ValueError(f"tables of (n, k) = {n, held.k} and {sought.n, sought.k} cannot be compared")
    if perms.ndim != 2 or perms.shape[1] != n:
        raise ValueError(f"permutations of shape {list(perms.shape)} are not of {n} samples")
    if n == 0 or held.layers == 0 or sought.layers == 0:
        return torch.zeros(perms.shape[0], dtype=torch.int64)
    orders = perms.numpy()
    inverses = np.empty_like(orders)
    np.put_along_axis(inverses, orders, np.arange(n)[None], axis=1)
    if len(held.row) < len(sought.row):
        # Relabelling Y by π finds the same matches as relabelling X by π⁻¹; the shorter list is sought.
        held, sought, orders, inverses = sought, held, inverses, orders
    best = torch.zeros(perms.shape[0], dtype=torch.int64)
    step = max(1, min(n, _TABLE_CELLS // n))
    if step == n:
        whole = torch.from_numpy(held.table(0, n))
        row, column = (torch.from_numpy(each.astype(np.int32)) for each in (sought.row, sought.column))
        for b, label in enumerate(torch.from_numpy(inverses).to(torch.int32)):
            cells = label.index_select(0, row).mul_(n).add_(label.index_select(0, column))
            found = whole.index_select(0, cells).numpy()
            places = np.flatnonzero(found >= 0)
            best[b] = _count(held, sought, found[places], places).max()
        return best
    # Too many samples for one table: block by block, the table of a block serves all permutations.
    counts = torch.zeros(perms.shape[0], held.layers, sought.layers, dtype=torch.int64)
    for start in range(0, n, step):
        stop = min(start + step, n)
        table = held.table(start, stop)
        for b, (order, inverse) in enumerate(zip(orders, inverses, strict=True)):
            chosen = sought.of_rows(order[start:stop])
            slots = table[(inverse[sought.row[chosen]] - start) * n + inverse[sought.column[chosen]]]
            there = np.flatnonzero(slots >= 0)
            counts[b] += _count(held, sought, slots[there], chosen[there])
    return counts.flatten(1).amax(dim=1)


def _count(held: Labels, sought: Labels, at: npt.NDArray[np.int32], other: _Ints) -> Tensor:
    """Return how many of the matches (`at` in held, `other` in sought) each pair of layers has."""
    counts = torch.zeros(held.layers, sought.layers, dtype=torch.int64)
    for span in _spans(len(at)):
        if held.shared * sought.shared * _SPARSE < held.layers * sought.layers:
            # Most matches are of one layer with one layer; the sparse product has the others.
            one_held, one_sought = held.alone[at[span]], sought.alone[other[span]]
            single = (one_held >= 0) & (one_sought >= 0)
            cells = one_held[single] * sought.layers + one_sought[single]
            counts += torch.from_numpy(np.bincount(cells, minlength=counts.numel()).reshape(counts.shape))
            found = held.sparse[at[span][~single]].T @ sought.sparse[other[span][~single]]
            counts += torch.from_numpy(found.toarray()).to(torch.int64)
        else:
            a = held.members.index_select(0, torch.from_numpy(at[span]))
            b = sought.members.index_select(0, torch.from_numpy(other[span]))
            counts += (a.to(torch.float32).T @ b.to(torch.float32)).to(torch.int64)
    return counts


def _spans(length: int) -> Iterator[slice]:
    return (slice(start, start + _EXACT) for start in range(0, length, _EXACT))
