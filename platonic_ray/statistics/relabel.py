"""The null of neighbor metrics: what two models share when the samples of one are relabelled.

Permuting the rows of a representation permutes its neighbor table, so nothing is searched anew: under
permutation π, row i of Y holds the labels π⁻¹(j) of the neighbors j of sample π(i). For unrelated models a
layer pair then shares about k² neighbors in all, of n · k, and only these are looked at: row by row, the
distinct neighbors that the layers of one model have are marked, those of the other are looked up under every
permutation, and what is found on both sides counts for all pairs of layers that have it.

The work is one look-up for each distinct neighbor and permutation, and one step for each shared neighbor of
each layer pair: n · u + k² Lx Ly steps a permutation, u the fewer distinct neighbors of a row of the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from platonic_ray.kernels import Links
from platonic_ray.metrics import Metric, Neighbors
from platonic_ray.statistics import native

_WHAT = {
    "jaccard": native.JACCARD,
    "cycle": native.HIT,
    "rank": native.RANK,
    "lcs": native.LCS,
    "edit": native.EDIT,
}


@dataclass(frozen=True, eq=False)
class Lists:
    """What the layers of a model list, as the loops of `native` go through it; made once for a model."""

    links: Links

    @classmethod
    def of(cls, neighbors: Neighbors, metric: Metric) -> Lists:
        """Return the lists of k, whose values are what the metric goes on with: similarities, else ranks."""
        assert metric.k is not None
        if metric.similarities is not None:
            return cls(neighbors.links(metric.k, metric.similarities))
        ids = neighbors.ids[..., : metric.k]
        return cls(Links.of(ids, torch.arange(metric.k, dtype=torch.float64).expand(ids.shape)))

    @cached_property
    def out(self) -> tuple[Any, ...]:
        """The links from every row."""
        place = torch.arange(self.links.key.shape[0])
        return *self._rows(self.links.key, place), *self._entries

    @cached_property
    def into(self) -> tuple[Any, ...]:
        """The links into every row."""
        return *self._rows(self.links.back_key, self.links.back), *self._entries

    @cached_property
    def _entries(self) -> tuple[Any, ...]:
        links = self.links
        layer = links.layer.to(torch.int32)
        return tuple(of.numpy() for of in (links.starts, layer, links.value, links.mutual))

    def _rows(self, keys: Tensor, places: Tensor) -> tuple[Any, ...]:
        n = self.links.n
        starts = torch.searchsorted(keys, torch.arange(n + 1) * n)
        return tuple(of.numpy() for of in (starts, (keys % n).to(torch.int32), places.to(torch.int32)))


def relabelled_sums(metric: Metric, x: Lists, y: Lists, perms: Tensor) -> Tensor:
    """Return the sums of a neighbor metric (`PairSums.joint`) under permutations of the samples of y.

    :param metric: one that declares its `null`.
    :param perms: `[B, n] int64`.
    :returns: `[B, Lx, Ly]` or `[B, S, Lx, Ly] float64`.
    """
    places = torch.arange(perms.shape[1], dtype=torch.int32).expand(perms.shape)
    inverses = torch.empty_like(places).scatter_(1, perms, places).numpy()
    orders = perms.to(torch.int32).numpy()
    assert metric.null is not None
    if metric.null.startswith("turned "):
        # Relabelling Y by π makes the sums of X relabelled by π⁻¹: their rows are renamed, and added up.
        x, y, orders, inverses = y, x, inverses, orders
    found = torch.from_numpy(_sums(metric, metric.null.removeprefix("turned "), x, y, orders, inverses))
    return found.transpose(-1, -2) if metric.null.startswith("turned ") else found


def _sums(
    metric: Metric, how: str, x: Lists, y: Lists, orders: np.ndarray, inverses: np.ndarray
) -> np.ndarray:
    assert metric.k is not None
    (count, n), layers_x, layers_y = orders.shape, x.links.layers, y.links.layers
    if how == "masked":
        out = np.zeros((count, 4, layers_x * layers_y))
        native.masked(x.out, x.into[:3], y.out, y.into[:3], orders, inverses, layers_x, layers_y, out)
        return out.reshape(count, 4, layers_x, layers_y)
    held, sought = x.into if how == "cycle" else x.out, y.out
    shorter = len(held[1]) < len(sought[1])  # is sought
    if shorter:
        held, sought, orders, inverses = sought, held, inverses, orders
        layers_x, layers_y = layers_y, layers_x
    out = np.zeros((count, layers_x * layers_y), dtype=np.int32 if how == "overlap" else np.float64)
    if how == "overlap":
        native.overlaps(held, sought, orders, inverses, layers_y, out)
        out = out.astype(np.float64)
    elif how == "products":
        native.products(held, sought, orders, inverses, layers_y, out)
    else:
        native.by_row(held, sought, orders, inverses, layers_x, layers_y, metric.k, _WHAT[how], out)
    if how == "edit":
        out = n * metric.k - out
    out = out.reshape(count, layers_x, layers_y)
    return out.swapaxes(1, 2) if shorter else out
