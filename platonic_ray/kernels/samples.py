"""What two lists of neighbors have in common, sample by sample: the terms of the sums of `lists`.

For one pair of layers at a time, where the numbers of the samples themselves are wanted (standard
errors). Plain vector operations over samples: k² cells each, where `lists` packs 64 layer pairs in a
word. −1 stands for no neighbor and matches nothing; the other ids of a row are distinct.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _matches(ids_x: Tensor, ids_y: Tensor) -> Tensor:
    """Return which ranks hold the same id, `[m, k, k] bool`."""
    return (ids_x[:, :, None] == ids_y[:, None, :]) & (ids_x >= 0)[:, :, None]


def sample_overlaps(ids_x: Tensor, ids_y: Tensor) -> Tensor:
    """Return |S_X(i) ∩ S_Y(i)| of every sample, `[m] int64`.

    :param ids_x: `[m, k] int64`.
    :param ids_y: `[m, k] int64`.

    >>> sample_overlaps(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[2, 1], [3, 5]])).tolist()
    [2, 1]
    """
    return _matches(ids_x, ids_y).sum(dim=(1, 2))


def sample_jaccards(ids_x: Tensor, ids_y: Tensor) -> Tensor:
    """Return |S_X(i) ∩ S_Y(i)| / |S_X(i) ∪ S_Y(i)| of every sample, `[m] float64`; full lists `[m, k]`.

    >>> sample_jaccards(torch.tensor([[1, 2]]), torch.tensor([[2, 3]])).tolist()
    [0.3333333333333333]
    """
    shared = sample_overlaps(ids_x, ids_y).to(torch.float64)
    return shared / (2 * ids_x.shape[1] - shared)


def sample_ranks(ids_x: Tensor, ids_y: Tensor) -> Tensor:
    """Return how well the ranks of the shared neighbors of every sample agree, `[m] float64`.

    Σ_j 2 / [(1 + |r − r′|)(r + r′)] / H_m over the m shared neighbors; 0 where m = 0.

    >>> sample_ranks(torch.tensor([[5, 6, 7]]), torch.tensor([[5, 6, 8]])).tolist()
    [1.0]
    """
    matches = _matches(ids_x, ids_y)
    rank = torch.arange(1, ids_x.shape[1] + 1, dtype=torch.float64, device=ids_x.device)
    weights = 2 / ((1 + (rank[:, None] - rank).abs()) * (rank[:, None] + rank))
    harmonic = torch.cat([rank.new_ones(1), (1 / rank).cumsum(0)])
    return (matches * weights).sum(dim=(1, 2)) / harmonic[matches.sum(dim=(1, 2))]


def sample_lcs(ids_x: Tensor, ids_y: Tensor) -> Tensor:
    """Return the length of the longest common subsequence of the two lists of every sample, `[m] int64`.

    >>> sample_lcs(torch.tensor([[5, 6, 7]]), torch.tensor([[7, 5, 6]])).tolist()
    [2]
    """
    matches = _matches(ids_x, ids_y).to(torch.int64)
    m, k, _ = matches.shape
    above = matches.new_zeros(k + 1, m)
    for i in range(k):
        row = [above[0]]
        for j in range(k):
            longer = torch.maximum(above[j + 1], row[j])
            row.append(torch.maximum(longer, above[j] + matches[:, i, j]))
        above = torch.stack(row)
    return above[k]


def sample_edits(ids_x: Tensor, ids_y: Tensor) -> Tensor:
    """Return the Levenshtein distance of the two lists of every sample, `[m] int64`.

    >>> sample_edits(torch.tensor([[5, 6, 7]]), torch.tensor([[6, 7, 8]])).tolist()
    [2]
    """
    matches = _matches(ids_x, ids_y).to(torch.int64)
    m, k, _ = matches.shape
    above = torch.arange(k + 1, device=ids_x.device)[:, None].expand(k + 1, m)
    for i in range(k):
        row = [torch.full_like(above[0], i + 1)]
        for j in range(k):
            shifted = torch.minimum(above[j + 1], row[j]) + 1
            row.append(torch.minimum(shifted, above[j] + 1 - matches[:, i, j]))
        above = torch.stack(row)
    return above[k]
