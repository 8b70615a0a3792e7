"""The exact median of all n (n − 1) / 2 distances between rows, without holding or sorting them.

Distances are made micro-tile by micro-tile (`forms`, so that they depend on the rows alone) and
rounded to float32, whose bits order nonnegative numbers as the numbers are ordered. Two passes count:
the first finds the upper half of the bits of the two middle distances, the second the lower half. The
median is the mean of the two; nothing else is rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from platonic_ray.kernels.forms import MICRO, Anchor, Kernel, Stack, anchors, move, squared_distances
from platonic_ray.kernels.grams import blocks_of, span
from platonic_ray.kernels.threads import one_thread, workers

_LOW_BITS = 16
_HIGH, _LOW = 2 ** (31 - _LOW_BITS), 2**_LOW_BITS  # the sign is always 0


def median_distances(
    rows_of: Callable[[int], Stack], n: int, kernel: Kernel, level: int, micro: int = MICRO
) -> list[float]:
    """Return the median Euclidean distance between two different rows, for every layer of a model.

    :param rows_of: prepared rows of every layer over `span(level, block, n)`; called several times a
        block, two blocks are held at a time.
    :param n: the number of rows, at least 2.
    :param kernel: its precision is that of the distances.
    """
    distance = Kernel("euclidean", precision=kernel.precision)
    about = anchors(rows_of(0), distance, micro=micro)
    count = n * (n - 1) // 2
    ranks = ((count - 1) // 2, count // 2)  # of the middle distances, from 0; one and the same if odd
    high = _counts(rows_of, n, distance, about, level, micro, None)
    at = [[_bin(counts, rank) for rank in ranks] for counts in high]
    low = _counts(rows_of, n, distance, about, level, micro, [[bin_ for bin_, _ in two] for two in at])
    medians = []
    for layer, anchor in enumerate(about):
        values = []
        for side, (upper, rank) in enumerate(at[layer]):
            lower, _ = _bin(low[layer][side], rank)
            bits = torch.tensor(upper * _LOW + lower, dtype=torch.int32)
            values.append(float(bits.view(torch.float32)))
        medians.append(sum(values) / 2 / anchor.scale)
    return medians


def _counts(
    rows_of: Callable[[int], Stack],
    n: int,
    kernel: Kernel,
    about: list[Anchor],
    level: int,
    micro: int,
    within: list[list[int]] | None,
) -> list[Tensor]:
    """Count distances, for every layer, by the upper bits; or by the lower, of those in each of `within`."""
    blocks = blocks_of(n, micro << level)
    totals = [torch.zeros(_HIGH if within is None else (2, _LOW), dtype=torch.int64) for _ in about]
    threads = torch.get_num_threads()
    with one_thread(), workers(threads) as run:
        for a in range(blocks):
            stack_a = rows_of(a)
            for b in range(a, blocks):
                stack_b = stack_a if a == b else rows_of(b)
                run(
                    partial(
                        _count_layer,
                        totals[layer],
                        stack_a[layer],
                        stack_b[layer],
                        kernel,
                        about[layer],
                        a == b,
                        micro,
                        None if within is None else within[layer],
                    )
                    for layer in range(len(about))
                )
    return totals


def _count_layer(
    total: Tensor,
    rows_a: Tensor,
    rows_b: Tensor,
    kernel: Kernel,
    anchor: Anchor,
    same: bool,
    micro: int,
    within: list[int] | None,
) -> None:
    for i in range(blocks_of(rows_a.shape[0], micro)):
        a = move(rows_a[span(0, i, rows_a.shape[0], micro)], kernel, anchor)
        for j in range(i if same else 0, blocks_of(rows_b.shape[0], micro)):
            diagonal = same and i == j
            b = a if diagonal else move(rows_b[span(0, j, rows_b.shape[0], micro)], kernel, anchor)
            distances = squared_distances(a, b, diagonal).sqrt_().float()
            bits = distances.view(torch.int32)
            some = bits[_above(bits)] if diagonal else bits.reshape(-1)
            upper = some >> _LOW_BITS
            if within is None:
                total += torch.bincount(upper, minlength=_HIGH).cpu()
                continue
            for side, bin_ in enumerate(within):
                lower = some[upper == bin_] & (_LOW - 1)
                total[side] += torch.bincount(lower, minlength=_LOW).cpu()


def _above(square: Tensor) -> Tensor:
    """Return where a square matrix is above its diagonal."""
    return torch.ones_like(square, dtype=torch.bool).triu(1)


def _bin(counts: Tensor, rank: int) -> tuple[int, int]:
    """Return the bin that holds the value of this rank, and its rank within the bin."""
    sums = counts.cumsum(0)
    at = int(torch.searchsorted(sums, rank, right=True))
    return at, rank - int(sums[at] - counts[at])
