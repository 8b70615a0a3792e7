"""Seeded permutations of samples, the same with every version of every library, and how many to draw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from platonic_ray.digest import digest
from platonic_ray.errors import DataError
from platonic_ray.kernels import Rotations, tie_keys

_ENOUGH = 200


def permutations(n: int, count: int, seed: int, groups: Tensor | None = None, start: int = 0) -> Tensor:
    """Return permutations number `start` … `start + count − 1` of n samples.

    Permutation b orders the samples by splitmix64 hashes of (seed, b, sample): it depends on nothing
    else, neither on the others nor on a library's generator. Within a study, the same permutations
    serve all layers, all metrics and all pairs of models.

    :param groups: `[n] int64`; with it, every sample changes places with samples of its group alone.
    :returns: `[count, n] int64`; row b holds, for every place i, the sample that is put there.

    >>> permutations(5, 1, seed=0).sort(dim=1).values.tolist()
    [[0, 1, 2, 3, 4]]
    """
    samples = torch.arange(n)
    seeds = [digest(["permutation", seed, number]) for number in range(start, start + count)]
    keys = torch.stack([tie_keys(each, samples) for each in seeds]) if seeds else samples.new_empty(0, n)
    orders = keys.argsort(dim=1, stable=True)
    if groups is None:
        return orders
    # The members of a group, in the order of the samples, give their places to its shuffled members.
    places = groups.argsort(stable=True)
    by_group = groups[orders].argsort(dim=1, stable=True)
    shuffled = torch.empty_like(orders)
    shuffled[:, places] = orders.gather(1, by_group)
    return shuffled


def group_numbers(name: str, labels: Any, n: int) -> Tensor:
    """Return the number of each sample's group, from 0, `[n] int64`, of n labels: strings, integers or booleans.

    :raises DataError: if they are not n labels of these types.

    >>> group_numbers("groups", ["b", "a", "b"], 3).tolist()
    [1, 0, 1]
    """
    given = np.asarray(labels)
    if given.shape != (n,) or given.dtype.kind not in "USiub":
        raise DataError(
            f"{name}: groups are one label for each of {n} samples, strings or integers "
            f"(given: shape {list(given.shape)} of {given.dtype})."
        )
    return torch.from_numpy(np.unique(given, return_inverse=True)[1].astype(np.int64))


def of_owners(perms: Tensor, owners: Tensor) -> Tensor:
    """Return permutations of samples as permutations of their rows, which move together and keep their order.

    :param perms: `[count, samples] int64`, which put samples in places of samples with as many rows.
    :param owners: `[n] int64`, for each row the first row of its sample; a sample's rows stand together.
    :returns: `[count, n] int64`.

    >>> of_owners(torch.tensor([[1, 0, 2]]), torch.tensor([0, 0, 2, 2, 4])).tolist()
    [[2, 3, 0, 1, 4]]
    """
    firsts, of_row = owners.unique(return_inverse=True)
    return firsts[perms][:, of_row] + (torch.arange(owners.shape[0]) - owners)


@lru_cache(maxsize=4)  # they are drawn for every pair of models
def rotations(n: int, count: int, seed: int) -> Rotations:
    """Return permutations of n samples that are rotations of one ring, for a null that tests against them.

    The samples are put on a ring in random order. Its n − 1 rotations, with the one that moves nothing,
    are a group, so observed and rotated scores are exchangeable under the null hypothesis, as those of any
    group are (Hemerik & Goeman 2018, theorem 2: any group, and random parts of it). For more than n − 1,
    the samples are shuffled first, in as many ways as it takes, and rotated then. A shuffle g and the ring's
    rotations C make the coset g C; what is observed lies in a coset of the same kind, at a place that the
    others cannot tell from the rest, so the scores of all cosets together are exchangeable too. Of them
    `count` are picked at random, in random order: the first of them are a random part as well. So
    P(p ≤ α) ≤ α holds exactly, as with permutations that are drawn one by one.

    Like `permutations`, they depend on (seed, n) alone, and on how many cosets `count` takes.

    >>> rotations(5, 4, seed=0).permutations().sort(dim=1).values.tolist()[3]
    [0, 1, 2, 3, 4]
    """
    turns = -(-(count + 1) // n)
    ring = tie_keys(digest(["ring", seed]), torch.arange(n)).argsort(stable=True)
    picks = tie_keys(digest(["rotation", seed]), torch.arange(1, max(2, turns * n))).argsort(stable=True)
    shuffled = torch.cat([torch.arange(n)[None], permutations(n, turns - 1, seed)])
    return Rotations(ring, shuffled, picks[:count] + 1)


@dataclass(frozen=True)
class Permutations:
    """How many permutations to draw, and what a reader has to know about that number."""

    count: int
    note: str | None = None


def choose_permutations(pairs: int, alpha: float, cheap: bool, given: int | None = None) -> Permutations:
    """Return how many permutations to draw for a table of `pairs` pairs of models.

    The smallest p there can be is 1 / (K + 1), and among m pairs a single one reaches q ≤ α only if
    m / (K + 1) ≤ α. So K is at least m / α, and 200, where a permutation is cheap; 200 elsewhere.

    :param given: the number that was asked for; None chooses.

    >>> choose_permutations(66, 0.05, cheap=True)
    Permutations(count=1320, note=None)
    """
    wanted = math.ceil(pairs / _exact(alpha))
    count = given if given is not None else max(wanted, _ENOUGH) if cheap else _ENOUGH
    if count + 1 >= pairs / _exact(alpha):
        return Permutations(count)
    least = math.ceil(pairs / (_exact(alpha) * (count + 1)))
    reach = (
        f"q ≤ {alpha:g} is reached only if {least} or more of them have the smallest p"
        if least <= pairs
        else f"no q can reach {alpha:g}"
    )
    return Permutations(
        count,
        f"{count} permutations are few for {pairs} pairs of models: {reach}; "
        f"{wanted} permutations let a single pair reach it",
    )


def _exact(alpha: float) -> Fraction:
    """Read a level as the decimal number that was written, not as its binary neighbor."""
    return Fraction(repr(alpha))
