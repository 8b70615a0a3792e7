"""The null of a pair of models: the same statistic with the samples of one model permuted.

A metric's null is the best score over all layer pairs under each permutation, one permutation for all
layers. Neighbor metrics need no representation for it: permuting the samples of a model relabels its
neighbor tables, and what little they then share is counted (`relabel`); of a metric that does not say how, its
own sums are taken over the tables (`null_scores`). Kernel metrics permute
what was made of the kernels (`permuted`), metrics of whole representations the states of layers
(`permuted_rows`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from platonic_ray.digest import digest
from platonic_ray.errors import StudyError
from platonic_ray.kernels import Rotations, each, one_thread
from platonic_ray.metrics import Metric, Neighbors, PairSums, neighbor_pair, own_sums
from platonic_ray.statistics.calibration import Calibration, calibrate
from platonic_ray.statistics.permutations import group_numbers, of_owners, permutations, rotations
from platonic_ray.statistics.permuted import has_kernel_null
from platonic_ray.statistics.permuted_rows import has_rows_null
from platonic_ray.statistics.relabel import Lists, relabelled_sums

_AT_ONCE = 64
_CELLS = 2**23  # ids of permuted tables that are held at a time
_HELD = 2**16  # sums and labels of permutations that a core's cache holds
ROUNDING = 1e-9
"""The rounding of a score that float64 sums make in another order. See `calibrate_best`."""


@dataclass(frozen=True, eq=False)
class Groups:
    """A label for every sample; samples change places with samples of the same label alone.

    `name` says where the labels come from, `labels` `[samples] int64` are numbers for them. Where samples have
    several rows each, `owners` `[n] int64` is for each row the first row of its sample: they move together,
    and a sample takes the place of one with as many.
    """

    name: str
    labels: Tensor = field(repr=False)
    owners: Tensor | None = field(default=None, repr=False)

    @classmethod
    def of(cls, name: str, labels: Any, n: int) -> Groups:
        """Number the labels of n samples: strings, integers or booleans.

        :raises DataError: if they are not n labels of these types.
        :raises StudyError: if every sample is alone in its group, so that none can change places.
        """
        numbers = group_numbers(name, labels, n)
        if int(numbers.max()) + 1 == n:
            raise StudyError(
                f"{name}: every sample is alone in its group, so no two samples can change places and there "
                "is no null. Take coarser groups, or none."
            )
        return cls(name, numbers)

    @classmethod
    def of_owners(cls, owners: Tensor, name: str = "", labels: Any = None) -> Groups:
        """Group samples by how many rows they have, within groups that are given.

        :param labels: of each row, the same for all rows of a sample; None for one group.
        :raises StudyError: as `of`.
        """
        firsts, sizes = owners.unique(return_counts=True)
        given = np.asarray(["all"] * len(owners) if labels is None else labels)[firsts.numpy()]
        both = [f"{size} {label}" for size, label in zip(sizes.tolist(), given, strict=True)]
        made = cls.of(name or "samples with as many rows", both, len(firsts))
        return cls(made.name, made.labels, owners)

    def permutations(self, count: int, seed: int, start: int = 0) -> Tensor:
        """Return permutations `start` … `start + count − 1` of the rows, `[count, n] int64`."""
        drawn = permutations(self.labels.shape[0], count, seed, self.labels, start)
        return drawn if self.owners is None else of_owners(drawn, self.owners)

    @property
    def identity(self) -> list[int]:
        """Everything that permutations depend on."""
        return [*self.labels.tolist(), *([] if self.owners is None else self.owners.tolist())]


@dataclass(frozen=True, eq=False)
class Null:
    """How the scores of a table are set against permuted samples.

    `counts` is the number of permutations by the label of a metric; a metric that is not in it has no
    null. All are drawn from `seed`, the same for all pairs of models and all metrics: rotations of one
    ring (`rotations`), or where samples stay in `groups` one by one (`permutations`). `alpha` is the
    level.
    """

    counts: Mapping[str, int]
    alpha: float
    seed: int
    groups: Groups | None = None

    def count(self, metric: Metric) -> int:
        """Return how many permutations a metric's null is made of; 0 where it has none."""
        return self.counts.get(metric.label, 0)

    @property
    def most(self) -> int:
        """The largest number of permutations of any metric, which says what they are drawn from."""
        return max(self.counts.values(), default=0)

    def draws(self, n: int, count: int, start: int = 0) -> Rotations | Tensor:
        """Return permutations `start` … `start + count − 1` of n samples: rotations, or `[count, n]`."""
        if self.groups is not None:
            return self.groups.permutations(count, self.seed, start)
        return rotations(n, self.most, self.seed).some(start, start + count)

    def permutations(self, n: int, count: int, start: int = 0) -> Tensor:
        """Return permutations `start` … `start + count − 1` of n samples, `[count, n] int64`."""
        drawn = self.draws(n, count, start)
        return drawn if isinstance(drawn, Tensor) else drawn.permutations()

    @property
    def drawn(self) -> str:
        """Return a digest of what permutations are drawn from."""
        groups = None if self.groups is None else self.groups.identity
        return digest({"seed": self.seed, "groups": groups, "rotations": self.most})

    def summary(self) -> dict[str, Any]:
        """Return it as plain values, for keys and provenance; of groups the name and a digest."""
        groups = self.groups and {"name": self.groups.name, "digest": digest(self.groups.identity)}
        return {"counts": dict(self.counts), "alpha": self.alpha, "seed": self.seed, "groups": groups}


def has_null(metric: Metric, n: int) -> bool:
    """Whether the null of a metric can be made, of so many samples."""
    return metric.joint is not None or has_kernel_null(metric, n) or has_rows_null(metric)


def has_cheap_null(metric: Metric) -> bool:
    """Whether a permutation costs less than a hundredth of the table: then there are as many as help."""
    return metric.null == "overlap"


class NeighborSide:
    """A model's neighbors as nulls use them: its tables, and `Lists` of them, made once for what shares them."""

    def __init__(self, neighbors: Neighbors) -> None:
        self.neighbors = neighbors
        self._lists: dict[Any, Lists] = {}

    def lists(self, metric: Metric) -> Lists:
        """Return the lists that a metric's null goes through."""
        key = metric.k, metric.similarities
        if key not in self._lists:
            self._lists[key] = Lists.of(self.neighbors, metric)
        return self._lists[key]


def relabelled(neighbors: Neighbors, perms: Tensor) -> Neighbors:
    """Return the neighbors of a model's layers under permutations, as if they were layers.

    Under π, row i holds the labels π⁻¹(j) of the neighbors j of sample π(i).

    :param neighbors: of L layers.
    :param perms: `[B, n] int64`.
    :returns: of B · L layers, all layers of the first permutation first.
    """
    inverses = perms.argsort(dim=1)
    ids = neighbors.ids[:, perms].transpose(0, 1)  # [B, L, n, k + 1]
    count, layers, n, width = ids.shape
    moved = inverses.gather(1, ids.reshape(count, -1)).reshape(count * layers, n, width)
    values = neighbors.values[:, perms].transpose(0, 1).reshape(moved.shape)
    if neighbors.row_sums is None:
        return Neighbors(moved, values)
    return Neighbors(moved, values, neighbors.row_sums[:, perms].transpose(0, 1).reshape(count * layers, n))


def null_scores(metric: Metric, x: NeighborSide, y: NeighborSide, null: Null) -> npt.NDArray[np.float64]:
    """Return the best score over all layer pairs under every permutation, `[K] float64`.

    Permutation π puts sample π(i) of y beside sample i of x.

    :raises ValueError: if the metric has no null of neighbors.
    """
    if metric.joint is None:
        raise ValueError(f"{metric.name} has no null that neighbors make")
    n, total = x.neighbors.ids.shape[1], null.count(metric)
    if metric.null is not None:
        with one_thread():
            lists = x.lists(metric), y.lists(metric)
        cells = lists[0].links.layers * lists[1].links.layers * (4 if metric.null.endswith("masked") else 1)
        step = max(1, _HELD // (cells + n))

        def some(start: int) -> npt.NDArray[np.float64]:
            perms = null.permutations(n, min(step, total - start), start)
            return _best_of(metric, x.neighbors, y.neighbors, relabelled_sums(metric, *lists, perms))

        return np.concatenate(each(some, range(0, total, step)) or [np.empty(0)])
    ids, values = y.neighbors.ids[..., : metric.k], y.neighbors.values[..., : metric.k]
    nearest = replace(y.neighbors, ids=ids, values=values)
    layers = nearest.ids.shape[0]
    # Links take about eight times the memory of the ids they are made of.
    cells = _CELLS if metric.similarities is None else _CELLS // 8
    step = max(1, min(_AT_ONCE, cells // max(1, nearest.ids.numel())))
    found = []
    for start in range(0, total, step):
        perms = null.permutations(n, min(step, total - start), start)
        moved = relabelled(nearest, perms)
        scores, _ = metric.score(neighbor_pair(metric, x.neighbors, moved))
        by_permutation = scores.reshape(-1, len(perms), layers).swapaxes(0, 1)
        found += [metric.best(each)[0] for each in by_permutation]
    return np.array(found)


def _best_of(metric: Metric, x: Neighbors, y: Neighbors, sums: Tensor) -> npt.NDArray[np.float64]:
    """Return the best score of each of B sums `[B, Lx, Ly]` or `[B, S, Lx, Ly]`, `[B]`."""
    count, n = len(sums), x.ids.shape[1]
    if metric.own is None:
        # The score is affine in the sum: the best is that of the largest or of the smallest.
        flat = sums.flatten(1)
        scores, _ = metric.score(PairSums(n, joint=torch.stack([flat.amax(1), flat.amin(1)])))
        return np.array([metric.best(scores[:, [b]])[0] for b in range(count)])
    # As if the layers of y under all permutations were those of one model.
    joint = sums.movedim(0, -2).flatten(-2)
    own_x, own_y = own_sums(metric, x), own_sums(metric, y)
    scores, _ = metric.score(PairSums(n, joint=joint, own_x=own_x, own_y=own_y.repeat(1, count)))
    return np.array([metric.best(table)[0] for table in np.split(scores, count, axis=1)])


def calibrate_pair(
    metric: Metric, scores: np.ndarray, x: NeighborSide, y: NeighborSide, null: Null
) -> Calibration:
    """Set the best of a pair's scores `[Lx, Ly]` of a neighbor metric against its null."""
    slack = 0.0 if metric.null == "overlap" else ROUNDING
    return calibrate_best(metric, scores, null_scores(metric, x, y, null), null.alpha, slack)


def calibrate_best(
    metric: Metric, scores: np.ndarray, permuted: np.ndarray, alpha: float, slack: float = 0.0
) -> Calibration:
    """Set the best of a pair's scores `[Lx, Ly]` against the best under every permutation.

    :param permuted: `[K]`.
    :param slack: the rounding of a permuted score, of the observed one's size or 1. One that is no
        further from the observed score counts as equal to it, hence against it: where scores tie, as
        with duplicated samples, rounding must not decide. An undefined one counts against it too.
    """
    observed = metric.best(scores)[0]
    near = (np.abs(permuted - observed) <= slack * max(1.0, abs(observed))) | np.isnan(permuted)
    top = metric.bounds[0 if metric.direction == "distance" else 1]
    return calibrate(observed, np.where(near, observed, permuted), alpha, top, metric.direction)
