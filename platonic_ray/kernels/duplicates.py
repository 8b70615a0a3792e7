"""Identical rows, found once, so that bulk duplicates cost no more than one of them.

Identical rows have identical canonical dots with everything. Finding them is an optimization that
can change no result: rows that are not recognized as identical are computed each on its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK_BYTES = 32 * 2**20


def group_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Group rows that are equal bit by bit.

    :param rows: `[n, D] float32`.
    :returns: `members` `[u] int64`, one row of every group, and `group` `[n] int64`, the group of
        every row: `rows[members][group]` has the bits of `rows`.
    """
    n = rows.shape[0]
    every = torch.arange(n, device=rows.device)
    bits = rows.contiguous().view(torch.int32)
    hashes = _hashes(bits)
    distinct, group = torch.unique(hashes, return_inverse=True)
    if distinct.shape[0] == n:
        return every, every
    members = torch.full((distinct.shape[0],), n, dtype=torch.int64, device=rows.device)
    members.scatter_reduce_(0, group, every, "amin")
    step = max(1, _BLOCK_BYTES // (4 * rows.shape[1]))
    for start in range(0, n, step):
        part = slice(start, start + step)
        if not torch.equal(bits[part], bits[members[group[part]]]):
            return every, every  # two rows with one hash: as rare as it is, it must not be believed
    return members, group


def first_of_each(group: Tensor, count: int) -> Tensor:
    """Return the positions `[m] int64`, ascending, of the first `count` entries of every group.

    >>> first_of_each(torch.tensor([7, 7, 5, 7]), 2).tolist()
    [0, 1, 2]
    """
    ordered, position = group.sort(stable=True)
    n = group.shape[0]
    index = torch.arange(n, device=group.device)
    starts = torch.zeros(n, dtype=torch.int64, device=group.device)
    starts[1:] = torch.where(ordered[1:] != ordered[:-1], index[1:], 0)
    rank = index - starts.cummax(0).values
    return position[rank < count].sort().values


def _hashes(bits: Tensor) -> Tensor:
    """Return a 64-bit hash `[n] int64` of every row of bits `[n, D] int32`.

    A sum of products with odd pseudo-random words, modulo 2⁶⁴: the order of summation is
    immaterial, so every device gets the same.
    """
    width = bits.shape[1]
    words = torch.arange(1, width + 1, dtype=torch.int64, device=bits.device) * -7046029254386353131
    words = ((words ^ (words >> 29)) * -4658895280553007687) | 1
    hashes = torch.empty(bits.shape[0], dtype=torch.int64, device=bits.device)
    step = max(1, _BLOCK_BYTES // (8 * width))
    for start in range(0, bits.shape[0], step):
        block = bits[start : start + step].to(torch.int64)
        block = (block ^ (block >> 15)) * words
        hashes[start : start + step] = (block ^ ((block >> 32) & 0xFFFFFFFF)).sum(1)
    return hashes
