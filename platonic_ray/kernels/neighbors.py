"""Exact neighbors of prepared rows: which rows, in which order, on any device and in any blocks.

A float64 matrix product proposes; a rigorous bound on its rounding says which rows could still be
among the nearest; these get the canonical dot, and it alone decides. Equal values are ordered by
the tie rule. So the result is a function of the prepared rows and of nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from platonic_ray.errors import StudyError
from platonic_ray.kernels.dot import (
    canonical_dot,
    canonical_squared_distance,
    dot_error,
    squared_distance_error,
)
from platonic_ray.kernels.duplicates import first_of_each, group_rows
from platonic_ray.kernels.ties import TieRule, Ties

Similarity = Literal["inner", "euclidean"]
_CELLS = 2**21  # cells of the proposal matrix held at a time, a few float64 of them each
_PAIR_BYTES = 32 * 2**20  # gathered rows held at a time while candidates get their canonical value


@dataclass(frozen=True)
class TopK:
    """The nearest rows found so far, one column more than asked for, so that a tie at rank k shows.

    `ids` `[n, k + 1] int64`, nearest first, −1 where there is none; `values` `[n, k + 1] float64`,
    the canonical inner products (descending) or squared distances (ascending).
    """

    ids: Tensor
    values: Tensor

    @property
    def k(self) -> int:
        """The number of neighbors asked for."""
        return self.ids.shape[1] - 1


def tile_neighbors(
    queries: Tensor,
    gallery: Tensor,
    query_ids: Tensor,
    gallery_ids: Tensor,
    k: int,
    rule: TieRule,
    similarity: Similarity = "inner",
) -> TopK:
    """Return the nearest rows of one block of the gallery for one block of queries.

    Gallery rows with the query's own id are left out. Memory stays bounded: queries go in chunks,
    and groups of identical rows are shortened before any work is done on them.

    :param queries: `[q, D] float32` prepared rows, finite.
    :param gallery: `[g, D] float32` prepared rows, finite.
    :param query_ids: `[q] int64`.
    :param gallery_ids: `[g] int64`, distinct.
    :raises StudyError: if the similarity or the tie rule is unknown.
    """
    _check_similarity(similarity)
    members, group = group_rows(queries)
    # One column more: a row's own entry is dropped at the end, when identical queries part again.
    keep = k + 2
    # Of identical rows only the first `keep` in tie order can be among the `keep` nearest.
    order = rule.order(gallery_ids)
    order = order[first_of_each(group_rows(gallery)[1][order], keep)]
    ids, values = _nearest(queries[members], gallery[order], gallery_ids[order], keep, similarity)
    ids, values = ids[group], values[group]
    own = ids == query_ids.unsqueeze(1)
    column = torch.argsort(own.to(torch.uint8), dim=1, stable=True)[:, : k + 1]
    return TopK(ids.gather(1, column), values.gather(1, column))


def merge_neighbors(a: TopK, b: TopK, rule: TieRule, similarity: Similarity = "inner") -> TopK:
    """Return the nearest of two states of the same queries over disjoint blocks of the gallery.

    Associative and commutative to the last bit.
    """
    _check_similarity(similarity)
    ids, values = torch.cat([a.ids, b.ids], 1), torch.cat([a.values, b.values], 1)
    # Least significant key first; the stable sorts that follow keep its order among equals. An id of
    # −1 has the worst value there is, so it comes behind every neighbor.
    column = torch.argsort(ids, dim=1, stable=True)
    for key in (rule.keys(ids), _cost(values, similarity)):
        column = column.gather(1, torch.argsort(key.gather(1, column), dim=1, stable=True))
    column = column[:, : a.k + 1]
    return TopK(ids.gather(1, column), values.gather(1, column))


def exact_neighbors(
    rows: Tensor,
    k: int,
    digest: str,
    similarity: Similarity = "inner",
    ties: Ties = "hash",
    block_rows: int = 4096,
) -> TopK:
    """Return the neighbors of every row of a representation; `block_rows` changes no bit of it.

    :param rows: `[n, D] float32` prepared rows, finite.
    :param digest: digest of the representation, the seed of its tie rule.
    :raises StudyError: if k < 1 or k ≥ n, or the similarity or tie rule is unknown.
    """
    n = rows.shape[0]
    if not 1 <= k < n:
        raise StudyError(f"k = {k} neighbors cannot be had of {n} samples: 1 ≤ k ≤ {n - 1} is needed.")
    rule = TieRule(digest, ties)
    ids = torch.arange(n, device=rows.device)
    blocks = [slice(start, min(start + block_rows, n)) for start in range(0, n, block_rows)]
    found = []
    for mine in blocks:
        state: TopK | None = None
        for other in blocks:
            tile = tile_neighbors(rows[mine], rows[other], ids[mine], ids[other], k, rule, similarity)
            state = tile if state is None else merge_neighbors(state, tile, rule, similarity)
        assert state is not None
        found.append(state)
    return TopK(torch.cat([part.ids for part in found]), torch.cat([part.values for part in found]))


def tied_share(topk: TopK) -> float:
    """Return the share of rows whose value at rank k equals that at rank k + 1."""
    tied = (topk.values[:, -2] == topk.values[:, -1]) & (topk.ids[:, -1] >= 0)
    return tied.double().mean().item()


def _nearest(
    queries: Tensor, gallery: Tensor, gallery_ids: Tensor, keep: int, similarity: Similarity
) -> tuple[Tensor, Tensor]:
    """Return ids and values `[q, keep]` of the nearest gallery rows; the gallery is in tie order."""
    count = queries.shape[0]
    worst = -torch.inf if similarity == "inner" else torch.inf
    ids = torch.full((count, keep), -1, dtype=torch.int64, device=queries.device)
    values = torch.full((count, keep), worst, dtype=torch.float64, device=queries.device)
    step = max(1, _CELLS // max(1, gallery.shape[0]))
    for start in range(0, count, step):
        chunk = queries[start : start + step]
        near = _candidates(chunk, gallery, keep, similarity)
        row, column = near.nonzero().unbind(1)  # row by row, columns in tie order
        value = _pair_values(chunk, gallery, row, column, similarity)
        lengths = near.sum(1)
        place = torch.arange(row.shape[0], device=row.device) - (lengths.cumsum(0) - lengths)[row]
        width = int(lengths.max())
        cost = torch.full((chunk.shape[0], width), torch.inf, dtype=torch.float64, device=row.device)
        cost[row, place] = _cost(value, similarity)
        which = torch.zeros(chunk.shape[0], width, dtype=torch.int64, device=row.device)
        which[row, place] = column
        # Stable, so equal values stay in tie order.
        cost, best = cost.sort(dim=1, stable=True)
        found = min(keep, width)
        picked = gallery_ids[which.gather(1, best[:, :found])]
        missing = cost[:, :found].isinf()
        ids[start : start + step, :found] = picked.masked_fill(missing, -1)
        values[start : start + step, :found] = _cost(cost[:, :found], similarity)
    return ids, values


def _candidates(queries: Tensor, gallery: Tensor, keep: int, similarity: Similarity) -> Tensor:
    """Mark `[q, g]` every gallery row that could be among the `keep` nearest by canonical value.

    With |proposal − canonical| ≤ e, at least `keep` rows have a canonical cost of at most the
    `keep`-th smallest (proposal + e); a row whose (proposal − e) is above that is out, for good.
    """
    if gallery.shape[0] <= keep:
        return torch.ones(queries.shape[0], gallery.shape[0], dtype=torch.bool, device=queries.device)
    width = queries.shape[1]
    squares_q, squares_g = canonical_dot(queries, queries), canonical_dot(gallery, gallery)
    # The norms are rounded; 1e-9 more makes them upper bounds.
    norms_q, norms_g = squares_q.sqrt() * (1 + 1e-9), squares_g.sqrt() * (1 + 1e-9)
    product = queries.double() @ gallery.double().T
    if similarity == "inner":
        cost = product.neg_()
        error = torch.outer(norms_q * dot_error(width), norms_g)
    else:
        cost = product.mul_(-2).add_(squares_q.unsqueeze(1) + squares_g)
        error = (norms_q.unsqueeze(1) + norms_g).square_().mul_(squared_distance_error(width))
    limit = (cost + error).topk(keep, dim=1, largest=False).values.amax(1, keepdim=True)
    return cost.sub_(error) <= limit


def _pair_values(
    queries: Tensor, gallery: Tensor, row: Tensor, column: Tensor, similarity: Similarity
) -> Tensor:
    """Return the canonical value `[p] float64` of every pair (row, column), in bounded memory."""
    canonical = canonical_dot if similarity == "inner" else canonical_squared_distance
    values = torch.empty(row.shape[0], dtype=torch.float64, device=row.device)
    step = max(1, _PAIR_BYTES // (8 * (queries.shape[1] + 2 * 64)))
    for start in range(0, row.shape[0], step):
        part = slice(start, start + step)
        values[part] = canonical(queries[row[part]], gallery[column[part]])
    return values


def _cost(values: Tensor, similarity: Similarity) -> Tensor:
    """Turn values into what is sorted ascending, and back."""
    return -values if similarity == "inner" else values


def _check_similarity(similarity: str) -> None:
    if similarity not in ("inner", "euclidean"):
        raise StudyError(f'similarity must be "inner" or "euclidean" (given: {similarity!r}).')
