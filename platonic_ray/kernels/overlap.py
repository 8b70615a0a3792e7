"""How many neighbors two tables share, for all layer pairs of two models at once.

A row's neighbors become a 0/1 vector, a block of rows one long vector for every layer; the matrix
product of the vectors of two models counts the shared neighbors of every layer pair.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK_BYTES = 64 * 2**20
_EXACT = 2**24  # float32 counts exactly up to here


def overlap_counts(ids_x: Tensor, ids_y: Tensor) -> Tensor:
    """Return Σ_i |S_X(i) ∩ S_Y(i)| for every layer of X and every layer of Y.

    Counts of blocks of rows add up to the counts of all rows.

    :param ids_x: `[Lx, n, k] int64`, a row's ids distinct; −1 stands for no neighbor.
    :param ids_y: `[Ly, n, k] int64`.
    :returns: `[Lx, Ly] int64`.
    :raises ValueError: if the tables have other rows or another k.

    >>> overlap_counts(torch.tensor([[[1, 2]]]), torch.tensor([[[2, 3]]])).tolist()
    [[1]]
    """
    if ids_x.shape[1:] != ids_y.shape[1:]:
        raise ValueError(f"tables of shapes {list(ids_x.shape)} and {list(ids_y.shape)} cannot be compared")
    layers_x, n, k = ids_x.shape
    layers_y = ids_y.shape[0]
    counts = torch.zeros(layers_x, layers_y, dtype=torch.int64, device=ids_x.device)
    if counts.numel() == 0 or n == 0 or k == 0:
        return counts
    layers = layers_x + layers_y
    highest = int(max(ids_x.max(), ids_y.max()))
    columns = min(highest + 2, layers * k)
    step = max(1, min(_BLOCK_BYTES // (4 * layers * columns), _EXACT // k - 1))
    for start in range(0, n, step):
        ids = torch.cat([ids_x[:, start : start + step], ids_y[:, start : start + step]])
        indicators = _indicators(ids, highest)
        counts += (indicators[:layers_x] @ indicators[layers_x:].T).to(torch.int64)
    return counts


def _indicators(ids: Tensor, highest: int) -> Tensor:
    """Return 0/1 vectors `[L, b · c] float32` of the id sets `[L, b, k]`, c columns a row."""
    layers, rows, k = ids.shape
    present = (ids >= 0).to(torch.float32)
    # In the first case column 0 takes the missing ones.
    columns = ids + 1 if highest + 2 <= layers * k else _ranks(ids)
    indicators = torch.zeros(layers, rows, int(columns.max()) + 1, dtype=torch.float32, device=ids.device)
    indicators.scatter_(2, columns, present)
    return indicators.reshape(layers, -1)


def _ranks(ids: Tensor) -> Tensor:
    """Number the distinct ids of every row of the block from 0 over all layers, `[L, b, k]`."""
    layers, rows, k = ids.shape
    flat = ids.permute(1, 0, 2).reshape(rows, layers * k)
    ordered, position = flat.sort(dim=1)
    new = torch.zeros_like(ordered)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    ranks = torch.empty_like(flat).scatter_(1, position, new.cumsum(1))
    return ranks.reshape(rows, layers, k).permute(1, 0, 2)
