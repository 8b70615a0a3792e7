"""The inner loops of nulls of neighbor metrics, compiled by numba; `relabel` says what they are for.

A side of a pair of models is a tuple of arrays, as `relabel.Lists` has them: `starts` `[n + 1]`, where the
links of a row begin; `other` and `link`, the sample and the number of each; `first` `[U + 1]`, where the
entries of a link begin; `layer`, `value` and `mutual` of each entry. Row i of X meets row π(i) of Y, whose
links go to the samples π⁻¹(j): `orders` holds π, `inverses` π⁻¹, `[B, n] int32`.

All functions release the interpreter's lock and use one thread. Compiled code is kept on disk.
"""

from __future__ import annotations

import numpy as np

from platonic_ray.kernels.jit import compiled

JACCARD, HIT, RANK, LCS, EDIT = range(5)


@compiled
def products(x, y, orders, inverses, layers_y, out):  # type: ignore[no-untyped-def]
    """Add Σ of the products of the values of shared links to `out` `[B, Lx · Ly]`."""
    starts_x, other_x, link_x, first_x, layer_x, value_x, _ = x
    starts_y, other_y, link_y, first_y, layer_y, value_y, _ = y
    n = len(starts_x) - 1
    mark = np.full(n, -1, dtype=np.int32)
    for i in range(n):
        for at in range(starts_x[i], starts_x[i + 1]):
            mark[other_x[at]] = link_x[at]
        for b in range(len(orders)):
            p = orders[b, i]
            for at in range(starts_y[p], starts_y[p + 1]):
                u = mark[inverses[b, other_y[at]]]
                if u < 0:
                    continue
                v = link_y[at]
                for e in range(first_x[u], first_x[u + 1]):
                    line = layer_x[e] * layers_y
                    for f in range(first_y[v], first_y[v + 1]):
                        out[b, line + layer_y[f]] += value_x[e] * value_y[f]
        for at in range(starts_x[i], starts_x[i + 1]):
            mark[other_x[at]] = -1


@compiled
def overlaps(x, y, orders, inverses, layers_y, out):  # type: ignore[no-untyped-def]
    """Add the number of shared links to `out` `[B, Lx · Ly] int32`."""
    starts_x, other_x, link_x, first_x, layer_x, _, _ = x
    starts_y, other_y, link_y, first_y, layer_y, _, _ = y
    n = len(starts_x) - 1
    mark = np.full(n, -1, dtype=np.int32)
    for i in range(n):
        for at in range(starts_x[i], starts_x[i + 1]):
            mark[other_x[at]] = link_x[at]
        for b in range(len(orders)):
            p = orders[b, i]
            for at in range(starts_y[p], starts_y[p + 1]):
                u = mark[inverses[b, other_y[at]]]
                if u < 0:
                    continue
                v = link_y[at]
                for e in range(first_x[u], first_x[u + 1]):
                    line = layer_x[e] * layers_y
                    for f in range(first_y[v], first_y[v + 1]):
                        out[b, line + layer_y[f]] += 1
        for at in range(starts_x[i], starts_x[i + 1]):
            mark[other_x[at]] = -1


@compiled
def by_row(x, y, orders, inverses, layers_x, layers_y, k, what, out):  # type: ignore[no-untyped-def]
    """Add a number of every row's shared links, whose values are ranks from 0, to `out` `[B, Lx · Ly]`.

    Rows that share nothing add nothing, but for `EDIT`, which adds k less the distance.
    """
    starts_x, other_x, link_x, first_x, layer_x, value_x, _ = x
    starts_y, other_y, link_y, first_y, layer_y, value_y, _ = y
    n = len(starts_x) - 1
    mark = np.full(n, -1, dtype=np.int32)
    count = np.zeros(layers_x * layers_y, dtype=np.int32)
    ranks = np.empty((layers_x * layers_y, k), dtype=np.int32)
    touched = np.empty(layers_x * layers_y, dtype=np.int32)
    chain = np.empty(k, dtype=np.int32)
    for i in range(n):
        for at in range(starts_x[i], starts_x[i + 1]):
            mark[other_x[at]] = link_x[at]
        for b in range(len(orders)):
            p = orders[b, i]
            met = 0
            for at in range(starts_y[p], starts_y[p + 1]):
                u = mark[inverses[b, other_y[at]]]
                if u < 0:
                    continue
                v = link_y[at]
                for e in range(first_x[u], first_x[u + 1]):
                    line = layer_x[e] * layers_y
                    rank = k * np.int32(value_x[e])
                    for f in range(first_y[v], first_y[v + 1]):
                        cell = line + layer_y[f]
                        if count[cell] == 0:
                            touched[met] = cell
                            met += 1
                        ranks[cell, count[cell]] = rank + np.int32(value_y[f])
                        count[cell] += 1
            for at in range(met):
                cell = touched[at]
                out[b, cell] += _of_row(ranks[cell], count[cell], k, what, chain)
                count[cell] = 0
        for at in range(starts_x[i], starts_x[i + 1]):
            mark[other_x[at]] = -1


@compiled
def _of_row(ranks, m, k, what, chain):  # type: ignore[no-untyped-def]
    """Return what m ≥ 1 shared neighbors, at ranks r k + r′ from 0, add."""
    if what == JACCARD:
        return m / (2 * k - m)
    if what == HIT:
        return 1.0
    if what == RANK:
        total, harmonic = 0.0, 0.0
        for at in range(m):
            r, s = ranks[at] // k + 1, ranks[at] % k + 1
            total += 2.0 / ((1 + abs(r - s)) * (r + s))
            harmonic += 1.0 / (at + 1)
        return total / harmonic
    if m == 1:
        r, s = ranks[0] // k, ranks[0] % k
        return 1.0 if what == LCS else float(max(0, k - max(r, s) - max(k - 1 - r, k - 1 - s)))
    # Chains of shared neighbors that ascend in both lists: the longest is the common subsequence; for
    # the distance, lists of a and b between two neighbors in turn are turned into each other by max(a, b) edits.
    ranks[:m].sort()
    best = 0 if what == LCS else k
    for at in range(m):
        r, s = ranks[at] // k, ranks[at] % k
        found = 1 if what == LCS else max(r, s)
        for before in range(at):
            q, t = ranks[before] // k, ranks[before] % k
            if t < s:
                if what == LCS:
                    found = max(found, chain[before] + 1)
                else:
                    found = min(found, chain[before] + max(r - q, s - t) - 1)
        chain[at] = found
        end = max(k - 1 - r, k - 1 - s)
        best = max(best, found) if what == LCS else min(best, found + end)
    return float(best if what == LCS else k - best)


@compiled
def masked(x, x_back, y, y_back, orders, inverses, layers_x, layers_y, out):  # type: ignore[no-untyped-def]
    """Add the sums of `kernels.masked_kernel_sums` to `out` `[B, 4, Lx · Ly]`; values are similarities.

    `x_back` and `y_back` are the links turned round: those into a row.
    """
    starts_x, other_x, link_x, first_x, layer_x, value_x, mutual_x = x
    starts_y, other_y, link_y, first_y, layer_y, value_y, mutual_y = y
    into_x, from_x, back_x = x_back
    into_y, from_y, back_y = y_back
    n, cells = len(starts_x) - 1, layers_x * layers_y
    mark, mark_back = np.full(n, -1, dtype=np.int32), np.full(n, -1, dtype=np.int32)
    met = np.zeros(cells, dtype=np.bool_)
    touched = np.empty(cells, dtype=np.int32)
    line_sum, column_sum = np.zeros(cells), np.zeros(cells)
    for j in range(n):
        for at in range(starts_x[j], starts_x[j + 1]):
            mark[other_x[at]] = link_x[at]
        for at in range(into_x[j], into_x[j + 1]):
            mark_back[from_x[at]] = back_x[at]
        for b in range(len(orders)):
            p = orders[b, j]
            count = 0
            for at in range(starts_y[p], starts_y[p + 1]):
                u = mark[inverses[b, other_y[at]]]
                if u < 0:
                    continue
                v = link_y[at]
                for e in range(first_x[u], first_x[u + 1]):
                    line = layer_x[e] * layers_y
                    for f in range(first_y[v], first_y[v + 1]):
                        cell = line + layer_y[f]
                        if not met[cell]:
                            met[cell] = True
                            touched[count] = cell
                            count += 1
                        line_sum[cell] += value_y[f]
                        if mutual_x[e] and mutual_y[f]:
                            out[b, 0, cell] += value_x[e] * value_y[f]
            for at in range(into_y[p], into_y[p + 1]):
                u = mark_back[inverses[b, from_y[at]]]
                if u < 0:
                    continue
                v = back_y[at]
                for e in range(first_x[u], first_x[u + 1]):
                    line = layer_x[e] * layers_y
                    for f in range(first_y[v], first_y[v + 1]):
                        cell = line + layer_y[f]
                        if not met[cell]:
                            met[cell] = True
                            touched[count] = cell
                            count += 1
                        column_sum[cell] += value_x[e]
            for at in range(count):
                cell = touched[at]
                out[b, 1, cell] += column_sum[cell]
                out[b, 2, cell] += line_sum[cell]
                out[b, 3, cell] += column_sum[cell] * line_sum[cell]
                met[cell] = False
                line_sum[cell] = 0.0
                column_sum[cell] = 0.0
        for at in range(starts_x[j], starts_x[j + 1]):
            mark[other_x[at]] = -1
        for at in range(into_x[j], into_x[j + 1]):
            mark_back[from_x[at]] = -1
