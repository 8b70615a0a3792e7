"""How items become batches: which go together, and how they are made ready while the model computes.

Both are functions of their arguments alone: the same items make the same batches on every machine,
and a batch is the same whichever thread made it ready.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from platonic_ray.ahead import ahead, cores

Item = TypeVar("Item")
Ready = TypeVar("Ready")

_MOST_THREADS = 8
_STARTS_IN_A_BUDGET = 64


def batches_by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Cut items, shortest first, into batches of at most `budget` tokens once padded (one item at least).

    Of all such cuts it is one with the least cost: the tokens of all batches with their padding, and
    budget/64 tokens for starting each batch, so that lengths that differ do not share one for nothing.

    >>> batches_by_length([5, 1, 2, 2], budget=6)
    [[1], [2, 3], [0]]
    >>> batches_by_length([20, 1, 21, 22], budget=128)
    [[1], [0, 2, 3]]
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    # best[end] is the least cost of the `end` shortest items, cut[end] where its last batch begins
    best = np.zeros(len(order) + 1, np.int64)
    cut = np.zeros(len(order) + 1, np.int64)
    start_cost = budget // _STARTS_IN_A_BUDGET
    for end in range(1, len(order) + 1):
        longest = max(lengths[order[end - 1]], 1)
        first = max(0, end - max(1, budget // longest))
        costs = best[first:end] + longest * np.arange(end - first, 0, -1) + start_cost
        cheapest = int(costs.argmin())
        best[end], cut[end] = costs[cheapest], first + cheapest
    batches = []
    end = len(order)
    while end:
        batches.append(order[cut[end] : end])
        end = int(cut[end])
    return batches[::-1]


def ready_ahead(
    prepare: Callable[[Item], Ready], items: Iterable[Item], device: str = "cpu"
) -> Iterator[Ready]:
    """Yield `prepare(item)` of every item in order, made by threads while the caller computes.

    One thread beside a model that computes on this machine's cores, up to 8 beside an accelerator;
    otherwise as `platonic_ray.ahead.ahead`.

    >>> list(ready_ahead(len, ["a", "abc"]))
    [1, 3]
    """
    return ahead(prepare, items, 1 if device == "cpu" else min(_MOST_THREADS, cores()))
