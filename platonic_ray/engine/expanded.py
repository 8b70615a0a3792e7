"""Studies in which one sample has several rows, because a view was expanded.

The rows of a sample are a group: none counts as a neighbor of another, a sample is near by the nearest of its
rows and counts once, and two neighbors match if their samples do. So neighbor metrics see, for every row, the
k nearest other samples; each goes by its first row. (A sample that counted once for each of its rows would fill
the lists of a view whose item they share with copies of one neighbor, and bound every score with it.)
Kernel metrics and whole representations see rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from platonic_ray.errors import StudyError
from platonic_ray.kernels import nearest_owners
from platonic_ray.metrics import Metric, Neighbors
from platonic_ray.study import Study

_OF_ROWS = ("information_imbalance", "linear_predictivity")


def refuse_of_rows(study: Study, metrics: Sequence[Metric]) -> None:
    """Refuse what has no meaning here that was thought through: it would take rows of a sample for samples.

    :raises StudyError: naming it.
    """
    for metric in metrics:
        if metric.whole or metric.similarities or metric.name in _OF_ROWS:
            raise StudyError(
                f'{metric.name} is not defined for a view with items = "expand": it takes the rows of a sample for '
                'samples. Take another metric (mutual_knn, cka, …), or items = "first" or "mean".'
            )
    for what, asked in (
        ("[growth]", study.growth is not None),
        ("[intervals]", study.intervals.target != "none"),
        ('choose_layers = "held-out"', study.choose_layers == "held-out"),
    ):
        if asked:
            raise StudyError(
                f'{what} is not defined for a view with items = "expand": it takes the rows of a sample for '
                'samples. Leave it out, or take items = "first" or "mean".'
            )


def rows_of_search(k: int, owners: Sequence[int]) -> int:
    """Return how many nearest rows hold the k nearest other samples, for certain.

    >>> rows_of_search(2, [0, 0, 2, 3, 3, 5, 6, 7])
    4
    """
    return min(k * max(Counter(owners).values()), len(owners) - 1)


def samples_of(owners: Sequence[int]) -> int:
    """Return how many samples there are."""
    return len(set(owners))


def of_samples(found: Neighbors, owners: Tensor, k: int) -> Neighbors:
    """Return the k nearest other samples of each row, by their first rows, `[L, n, k]`."""
    rows = rows_of_search(k, owners.tolist())
    ids = found.ids[..., :rows]
    places = nearest_owners(ids, owners, owners, k)
    return Neighbors(owners[ids].gather(-1, places), found.values[..., :rows].gather(-1, places))


def owners_of(owners: Sequence[int]) -> Tensor:
    """Return owners as a tensor, `[n] int64`."""
    return torch.tensor(owners, dtype=torch.int64)
