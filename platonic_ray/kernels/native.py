"""The inner loops of the tile engine, compiled by numba (`jit`); `collect` does the same by torch.

All functions use one thread, so that callers run them side by side on disjoint queries.

A row's candidates live in flat arrays of fixed size, none of them ever grows:

- `best` `[n, keep] float32`: its best proposals so far, ascending; or
  `[n, 0]` where `keep` is so large that this costs more than it saves: then the worst of the best is looked for
  among the candidates whenever these are full;
- `threshold` `[n] float32`: what a proposal must reach to be possible still; it rises with that worst of the best;
- `score` `[n, C] float32`, `column` `[n, C] int32`: its candidates, `count` `[n] int32` of them. When they
  are full, those below the threshold are dropped. A row that stays full has more near-ties than there
  is room for: it is given up (count −1, threshold +∞) and left to another search.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from platonic_ray.kernels.filters import RUN, lowest, possible_of_columns, possible_of_row
from platonic_ray.kernels.jit import compiled, uncounted

_ROOM = 0.75  # a row is given up if more of its candidates than this share are possible still
_HALVINGS = 40  # of the range of a row's scores; float32 has no finer steps then
_MORE = 64  # the part of the `keep` best by which their worst may be missed


@uncounted
def _insert(best, r, value):  # type: ignore[no-untyped-def]
    """Put a value among those of row r, which ascend, in place of the least: without a branch to foretell."""
    low, last = best[r, 0], best.shape[1] - 1
    for at in range(last):
        high = best[r, at + 1]
        best[r, at] = min(max(low, value), high)
        low = high
    best[r, last] = max(low, value)


@uncounted
def _raise(r, worst, share, margin, threshold):  # type: ignore[no-untyped-def]
    """Raise the threshold of row r to what `worst`, a proposal that `keep` reach, leaves possible; see `frame`."""
    if worst > -np.inf:
        wide = worst - margin[r] - share * abs(worst)
        narrow = np.float32(wide)
        lower = narrow - (np.float32(1.2e-7) * abs(narrow) + np.float32(1e-37))
        threshold[r] = lower if float(narrow) > wide else narrow


@uncounted
def _reached(scores, keep):  # type: ignore[no-untyped-def]
    """Return a number that at least `keep` of the scores reach, and hardly more do: the quantile, by bisection."""
    low = high = scores[0]
    for at in range(1, scores.shape[0]):
        low, high = min(low, scores[at]), max(high, scores[at])
    for _ in range(_HALVINGS):
        middle = np.float32(0.5) * low + np.float32(0.5) * high
        if not low < middle < high:
            break
        above = np.uint32(0)
        for at in range(scores.shape[0]):
            above = np.uint32(above + np.uint32(scores[at] >= middle))
        if above < keep:
            high = middle
        else:
            low = middle
            if above <= keep + keep // _MORE:
                break
    return low


@uncounted
def tighten(start, stop, keep, share, margin, best, threshold, count, score):  # type: ignore[no-untyped-def]
    """Raise the thresholds of rows without best proposals to what all of their candidates say."""
    for r in range(start, stop):
        if best.shape[1] == 0 and count[r] >= keep:
            _raise(r, float(_reached(score[r, : count[r]], keep)), share, margin, threshold)


@uncounted
def _make_room(r, keep, share, margin, best, threshold, count, score, column):  # type: ignore[no-untyped-def]
    """Drop what is out of the candidates of row r, which are full, or give it up; return how many it holds then."""
    tighten(r, r + 1, keep, share, margin, best, threshold, count, score)
    t, room = threshold[r], score.shape[1]
    held = 0
    for at in range(room):
        # Written whether it stays or not: nobody could foretell the branch.
        score[r, held], column[r, held] = score[r, at], column[r, at]
        held += score[r, held] >= t
    if held > _ROOM * room:
        held = -1
        threshold[r] = np.inf
    count[r] = held
    return held


@partial(compiled, counted=False, fastmath={"reassoc", "contract"})
def _refined(at, of, bias, exact):  # type: ignore[no-untyped-def]
    """Return the proposal of row `of` to query `at`, of a product in float64, lowered; see `frame.Frame.lower`.

    :param exact: what each query's are lowered by; two blocks of centered rows `[r, D] float32`, of which one has
        either of these; and the places of the blocks' first rows.
    """
    lower, some, others, first, other_first = exact
    i, j = at - first, of - other_first
    if not (0 <= i < some.shape[0] and 0 <= j < others.shape[0]):
        i, j = of - first, at - other_first
    product = 0.0
    for column in range(some.shape[1]):
        product += np.float64(some[i, column]) * np.float64(others[j, column])
    return np.float32(product + np.float64(bias[of]) - np.float64(lower[at]))


@uncounted
def take(  # type: ignore[no-untyped-def]
    found,
    products,
    i,
    start,
    down,
    r,
    of_rows,
    c,
    of_columns,
    bias,
    ids,
    keep,
    share,
    margin,
    best,
    threshold,
    count,
    score,
    column,
    exact,
):
    """Keep what of a run of products is possible: of queries r + j · of_rows, and rows c + j · of_columns.

    They are `[i, start + j]`, or `[i + j, start]` where the run goes `down`.

    One call a run, for a call takes as long as ten candidates; and no part of an array is made, for that does too.

    :param found: bits of those that reached their threshold when the run came; it may have risen since.
    :param exact: what refined proposals are made of, see `_refined`; without numbers to lower by, none is refined.
    """
    room = score.shape[1]
    while found:
        j = np.intp(lowest(found))
        found &= found - np.uint64(1)
        at, of = r + j * of_rows, c + j * of_columns
        s = products[i + j * down, start + j * (1 - down)] + bias[of]
        if s >= threshold[at] and ids[at] != ids[of]:
            if exact[0].shape[0]:
                s = _refined(at, of, bias, exact)
                if s < threshold[at]:
                    continue
            held = count[at]
            if held == room:
                held = _make_room(at, keep, share, margin, best, threshold, count, score, column)
            if held >= 0:
                score[at, held] = s
                column[at, held] = of
                count[at] = held + 1
                if best.shape[1] and s > best[at, 0]:
                    _insert(best, at, s)
                    _raise(at, float(best[at, 0]), share, margin, threshold)


@uncounted
def offer_rows(  # type: ignore[no-untyped-def]
    product,
    first_row,
    last_row,
    row,
    col,
    bias,
    ids,
    keep,
    share,
    margin,
    best,
    threshold,
    count,
    score,
    column,
    exact,
):
    """Offer rows `first_row` … `last_row` − 1 of a tile `[r, c] float32` to their queries.

    The tile's first cell is that of rows (row, col) of the search.
    """
    width = product.shape[1]
    biases, thresholds = bias.ctypes.data, threshold.ctypes.data
    for i in range(first_row, last_row):
        r = row + i
        at = product.ctypes.data + i * product.strides[0]
        for start in range(0, width, RUN):
            c = col + start
            if width - start >= RUN:
                found = possible_of_row(at + 4 * start, biases + 4 * c, thresholds + 4 * r)
            else:
                found = np.uint64(0)
                for j in range(width - start):
                    found |= np.uint64(product[i, start + j] + bias[c + j] >= threshold[r]) << np.uint64(j)
            if found:
                take(
                    found, product, i, start, 0, r, 0, c, 1,
                    bias, ids, keep, share, margin, best, threshold, count, score, column, exact,
                )  # fmt: skip


@uncounted
def offer_columns(  # type: ignore[no-untyped-def]
    product,
    first_col,
    last_col,
    row,
    col,
    bias,
    ids,
    keep,
    share,
    margin,
    best,
    threshold,
    count,
    score,
    column,
    exact,
):
    """Offer columns `first_col` … `last_col` − 1 of a tile to their queries, the tile's rows as gallery."""
    biases, thresholds = bias.ctypes.data, threshold.ctypes.data
    for i in range(product.shape[0]):
        c = row + i
        at = product.ctypes.data + i * product.strides[0]
        for start in range(first_col, last_col, RUN):
            r = col + start
            if last_col - start >= RUN:
                found = possible_of_columns(at + 4 * start, biases + 4 * c, thresholds + 4 * r)
            else:
                found = np.uint64(0)
                for j in range(last_col - start):
                    found |= np.uint64(product[i, start + j] + bias[c] >= threshold[r + j]) << np.uint64(j)
            if found:
                take(
                    found, product, i, start, 0, r, 1, c, 0,
                    bias, ids, keep, share, margin, best, threshold, count, score, column, exact,
                )  # fmt: skip
