"""Neighbors of rows as neighbors of what owns them, where several rows belong to one sample."""

from __future__ import annotations

import torch
from torch import Tensor

_CELLS = 2**22


def nearest_owners(ids: Tensor, own: Tensor, owners: Tensor, k: int) -> Tensor:
    """Return where, in each list of neighbors, the first neighbor of each of the k nearest other owners stands.

    An owner counts once, by its nearest row; the row's own does not count. The k nearest others of every row
    are among its k · s nearest rows, s the most rows of one owner: s − 1 of its own, and s of each owner
    but the last.

    :param ids: `[..., n, w] int64` rows, nearest first, w ≥ min(k · s, N − 1).
    :param own: `[n] int64`, the owner of each row that has a list.
    :param owners: `[N] int64`, the owner of every row.
    :returns: `[..., n, k] int64`, places in the lists, ascending.
    :raises ValueError: if a list has fewer than k other owners.

    >>> owners = torch.tensor([0, 0, 2, 3])
    >>> nearest_owners(torch.tensor([[1, 3, 2]]), owners[:1], owners, 2).tolist()
    [[1, 2]]
    """
    flat = ids.reshape(-1, ids.shape[-1])
    of_rows = own.expand(ids.shape[:-1]).reshape(-1)
    found = [
        _places(owners[some], mine, k)
        for some, mine in zip(
            flat.split(max(1, _CELLS // ids.shape[-1])),
            of_rows.split(max(1, _CELLS // ids.shape[-1])),
            strict=True,
        )
    ]
    return torch.cat(found).reshape(*ids.shape[:-1], k)


def _places(listed: Tensor, own: Tensor, k: int) -> Tensor:
    """Return the places of the first k owners of lists `[m, w]` that are not the lists' own `[m]`."""
    in_order, places = listed.sort(dim=1, stable=True)
    repeats = torch.zeros_like(listed, dtype=torch.bool)
    repeats[:, 1:] = in_order[:, 1:] == in_order[:, :-1]
    skipped = torch.zeros_like(repeats).scatter(1, places, repeats) | (listed == own[:, None])
    if int((~skipped).sum(1).min()) < k:
        raise ValueError(f"there are not {k} other owners in every list of {listed.shape[1]}")
    return skipped.to(torch.uint8).argsort(dim=1, stable=True)[:, :k]
