"""Exact neighbors of prepared rows: which rows, in which order, on any device and in any blocks.

Fast products propose (`proposals`), stage by stage: bfloat16 where the device has units for it,
float32, and for what is still open, or out of float32's range, float64. A rigorous bound on the
rounding says which rows could still be among the nearest; where it leaves their order open, the
canonical dot decides, and it alone. Equal values are ordered by the tie rule. So the result is a
function of the prepared rows and of nothing else.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from platonic_ray.errors import StudyError
from platonic_ray.kernels.exhaustive import Similarity, cost_of
from platonic_ray.kernels.search import Search
from platonic_ray.kernels.ties import Digest, TieRule, Ties


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

    Gallery rows with the query's own id are left out. Memory stays bounded: queries go in chunks.

    :param queries: `[q, D] float32` prepared rows, finite.
    :param gallery: `[g, D] float32` prepared rows, finite.
    :param query_ids: `[q] int64`.
    :param gallery_ids: `[g] int64`, distinct.
    :raises StudyError: if the similarity or the tie rule is unknown.
    """
    _check_similarity(similarity)
    return TopK(*Search(gallery, gallery_ids, k + 1, rule, similarity).nearest(queries, query_ids))


def merge_neighbors(a: TopK, b: TopK, rule: TieRule, similarity: Similarity = "inner") -> TopK:
    """Return the nearest of two states of the same queries over disjoint blocks of the gallery.

    Associative and commutative to the last bit.
    """
    _check_similarity(similarity)
    ids, values = torch.cat([a.ids, b.ids], 1), torch.cat([a.values, b.values], 1)
    # Least significant key first; the stable sorts that follow keep its order among equals. An id of
    # −1 has the worst value there is, so it comes behind every neighbor.
    column = torch.argsort(ids, dim=1, stable=True)
    for key in (rule.keys(ids), cost_of(values, similarity)):
        column = column.gather(1, torch.argsort(key.gather(1, column), dim=1, stable=True))
    column = column[:, : a.k + 1]
    return TopK(ids.gather(1, column), values.gather(1, column))


def exact_neighbors(
    rows: Tensor,
    k: int,
    digest: Digest,
    similarity: Similarity = "inner",
    ties: Ties = "hash",
    block_rows: int = 4096,
) -> TopK:
    """Return the neighbors of every row of a representation; `block_rows` changes no bit of it.

    :param rows: `[n, D] float32` prepared rows, finite.
    :param digest: digest of the representation, the seed of its tie rule.
    :raises StudyError: if k < 1 or k ≥ n, or the similarity or tie rule is unknown.
    """
    search, ids = _all_against_all(rows, k, digest, similarity, ties, "values")
    found = [search.nearest(rows[block], ids[block]) for block in ids.split(block_rows)]
    return TopK(torch.cat([ids for ids, _ in found]), torch.cat([values for _, values in found]))


def exact_ids(
    rows: Tensor,
    k: int,
    digest: Digest,
    similarity: Similarity = "inner",
    ties: Ties = "hash",
    ordered: bool = True,
    tally: Counter[str] | None = None,
) -> Tensor:
    """Return the ids of `exact_neighbors` alone, several times as fast.

    Only what a bound leaves open needs its canonical value.

    :param ordered: if not, only which the k nearest are matters: their ids are in ascending order.
    :param tally: receives how many rows each stage has settled ("bfloat16", "float32", "float64"), and
        how many pairs took a canonical value ("pairs").
    :returns: `[n, k + 1] int64`, nearest first; if not `ordered` `[n, k]`.
    :raises StudyError: as `exact_neighbors`.
    """
    search, every = _all_against_all(rows, k, digest, similarity, ties, "order" if ordered else "set")
    ids, _ = search.nearest(rows, every, tally)
    return ids if ordered else ids.sort(dim=1).values


def tied_share(topk: TopK) -> float:
    """Return the share of rows whose value at rank k equals that at rank k + 1."""
    tied = (topk.values[:, -2] == topk.values[:, -1]) & (topk.ids[:, -1] >= 0)
    return tied.double().mean().item()


def _all_against_all(
    rows: Tensor,
    k: int,
    digest: Digest,
    similarity: Similarity,
    ties: Ties,
    want: Literal["values", "order", "set"],
) -> tuple[Search, Tensor]:
    n = rows.shape[0]
    if not 1 <= k < n:
        raise StudyError(f"k = {k} neighbors cannot be had of {n} samples: 1 ≤ k ≤ {n - 1} is needed.")
    _check_similarity(similarity)
    ids = torch.arange(n, device=rows.device)
    # One more than asked for, so that a tie at rank k shows.
    keep = k if want == "set" else k + 1
    return Search(rows, ids, keep, TieRule(digest, ties), similarity, want), ids


def _check_similarity(similarity: str) -> None:
    if similarity not in ("inner", "euclidean"):
        raise StudyError(f'similarity must be "inner" or "euclidean" (given: {similarity!r}).')
