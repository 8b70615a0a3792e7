"""Exact neighbors of prepared rows: which rows, in which order, on any device and in any blocks.

Fast products propose: bfloat16 where the device has matrix units for it, 16-bit integers where many samples
meet on other x86, else float32. A rigorous bound on the rounding (`frame`) says which rows could still be among the
nearest; where it leaves their order open, the canonical dot decides, and it alone. Equal values are
ordered by the tie rule. So the result is a function of the prepared rows and of nothing else.

Small problems are one dense matrix (`search`), which is cheap for many layers of few samples, most of all where
ids are wanted and no values; larger ones are tiles that go by and are never held (`sweep`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from platonic_ray.errors import StudyError
from platonic_ray.kernels.compiled import matrix_units, native
from platonic_ray.kernels.exhaustive import Similarity
from platonic_ray.kernels.search import Search
from platonic_ray.kernels.sweep import Read, Sweep
from platonic_ray.kernels.ties import Digest, TieRule, Ties
from platonic_ray.kernels.topk import TopK, check_similarity, merge_neighbors, tied_share

__all__ = [
    "DENSE_IDS",
    "DENSE_VALUES",
    "TopK",
    "exact_ids",
    "exact_neighbors",
    "growing_neighbors",
    "merge_neighbors",
    "tied_share",
    "tile_neighbors",
    "tile_neighbors_of_both",
]

DENSE_IDS = 2**22
"""So many cells of queries and gallery are one dense matrix where ids alone are wanted; of more, tiles go by."""

DENSE_IDS_BESIDE_UNITS = 2**19
"""The same on a processor with matrix units, which leave less to be gained."""

DENSE_VALUES = 2**15
"""The same where values are wanted and loops are compiled: tiles give values as they are, of faster products."""


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

    Gallery rows with the query's own id are left out. Memory stays bounded, whatever the sizes.

    :param queries: `[q, D] float32` prepared rows, finite.
    :param gallery: `[g, D] float32` prepared rows, finite.
    :param query_ids: `[q] int64`.
    :param gallery_ids: `[g] int64`, distinct.
    :raises StudyError: if the similarity or the tie rule is unknown.
    """
    check_similarity(similarity)
    q, g = queries.shape[0], gallery.shape[0]
    if q * g <= _dense_values(queries):
        return TopK(*Search(gallery, gallery_ids, k + 1, rule, similarity).nearest(queries, query_ids))
    if queries is gallery and query_ids is gallery_ids:
        return _all_against_all(queries, query_ids, k, rule, similarity)
    sweep = _joined(queries, gallery, query_ids, gallery_ids, k, rule, similarity, queries=q)
    sweep.add(range(q), range(q, q + g), both=False)
    return TopK(*sweep.nearest(range(q), range(q, q + g)))


def tile_neighbors_of_both(
    a: Tensor,
    b: Tensor,
    ids_a: Tensor,
    ids_b: Tensor,
    k: int,
    rule: TieRule,
    similarity: Similarity = "inner",
) -> tuple[TopK, TopK]:
    """Return the nearest rows of block b for block a's, and the nearest of a for b's, of one set of products.

    Shapes and errors as `tile_neighbors`, which gives the same twice; no id is in both blocks.
    """
    check_similarity(similarity)
    m, n = a.shape[0], b.shape[0]
    if m * n <= _dense_values(a):
        return (
            tile_neighbors(a, b, ids_a, ids_b, k, rule, similarity),
            tile_neighbors(b, a, ids_b, ids_a, k, rule, similarity),
        )
    sweep = _joined(a, b, ids_a, ids_b, k, rule, similarity)
    of_a, of_b = range(m), range(m, m + n)
    sweep.add(of_a, of_b)
    return TopK(*sweep.nearest(of_a, of_b)), TopK(*sweep.nearest(of_b, of_a))


def exact_neighbors(
    rows: Tensor,
    k: int,
    digest: Digest,
    similarity: Similarity = "inner",
    ties: Ties = "hash",
    block_rows: int | None = None,
    tally: Counter[str] | None = None,
) -> TopK:
    """Return the neighbors of every row of a representation; `block_rows` changes no bit of it.

    :param rows: `[n, D] float32` prepared rows, finite.
    :param digest: digest of the representation, the seed of its tie rule.
    :param block_rows: rows that are centered at a time, where n is large.
    :param tally: as of `exact_ids`, and "again", the rows that tiles have not settled.
    :raises StudyError: if k < 1 or k ≥ n, or the similarity or tie rule is unknown.
    """
    n, rule = _checked(rows, k, similarity, digest, ties)
    ids = torch.arange(n, device=rows.device)
    if n * n <= _dense_values(rows):
        return TopK(*Search(rows, ids, k + 1, rule, similarity).nearest(rows, ids, tally))
    return _all_against_all(rows, ids, k, rule, similarity, block_rows, tally)


def growing_neighbors(
    read: Read,
    n: int,
    width: int,
    k: int,
    rule: TieRule,
    similarity: Similarity = "inner",
    *,
    sizes: Sequence[int],
    queries: Tensor | None = None,
    query_ids: Tensor | None = None,
    block_rows: int | None = None,
    tally: Counter[str] | None = None,
) -> list[TopK]:
    """Return the neighbors among the first m rows of a gallery for every size m, in one pass over them.

    The gallery is read block by block, and never held as a whole; see `sweep`.

    :param read: gives rows of the gallery, `[stop − start, width] float32` prepared rows, finite.
    :param sizes: ascending, the last at most n.
    :param queries: `[q, width] float32` prepared rows; None takes, at each size, the gallery's rows.
    :param query_ids: `[q] int64`, the gallery row that a query is and that is not its own neighbor; −1
        for a query from elsewhere.
    :param block_rows: rows that are read at a time.
    :param tally: as of `exact_neighbors`.
    """
    check_similarity(similarity)
    own = torch.zeros(0, width, dtype=torch.float32) if queries is None else queries
    q, found, before = own.shape[0], [], 0
    outer = torch.full((q,), -1, dtype=torch.int64) if query_ids is None else query_ids
    ids = torch.cat([outer, torch.arange(n, dtype=torch.int64)])

    def both(start: int, stop: int) -> Tensor:
        parts = [own[start:stop]] if start < q else []
        return torch.cat([*parts, read(max(start - q, 0), stop - q)] if stop > q else parts)

    sweep = Sweep(
        both if q else read, ids, width, k + 1, rule, similarity, queries=q or None, block_rows=block_rows
    )
    for size in sizes:
        old, new = range(q, q + before), range(q + before, q + size)
        if q:
            sweep.add(range(q), new, both=False)
        else:
            sweep.add(old, new)
            sweep.add(new, new)
        asked = range(q) if q else range(size)
        found.append(TopK(*sweep.nearest(asked, range(q, q + size), tally)))
        before = size
    return found


def exact_ids(
    rows: Tensor,
    k: int,
    digest: Digest,
    similarity: Similarity = "inner",
    ties: Ties = "hash",
    ordered: bool = True,
    tally: Counter[str] | None = None,
) -> Tensor:
    """Return the ids of `exact_neighbors` alone; where n is small, several times as fast.

    Only what a bound leaves open needs its canonical value.

    :param ordered: if not, only which the k nearest are matters: their ids are in ascending order.
    :param tally: receives how many rows each stage has settled ("bfloat16", "float32", "float64"), and
        how many pairs took a canonical value ("pairs").
    :returns: `[n, k + 1] int64`, nearest first; if not `ordered` `[n, k]`.
    :raises StudyError: as `exact_neighbors`.
    """
    n, rule = _checked(rows, k, similarity, digest, ties)
    if n * n > _dense_ids(rows):
        ids = exact_neighbors(rows, k, digest, similarity, ties, tally=tally).ids
        return ids if ordered else ids[:, :k].sort(dim=1).values
    want: Literal["order", "set"] = "order" if ordered else "set"
    every = torch.arange(n, device=rows.device)
    # One more than asked for, so that a tie at rank k shows.
    search = Search(rows, every, k if want == "set" else k + 1, rule, similarity, want)
    ids, _ = search.nearest(rows, every, tally)
    return ids if ordered else ids.sort(dim=1).values


def _all_against_all(
    rows: Tensor,
    ids: Tensor,
    k: int,
    rule: TieRule,
    similarity: Similarity,
    block_rows: int | None = None,
    tally: Counter[str] | None = None,
) -> TopK:
    def read(start: int, stop: int) -> Tensor:
        return rows[start:stop]

    every = range(rows.shape[0])
    sweep = Sweep(read, ids, rows.shape[1], k + 1, rule, similarity, rows=rows, block_rows=block_rows)
    sweep.add(every, every)
    return TopK(*sweep.nearest(every, every, tally))


def _checked(rows: Tensor, k: int, similarity: Similarity, digest: Digest, ties: Ties) -> tuple[int, TieRule]:
    n = rows.shape[0]
    if not 1 <= k < n:
        raise StudyError(f"k = {k} neighbors cannot be had of {n} samples: 1 ≤ k ≤ {n - 1} is needed.")
    check_similarity(similarity)
    return n, TieRule(digest, ties)


def _dense_ids(rows: Tensor) -> int:
    units = rows.device.type == "cpu" and matrix_units() is not None
    return min(DENSE_IDS, DENSE_IDS_BESIDE_UNITS) if units else DENSE_IDS


def _dense_values(rows: Tensor) -> int:
    return (
        DENSE_VALUES if rows.device.type == "cpu" and native() is not None else max(DENSE_IDS, DENSE_VALUES)
    )


def _joined(
    a: Tensor,
    b: Tensor,
    ids_a: Tensor,
    ids_b: Tensor,
    k: int,
    rule: TieRule,
    similarity: Similarity,
    queries: int | None = None,
) -> Sweep:
    """Return a search over the rows of a and then those of b, of which the first `queries` are queries."""
    cut, width = a.shape

    def read(start: int, stop: int) -> Tensor:
        if stop <= cut:
            return a[start:stop]
        return b[start - cut : stop - cut] if start >= cut else torch.cat([a[start:], b[: stop - cut]])

    ids = torch.cat([ids_a, ids_b])
    return Sweep(read, ids, width, k + 1, rule, similarity, queries=queries)
