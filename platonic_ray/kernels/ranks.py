"""The rank of one other row among all, for every row: counted, exact, without sorting anything.

As with neighbors, a float64 matrix product proposes; what its rounding bound leaves undecided gets the
canonical value, and equal values are ordered by tie key.
"""

from __future__ import annotations

import torch
from torch import Tensor

from platonic_ray.kernels.dot import (
    canonical_dot,
    canonical_squared_distance,
    dot_error,
    squared_distance_error,
)
from platonic_ray.kernels.duplicates import group_rows
from platonic_ray.kernels.neighbors import Similarity

_CELLS = 2**21  # cells of the proposal matrix held at a time
_PAIR_BYTES = 32 * 2**20  # gathered rows held at a time while pairs get their canonical value


def neighbor_ranks(rows: Tensor, keys: Tensor, others: Tensor, similarity: Similarity = "inner") -> Tensor:
    """Return, for every row, the rank of one other row among its n − 1 others, nearest first, from 1.

    The order is that of `exact_neighbors`: canonical values, equal ones by tie key. Memory stays
    bounded: rows go in chunks, and identical rows are one column of the proposal matrix.

    :param rows: `[n, D] float32` prepared rows, finite.
    :param keys: tie keys `[n] int64`, all different.
    :param others: `[n] int64`, for every row the position of another.
    :returns: `[n] int64`, each 1 to n − 1.
    """
    n = rows.shape[0]
    by_key = torch.empty_like(keys)
    by_key[torch.argsort(keys)] = torch.arange(n, device=rows.device)
    members, group = group_rows(rows)
    distinct = rows[members]
    sizes = torch.bincount(group, minlength=members.shape[0])
    # Members of each group by key: a member's place here less its group's start counts those before it.
    place = (group * n + by_key).sort().values
    start = sizes.cumsum(0) - sizes
    wanted = _values(rows, rows[others], similarity)
    own = _values(rows, rows, similarity)
    ranks = torch.empty(n, dtype=torch.int64, device=rows.device)
    step = max(1, _CELLS // distinct.shape[0])
    for first in range(0, n, step):
        chunk = slice(first, first + step)
        limit, key = _cost(wanted[chunk], similarity), by_key[others[chunk]]
        before, near = _proposed(rows[chunk], distinct, limit, similarity)
        count = before.to(torch.float64) @ sizes.to(torch.float64)  # exact: whole numbers below 2^53
        found = count.to(torch.int64)
        row, column = near.nonzero().unbind(1)
        for part in _parts(row.shape[0], rows.shape[1]):
            r, c = row[part], column[part]
            cost = _cost(_values(rows[chunk][r], distinct[c], similarity), similarity)
            tied = torch.searchsorted(place, c * n + key[r]) - start[c]
            more = torch.where(cost < limit[r], sizes[c], torch.where(cost == limit[r], tied, 0))
            found.index_add_(0, r, more)
        itself = _cost(own[chunk], similarity)
        found -= ((itself < limit) | ((itself == limit) & (by_key[chunk] < key))).to(torch.int64)
        ranks[chunk] = found + 1
    return ranks


def _proposed(
    queries: Tensor, gallery: Tensor, limit: Tensor, similarity: Similarity
) -> tuple[Tensor, Tensor]:
    """Mark `[q, g]` the rows whose cost is surely below a query's limit, and those that might be or equal it."""
    width = queries.shape[1]
    squares_q, squares_g = canonical_dot(queries, queries), canonical_dot(gallery, gallery)
    # The norms are rounded; 1e-9 more makes them upper bounds.
    norms_q, norms_g = squares_q.sqrt() * (1 + 1e-9), squares_g.sqrt() * (1 + 1e-9)
    cost = queries.double() @ gallery.double().T
    if similarity == "inner":
        cost.neg_()
        error = torch.outer(norms_q * dot_error(width), norms_g)
    else:
        cost.mul_(-2).add_(squares_q.unsqueeze(1) + squares_g)
        error = (norms_q.unsqueeze(1) + norms_g).square_().mul_(squared_distance_error(width))
    cost -= limit.unsqueeze(1)
    before = cost < -error
    return before, (cost <= error) & ~before


def _values(a: Tensor, b: Tensor, similarity: Similarity) -> Tensor:
    """Return the canonical value `[p] float64` of pairs of rows `[p, D]`, in bounded memory."""
    canonical = canonical_dot if similarity == "inner" else canonical_squared_distance
    return torch.cat([canonical(a[part], b[part]) for part in _parts(a.shape[0], a.shape[1])])


def _parts(count: int, width: int) -> list[slice]:
    step = max(1, _PAIR_BYTES // (8 * (width + 2 * 64)))
    return [slice(first, first + step) for first in range(0, max(count, 1), step)]


def _cost(values: Tensor, similarity: Similarity) -> Tensor:
    return -values if similarity == "inner" else values
