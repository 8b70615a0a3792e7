"""What two tables of neighbors have in common, for every layer pair of two stacks at once.

Each function takes a block of rows of the tables and returns a sum over its rows, `[Lx, Ly]`. Sums of
counts are int64 and add up over blocks in any order. The two that are float64 take at most `MICRO`
rows, a block of the fixed grid, to be added up by `tree_sum`.

Sets and lists are compared by the boolean algebra of `bitplanes`, 64 layer pairs a word, so that the
work depends neither on how much is shared nor on luck. −1 stands for no neighbor and matches nothing;
the other ids of a row are distinct.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from platonic_ray.kernels.bitplanes import (
    BitCounter,
    Entries,
    binary_digits,
    list_matches,
    reverse_matches,
)

_CELLS = 2**18  # row × layer pairs whose agreement of ranks is held at a time
_MARKS = 2**22  # (row, id) whose being listed is held at a time
_FEW_IDS = 2**16  # so many that a few hundred rows of marks are held


def overlap_counts(ids_x: Tensor, ids_y: Tensor) -> Tensor:
    """Return Σ_i |S_X(i) ∩ S_Y(i)| for every layer of X and every layer of Y.

    :param ids_x: `[Lx, n, k] int64`.
    :param ids_y: `[Ly, n, k] int64`.
    :returns: `[Lx, Ly] int64`.
    :raises ValueError: if the tables have other rows or another k.

    >>> overlap_counts(torch.tensor([[[1, 2]]]), torch.tensor([[[2, 3]]])).tolist()
    [[1]]
    """
    _same_shape(ids_x, ids_y)
    if ids_x.shape[0] == 1 and int(ids_x.max()) < _FEW_IDS:
        return _overlaps_of_one(ids_x[0], ids_y)
    if (ids_x.shape[0] > 1 and ids_y.shape[0] == 1) or _better_swapped(ids_x, ids_y):
        return overlap_counts(ids_y, ids_x).T
    counter = BitCounter()
    for matches in list_matches(ids_x, ids_y, ranked=False):
        counter.add(matches.by_row(matches.planes()))
    return counter.counts(ids_x.shape[0], ids_y.shape[0])


def _overlaps_of_one(ids_x: Tensor, ids_y: Tensor) -> Tensor:
    """Return `overlap_counts` of a single layer X, `[1, Ly]`: its lists are marked, Y's look them up."""
    layers_y, n, k = ids_y.shape
    highest = int(ids_x.max())
    counts = torch.zeros(layers_y, dtype=torch.int64, device=ids_y.device)
    step = _MARKS // (highest + 2)
    for start in range(0, n, step):
        rows = slice(start, start + step)
        x, y = ids_x[rows], ids_y[:, rows].permute(1, 0, 2).reshape(-1, layers_y * k)
        # Column 0 stands for what X never lists: the missing, and ids beyond its highest.
        marks = torch.zeros(x.shape[0], highest + 2, dtype=torch.bool, device=x.device)
        marks.scatter_(1, x + 1, True)
        marks[:, 0] = False
        hits = marks.gather(1, (y + 1).masked_fill_(y > highest, 0))
        counts += hits.reshape(-1, layers_y, k).sum((0, 2))
    return counts[None]


def cycle_counts(table_x: Tensor, ids_y: Tensor, start: int) -> Tensor:
    """Count the rows i that are a neighbor in X of one of their neighbors in Y.

    i ∈ ∪_{j ∈ S_Y(i)} S_X(j) if and only if S_Y(i) meets the set of those who list i in X.

    :param table_x: `[Lx, n, k] int64`, all rows of X.
    :param ids_y: `[Ly, b, k] int64`, the rows i = `start` to `start + b` of Y.
    :returns: `[Lx, Ly] int64`.

    >>> cycle_counts(torch.tensor([[[1], [2], [0]]]), torch.tensor([[[2], [0], [0]]]), 0).tolist()
    [[2]]
    """
    counter = BitCounter()
    for matches in reverse_matches(table_x, ids_y, start):
        hit = matches.plane(0)
        for rank in range(1, matches.ranks_y):
            hit |= matches.plane(rank)
        counter.add(matches.by_row(hit))
    return counter.counts(table_x.shape[0], ids_y.shape[0])


def lcs_counts(ids_x: Tensor, ids_y: Tensor) -> Tensor:
    """Return Σ_i of the length of the longest common subsequence of L_X(i) and L_Y(i).

    The table of prefixes, whose entries differ from their neighbors by 0 or 1, is kept as these
    differences, a bit a layer pair (Hyyrö 2004 keeps 64 cells of one pair in a word).

    :param ids_x: `[Lx, n, k] int64`, nearest first.
    :param ids_y: `[Ly, n, k] int64`.
    :returns: `[Lx, Ly] int64`.

    >>> lcs_counts(torch.tensor([[[5, 6, 7]]]), torch.tensor([[[7, 5, 6]]])).tolist()
    [[2]]
    """
    _same_shape(ids_x, ids_y)
    if _better_swapped(ids_x, ids_y):
        return lcs_counts(ids_y, ids_x).T
    counter = BitCounter()
    for matches in list_matches(ids_x, ids_y, ranked=True):
        down = [ids_x.new_zeros(matches.shape) for _ in range(matches.ranks_x)]
        grown = []
        for rank_y in range(matches.ranks_y):
            across = ids_x.new_zeros(matches.shape)
            for rank_x in range(matches.ranks_x):
                # The cell exceeds its diagonal neighbor if it matches or either side does already.
                more = matches.plane(rank_y, rank_x)
                more |= across
                more |= down[rank_x]
                across, down[rank_x] = more ^ down[rank_x], more.bitwise_xor_(across)
            grown.append(across)
        counter.add(matches.by_row(torch.stack(grown)))
    return counter.counts(ids_x.shape[0], ids_y.shape[0])


def edit_counts(ids_x: Tensor, ids_y: Tensor) -> Tensor:
    """Return Σ_i of the Levenshtein distance of L_X(i) and L_Y(i).

    Myers' differences (1999), which are −1, 0 or 1, as two bits a layer pair.

    :param ids_x: `[Lx, n, k] int64`, nearest first.
    :param ids_y: `[Ly, n, k] int64`.
    :returns: `[Lx, Ly] int64`.

    >>> edit_counts(torch.tensor([[[5, 6, 7]]]), torch.tensor([[[6, 7, 8]]])).tolist()
    [[2]]
    """
    _same_shape(ids_x, ids_y)
    if _better_swapped(ids_x, ids_y):
        return edit_counts(ids_y, ids_x).T
    plus, minus = BitCounter(), BitCounter()
    for matches in list_matches(ids_x, ids_y, ranked=True):
        down_plus = [ids_x.new_full(matches.shape, -1) for _ in range(matches.ranks_x)]
        down_minus = [ids_x.new_zeros(matches.shape) for _ in range(matches.ranks_x)]
        grown, shrunk = [], []
        for rank_y in range(matches.ranks_y):
            across_plus, across_minus = ids_x.new_full(matches.shape, -1), ids_x.new_zeros(matches.shape)
            for rank_x in range(matches.ranks_x):
                up, low = down_plus[rank_x], down_minus[rank_x]
                same = matches.plane(rank_y, rank_x)  # as the diagonal neighbor
                same |= low
                same |= across_minus
                down_plus[rank_x] = (same | across_plus).bitwise_not_().bitwise_or_(across_minus)
                down_minus[rank_x] = across_plus.bitwise_and_(same)
                across_plus = (same | up).bitwise_not_().bitwise_or_(low)
                across_minus = same.bitwise_and_(up)
            grown.append(across_plus)
            shrunk.append(across_minus)
        plus.add(matches.by_row(torch.stack(grown)))
        minus.add(matches.by_row(torch.stack(shrunk)))
    layers = ids_x.shape[0], ids_y.shape[0]
    return plus.counts(*layers) - minus.counts(*layers) + ids_x.shape[1] * ids_x.shape[2]


def jaccard_sums(ids_x: Tensor, ids_y: Tensor) -> Tensor:
    """Return Σ_i |S_X(i) ∩ S_Y(i)| / |S_X(i) ∪ S_Y(i)| over a block of the fixed grid.

    Rows are counted by their overlap m, exactly; then Σ_m count · m / (2k − m), m ascending.

    :param ids_x: `[Lx, b, k] int64`, full rows.
    :param ids_y: `[Ly, b, k] int64`.
    :returns: `[Lx, Ly] float64`.

    >>> jaccard_sums(torch.tensor([[[1, 2]]]), torch.tensor([[[2, 3]]])).tolist()
    [[0.3333333333333333]]
    """
    _same_shape(ids_x, ids_y)
    if _better_swapped(ids_x, ids_y):
        return jaccard_sums(ids_y, ids_x).T
    k = ids_x.shape[2]
    counters = [BitCounter() for _ in range(k + 1)]
    for matches in list_matches(ids_x, ids_y, ranked=False):
        digits = binary_digits(matches.planes())
        for overlap in range(1, min(k, 2 ** len(digits) - 1) + 1):
            counters[overlap].add(matches.by_row(_equal(digits, overlap)))
    total = torch.zeros(ids_x.shape[0], ids_y.shape[0], dtype=torch.float64, device=ids_x.device)
    for overlap in range(1, k + 1):
        counts = counters[overlap].counts(*total.shape)
        total += counts.to(torch.float64) * overlap / (2 * k - overlap)
    return total


def _equal(digits: list[Tensor], number: int) -> Tensor:
    """Return the plane of "the number with these binary digits is `number`", `number` ≥ 1."""
    planes = [digit if number >> weight & 1 else ~digit for weight, digit in enumerate(digits)]
    equal = planes[0]
    for plane in planes[1:]:
        equal = equal & plane
    return equal


def rank_sums(ids_x: Tensor, ids_y: Tensor) -> Tensor:
    """Return Σ_i of how well the ranks of the shared neighbors agree, over a block of the fixed grid.

    A row's agreement is Σ_j 2 / [(1 + |r − r′|)(r + r′)] / H_m over its m shared neighbors j, of ranks r
    and r′ from 1, with H_m = 1 + 1/2 + … + 1/m; 0 where m = 0. The terms are rounded to a fixed point,
    so that their sum is exact in any order (relative error ≤ 2e-10 up to k = 64), and rows are added
    one by one.

    :param ids_x: `[Lx, b, k] int64`, nearest first.
    :param ids_y: `[Ly, b, k] int64`.
    :returns: `[Lx, Ly] float64`.

    >>> rank_sums(torch.tensor([[[5, 6, 7]]]), torch.tensor([[[5, 6, 8]]])).tolist()
    [[1.0]]
    """
    _same_shape(ids_x, ids_y)
    (layers_x, n, k), layers_y = ids_x.shape, ids_y.shape[0]
    total = torch.zeros(layers_y, layers_x, dtype=torch.float64, device=ids_x.device)
    weights, harmonic, one = _rank_weights(k, ids_x.device)
    step = max(1, _CELLS // max(1, layers_x * layers_y))
    for start in range(0, n, step):
        rows = slice(start, start + step)
        sums = _sum_of_shared(ids_x[:, rows], ids_y[:, rows], weights + one)
        shared = (sums * (1 / one)).floor_()
        sums.sub_(shared, alpha=one).div_(harmonic.take(shared.to(torch.int64)))
        for row in sums:
            total += row
    return total.T.contiguous()


def _rank_weights(k: int, device: torch.device) -> tuple[Tensor, Tensor, float]:
    """Return 2 / [(1 + |r − r′|)(r + r′)] `[k, k]`, H_0 … H_k (H_0 as 1), and a number above H_k.

    That number is a power of two. Added to every weight, it makes a sum of weights tell how many there
    were; the weights are in the finest fixed point in which such sums of float64 are exact.
    """
    rank = torch.arange(1, k + 1, dtype=torch.float64, device=device)
    weights = 2 / ((1 + (rank[:, None] - rank).abs()) * (rank[:, None] + rank))
    # m shared neighbors have distinct ranks, and no weight exceeds 1 / max(r, r′): they sum to ≤ H_m.
    one = 2.0 ** math.ceil(math.log2(weights.diagonal().sum().item() + 1))
    unit = 2.0 ** (math.ceil(math.log2((k + 1) * one)) - 53)
    weights = (weights / unit).round() * unit
    return weights, torch.cat([weights.new_ones(1), weights.diagonal().cumsum(0)]), one


def _sum_of_shared(ids_x: Tensor, ids_y: Tensor, weights: Tensor) -> Tensor:
    """Return, for every row, Σ_j `weights[r − 1, r′ − 1]` over the shared neighbors j, `[b, Ly, Lx]`.

    For what Y lists, an (id, rank) pair, a line holds the weight that it has in every layer of X; a
    layer of Y adds up the k lines of its list, as one product of a sparse 0/1 matrix.
    """
    (layers_x, b, k), layers_y = ids_x.shape, ids_y.shape[0]
    x = Entries.of_lists(ids_x)
    highest = int(ids_y.max())
    row = torch.arange(b, device=ids_y.device)[:, None, None]
    rank = torch.arange(k, device=ids_y.device)
    keys = ((ids_y + 1).permute(1, 0, 2) + row * (highest + 2)) * k + rank
    lines, at = keys.unique(return_inverse=True)
    wanted = (x.ids + 1 + x.row * (highest + 2)) * k
    wanted.masked_fill_(x.ids > highest, -k)
    first = torch.searchsorted(lines, wanted)
    times = torch.searchsorted(lines, wanted + k) - first
    # Entry e of X is repeated for the lines first[e] … of its id, whatever their rank.
    entry = torch.repeat_interleave(times)
    offset = first - times.cumsum(0) + times
    line = torch.arange(entry.shape[0], device=first.device)
    cell = (offset * layers_x + x.layer).index_select(0, entry).add_(line, alpha=layers_x)
    line += offset.index_select(0, entry)
    weight = (x.rank * k).index_select(0, entry).add_((lines % k).index_select(0, line))
    table = weights.new_zeros(lines.shape[0] * layers_x)
    table.scatter_(0, cell, weights.reshape(-1).index_select(0, weight))
    lists = torch.arange(b * layers_y, device=at.device).repeat_interleave(k)
    picks = torch.sparse_coo_tensor(
        torch.stack([lists, at.reshape(-1)]),
        weights.new_ones(lists.shape[0]),
        (b * layers_y, lines.shape[0]),
        check_invariants=False,
    )
    return torch.sparse.mm(picks, table.reshape(-1, layers_x)).reshape(b, layers_y, layers_x)


def _same_shape(ids_x: Tensor, ids_y: Tensor) -> None:
    if ids_x.shape[1:] != ids_y.shape[1:]:
        raise ValueError(f"tables of shapes {list(ids_x.shape)} and {list(ids_y.shape)} cannot be compared")


def _better_swapped(ids_x: Tensor, ids_y: Tensor) -> bool:
    """Whether fewer words hold the planes of a symmetric measure with Y's layers as bits."""
    x, y = ids_x.shape[0], ids_y.shape[0]
    return -(-y // 64) * x < -(-x // 64) * y
