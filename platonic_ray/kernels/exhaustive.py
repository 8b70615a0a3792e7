"""The nearest rows of each query by float64 products: slow, and right whatever the numbers are.

A float64 matrix product proposes; the bound on its rounding is so small that what it leaves open is
ties, exact or nearly so, and these get the canonical dot. Bulk duplicates are found first, and cost
no more than one of them. It needs no help of `search`, which calls it for rows that nothing cheaper
has settled.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from platonic_ray.kernels.compiled import loops_for
from platonic_ray.kernels.dot import (
    canonical_dot,
    canonical_squared_distance,
    dot_error,
    squared_distance_error,
)
from platonic_ray.kernels.duplicates import first_of_each, group_rows
from platonic_ray.kernels.threads import spreading
from platonic_ray.kernels.ties import TieRule

Similarity = Literal["inner", "euclidean"]
_CELLS = 2**21  # cells of the proposal matrix held at a time, a few float64 of them each
_PAIR_BYTES = 32 * 2**20  # gathered rows held at a time while candidates get their canonical value


def exhaustive(
    queries: Tensor,
    gallery: Tensor,
    query_ids: Tensor,
    gallery_ids: Tensor,
    count: int,
    rule: TieRule,
    similarity: Similarity,
) -> tuple[Tensor, Tensor]:
    """Return ids `[q, count]` and canonical values of the nearest gallery rows but a query's own.

    As `neighbors.tile_neighbors`: −1 and the worst value where there are no more.
    """
    members, group = group_rows(queries)
    # One column more: a row's own entry is dropped at the end, when identical queries part again.
    keep = count + 1
    # Of identical rows only the first `keep` in tie order can be among the `keep` nearest.
    order = rule.order(gallery_ids)
    order = order[first_of_each(group_rows(gallery)[1][order], keep)]
    ids, values = _nearest(queries[members], gallery[order], gallery_ids[order], keep, similarity)
    ids, values = ids[group], values[group]
    own = ids == query_ids.unsqueeze(1)
    column = torch.argsort(own.to(torch.uint8), dim=1, stable=True)[:, :count]
    return ids.gather(1, column), values.gather(1, column)


def pair_values(
    queries: Tensor, gallery: Tensor, row: Tensor, column: Tensor, similarity: Similarity
) -> Tensor:
    """Return the canonical value `[p] float64` of every pair (row, column), in bounded memory.

    Works on as many threads as torch is set to, which changes no byte.
    """
    compiled = loops_for(queries, row.shape[0] * queries.shape[1])
    if compiled is not None:
        found = torch.empty(row.shape[0], dtype=torch.float64)
        x, y, i, j, out = (each.numpy() for each in (queries, gallery, row, column, found))

        def fill(start: int, stop: int) -> None:
            part = slice(start, stop)
            compiled.canonical_values(x, y, i[part], j[part], similarity == "euclidean", out[part])

        with spreading(torch.get_num_threads()) as spread:
            spread(fill, row.shape[0])
        return found
    canonical = canonical_dot if similarity == "inner" else canonical_squared_distance
    values = torch.empty(row.shape[0], dtype=torch.float64, device=row.device)
    step = max(1, _PAIR_BYTES // (8 * (queries.shape[1] + 2 * 64)))
    for start in range(0, row.shape[0], step):
        part = slice(start, start + step)
        values[part] = canonical(queries[row[part]], gallery[column[part]])
    return values


def cost_of(values: Tensor, similarity: Similarity) -> Tensor:
    """Turn values into what is sorted ascending, and back."""
    return -values if similarity == "inner" else values


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
        value = pair_values(chunk, gallery, row, column, similarity)
        lengths = near.sum(1)
        place = torch.arange(row.shape[0], device=row.device) - (lengths.cumsum(0) - lengths)[row]
        width = int(lengths.max())
        cost = torch.full((chunk.shape[0], width), torch.inf, dtype=torch.float64, device=row.device)
        cost[row, place] = cost_of(value, similarity)
        which = torch.zeros(chunk.shape[0], width, dtype=torch.int64, device=row.device)
        which[row, place] = column
        # Stable, so equal values stay in tie order.
        cost, best = cost.sort(dim=1, stable=True)
        found = min(keep, width)
        picked = gallery_ids[which.gather(1, best[:, :found])]
        missing = cost[:, :found].isinf()
        ids[start : start + step, :found] = picked.masked_fill(missing, -1)
        values[start : start + step, :found] = cost_of(cost[:, :found], similarity)
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
