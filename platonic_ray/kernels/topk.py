"""The nearest rows found so far, and the merge of two such states."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from platonic_ray.errors import StudyError
from platonic_ray.kernels.exhaustive import Similarity, cost_of
from platonic_ray.kernels.ties import TieRule


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


def merge_neighbors(a: TopK, b: TopK, rule: TieRule, similarity: Similarity = "inner") -> TopK:
    """Return the nearest of two states of the same queries over disjoint blocks of the gallery.

    Associative and commutative to the last bit.
    """
    check_similarity(similarity)
    ids, values = torch.cat([a.ids, b.ids], 1), torch.cat([a.values, b.values], 1)
    # Least significant key first; the stable sorts that follow keep its order among equals. An id of
    # −1 has the worst value there is, so it comes behind every neighbor.
    column = torch.argsort(ids, dim=1, stable=True)
    for key in (rule.keys(ids), cost_of(values, similarity)):
        column = column.gather(1, torch.argsort(key.gather(1, column), dim=1, stable=True))
    column = column[:, : a.k + 1]
    return TopK(ids.gather(1, column), values.gather(1, column))


def tied_share(topk: TopK) -> float:
    """Return the share of rows whose value at rank k equals that at rank k + 1."""
    tied = (topk.values[:, -2] == topk.values[:, -1]) & (topk.ids[:, -1] >= 0)
    return tied.double().mean().item()


def check_similarity(similarity: str) -> None:
    """Refuse an unknown similarity.

    :raises StudyError: naming those there are.
    """
    if similarity not in ("inner", "euclidean"):
        raise StudyError(f'similarity must be "inner" or "euclidean" (given: {similarity!r}).')
