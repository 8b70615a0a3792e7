"""Products of bfloat16 on a processor's matrix units (AMX), offered to candidates while they are in L1.

An AMX unit multiplies 16 × 32 by 32 × 16 numbers of bfloat16 and adds up in float32, 16 times as many operations a
cycle as AVX-512 has of float32. What is made so fast must not go by way of memory: a block of 32 × 64 products
is filtered, for the queries on both sides of it, as soon as it is there, and never stored elsewhere.

Rows come as panels of 32, cut into steps of 32 columns, each of two halves of 16 rows: 1 KiB apiece, the size of a
register, in the layout of a left and of a right factor. They begin at multiples of 64 bytes: loads of registers from
elsewhere take ten times as long (measured on an Emerald Rapids core: 3 ns and 20–30 ns).

Bound, measured on that core: 2.7 TFLOP/s (a product of registers in 16 cycles, four of them for four loads). Panels
of wide rows come from L2, at a third of that.
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache

import numpy as np
import torch
from torch import Tensor

from platonic_ray.kernels.filters import (
    PANEL,
    RUN,
    lowest,
    possible_in_block,
    possible_in_rows,
    possible_of_column,
    possible_of_row,
)
from platonic_ray.kernels.native import bfloat16_of, compiled, offer_columns, offer_rows, take, uncounted
from platonic_ray.kernels.tiles import HALF, REGISTER, configure, put_products, release
from platonic_ray.kernels.tiles import PALETTE as PALETTE

_STEP = 2 * REGISTER  # bytes of a panel's 32 columns
_NEAR = 2**19  # bytes of right panels that stay in L2 while left panels go by


@cache
def permitted() -> bool:
    """Ask Linux for the use of matrix units by this process; return whether it has it."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    call, request, tile_data = 158, 0x1023, 18  # arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return ctypes.CDLL(None).syscall(call, request, tile_data) == 0


def panels_of(count: int, width: int) -> Tensor:
    """Return room for rows as panels, `[panels, steps, 2, 16, 16] int32` of two bfloat16 each."""
    # Memory of torch's begins at a multiple of 64 bytes, NumPy's does not.
    return torch.empty((-(-count // PANEL), -(-width // PANEL), 2, HALF, HALF), dtype=torch.int32)


def fill(panels: Tensor, start: int, rows: Tensor, center: Tensor, right: bool) -> None:
    """Set panels to rows `[r, D] float32`, less a center, from row `start` on, a multiple of `PANEL`.

    :param right: whether the panels are of a right factor.
    """
    first = start // PANEL
    _fill(rows.numpy(), center.numpy(), right, panels[first : first - (-rows.shape[0] // PANEL)].numpy())


@compiled
def _fill(rows, center, right, panels):  # type: ignore[no-untyped-def]
    """Put rows less a center into panels, in bfloat16; rows and columns that are not there are zero."""
    width, steps = rows.shape[1], panels.shape[1]
    wide = np.zeros(steps * PANEL, np.float32)
    halves = np.zeros((HALF, steps * PANEL), np.uint16)
    bits, pairs = wide.view(np.uint32), halves.view(np.int32)
    for panel in range(panels.shape[0]):
        for half in range(2):
            for row in range(HALF):
                source = (2 * panel + half) * HALF + row
                if source >= rows.shape[0]:
                    halves[row] = 0
                    continue
                for at in range(width):
                    wide[at] = rows[source, at] - center[at]
                for at in range(width):
                    halves[row, at] = np.uint16(bfloat16_of(bits[at]) >> np.uint32(16))
            for step in range(steps):
                for one in range(HALF):
                    for other in range(HALF):
                        if right:
                            panels[panel, step, half, one, other] = pairs[other, step * HALF + one]
                        else:
                            panels[panel, step, half, one, other] = pairs[one, step * HALF + other]


@uncounted
def _offer_block(  # type: ignore[no-untyped-def]
    block,
    row,
    col,
    both,
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
    """Offer a whole block, whose first cell is that of rows (row, col) of the search.

    As `native.offer_rows` and `offer_columns`.
    """
    at, biases, thresholds = block.ctypes.data, bias.ctypes.data, threshold.ctypes.data
    sides = at, biases + 4 * row, thresholds + 4 * row, biases + 4 * col, thresholds + 4 * col
    rows, columns = possible_in_block(*sides) if both else possible_in_rows(*sides)
    while rows:
        i = np.intp(lowest(rows))
        rows &= rows - np.uint64(1)
        r = row + i
        found = possible_of_row(at + 4 * RUN * i, biases + 4 * col, thresholds + 4 * r)
        if found:
            take(
                found, block, i, 0, 0, r, 0, col, 1,
                bias, ids, keep, share, margin, best, threshold, count, score, column, exact,
            )  # fmt: skip
    while columns:
        j = np.intp(lowest(columns))
        columns &= columns - np.uint64(1)
        found = possible_of_column(at + 4 * j, biases + 4 * row, thresholds + 4 * (col + j))
        if found:
            take(
                found, block, 0, j, 1, col + j, 0, row, 1,
                bias, ids, keep, share, margin, best, threshold, count, score, column, exact,
            )  # fmt: skip


@uncounted
def offer_products(  # type: ignore[no-untyped-def]
    left,
    right,
    block,
    rows,
    columns,
    first,
    both,
    alike,
    palette,
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
    """Offer the products of some rows of a block with some of another to the queries on one side, or on both.

    :param left: panels of the one block's rows; `right` of the other's, as a right factor.
    :param block: room for products, `[32, 64] float32`, whose memory begins at a multiple of 64 bytes.
    :param rows: (start, stop) within their block; `columns` as well.
    :param first: the places in the search of the blocks' first rows.
    :param both: whether the columns are queries too.
    :param alike: whether columns are the rows: then every two are offered to each other once.
    :param bias: and what follows, of the queries: see `native`.
    """
    steps, panels = left.shape[1], right.shape[0]
    of_panel, stride = steps * _STEP, 4 * RUN
    left_at, right_at, out_at = left.ctypes.data, right.ctypes.data, block.ctypes.data
    near = max(2, _NEAR // of_panel // 2 * 2)
    last = -(-columns[1] // PANEL)
    configure(palette.ctypes.data)
    for some in range(columns[0] // PANEL, last, near):
        for i in range(rows[0] // PANEL, -(-rows[1] // PANEL)):
            top, bottom = max(rows[0], i * PANEL), min(rows[1], (i + 1) * PANEL)
            for j in range(some, min(some + near, last), 2):
                # Of rows with themselves, what is left of the diagonal has been there; a panel with itself serves
                # its rows alone.
                if alike and j + 1 < i:
                    continue
                wide = min(2, panels - j)
                for part in range(wide):
                    to = out_at + part * 4 * PANEL
                    put_products(left_at + i * of_panel, right_at + (j + part) * of_panel, to, steps, stride)
                start, stop = max(columns[0], j * PANEL), min(columns[1], (j + wide) * PANEL)
                row = first[0] + top
                if stop - start == RUN and bottom - top == PANEL and not (alike and j <= i):
                    _offer_block(
                        block, row, first[1] + start, both,
                        bias, ids, keep, share, margin, best, threshold, count, score, column, exact,
                    )  # fmt: skip
                    continue
                if alike:
                    begin, start = max(start, i * PANEL), min(max(start, (i + 1) * PANEL), stop)
                    product = block[
                        top - i * PANEL : bottom - i * PANEL, begin - j * PANEL : start - j * PANEL
                    ]
                    offer_rows(
                        product, 0, bottom - top, row, first[1] + begin,
                        bias, ids, keep, share, margin, best, threshold, count, score, column, exact,
                    )  # fmt: skip
                product = block[top - i * PANEL : bottom - i * PANEL, start - j * PANEL : stop - j * PANEL]
                offer_rows(
                    product, 0, bottom - top, row, first[1] + start,
                    bias, ids, keep, share, margin, best, threshold, count, score, column, exact,
                )  # fmt: skip
                if both:
                    offer_columns(
                        product, 0, stop - start, row, first[1] + start,
                        bias, ids, keep, share, margin, best, threshold, count, score, column, exact,
                    )  # fmt: skip
    release()
