"""Products of bfloat16 on a processor's matrix units (AMX), offered to candidates while they are in L1.

An AMX unit multiplies 16 × 32 by 32 × 16 numbers of bfloat16 and adds up in float32, 16 times as many operations a
cycle as AVX-512 has of float32. What is made so fast must not go by way of memory: a block of 32 × 64 products
is filtered, for the queries on both sides of it, as soon as it is there, and never stored elsewhere.

Rows come as panels of 32, cut into steps of 32 columns, each of two halves of 16 rows: 1 KiB apiece, the size of a
register, in the layout of a left and of a right factor. They begin at multiples of 64 bytes: loads of registers from
elsewhere take ten times as long (measured on an Emerald Rapids core: 3 ns and 20–30 ns).

Bound, measured on that core: 2.7 TFLOP/s (a product of registers in 16 cycles, four of them for four loads). Panels
come from L2, at half of that. Of rows wider than 2,048 columns L2 holds so few that most would come from L3, at a
fifth: these are multiplied chunk by chunk of their columns, for 32 panels with 8, and the sums of all of them, 1 MiB,
wait in memory for the next chunk. They are added up in the same order as at once.
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
from platonic_ray.kernels.jit import compiled, uncounted
from platonic_ray.kernels.native import offer_columns, offer_rows, take
from platonic_ray.kernels.row_loops import bfloat16_of
from platonic_ray.kernels.tiles import HALF, REGISTER, add_products, configure, put_products, release
from platonic_ray.kernels.tiles import PALETTE as PALETTE

_STEP = 2 * REGISTER  # bytes of a panel's 32 columns
_NEAR = 3 * 2**18  # bytes of right panels, or chunks of them, that stay in L2 while left ones go by
_WHOLE = 64  # steps of a panel, 128 KiB, that are multiplied at once
_CHUNK = 48  # steps of wider panels that are, 96 KiB
_SUMS = 256  # pairs of panels whose sums, 4 KiB each, are begun before the next chunk's turn


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
    return torch.empty(
        (-(-count // PANEL), -(-width // PANEL), 2, HALF, HALF), dtype=torch.int32, device="cpu"
    )


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


def offer_products(left, right, *where_and_to_whom):  # type: ignore[no-untyped-def]
    """Offer the products of some rows of a block with some of another to the queries on one side, or on both.

    :param left: panels of the one block's rows; `right` of the other's, as a right factor.
    :param rows: (start, stop) within their block; `columns` as well.
    :param first: the places in the search of the blocks' first rows.
    :param both: whether the columns are queries too.
    :param alike: whether columns are the rows: then every two are offered to each other once.
    :param palette: `PALETTE`.
    :param bias: and what follows, of the queries: see `native`.
    """
    steps = left.shape[1]
    chunk = steps if steps <= _WHOLE else -(-steps // -(-steps // _CHUNK))
    near = max(2, _NEAR // (chunk * _STEP) // 2 * 2)
    lefts = max(1, _SUMS // near) if chunk < steps else 1
    # Memory of torch's, as of panels.
    count = lefts * near // 2 if chunk < steps else 1
    blocks = torch.empty(count, PANEL, RUN, dtype=torch.float32, device="cpu")
    _offer_products(left, right, blocks.numpy(), lefts, near, chunk, *where_and_to_whom)


@uncounted
def _offer_products(  # type: ignore[no-untyped-def]
    left,
    right,
    blocks,
    lefts,
    near,
    chunk,
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
    """Offer products as `offer_products` does, made chunk by chunk of steps, of groups of panels.

    :param blocks: room for the products of `lefts` with `near` panels, or for one block where there is one chunk.
    """
    steps, panels = left.shape[1], right.shape[0]
    of_panel, stride = steps * _STEP, 4 * RUN
    left_at, right_at = left.ctypes.data, right.ctypes.data
    many, last, end = blocks.shape[0] > 1, -(-columns[1] // PANEL), -(-rows[1] // PANEL)
    configure(palette.ctypes.data)
    for some in range(columns[0] // PANEL, last, near):
        for above in range(rows[0] // PANEL, end, lefts):
            for step in range(0, steps, chunk):
                left_chunk, right_chunk = left_at + step * _STEP, right_at + step * _STEP
                length = min(chunk, steps - step)
                for i in range(above, min(above + lefts, end)):
                    for j in range(some, min(some + near, last), 2):
                        # Of rows with themselves, what is left of the diagonal has been there.
                        if alike and j + 1 < i:
                            continue
                        block = blocks[((i - above) * near + j - some) // 2 if many else 0]
                        for part in range(min(2, panels - j)):
                            a, b = left_chunk + i * of_panel, right_chunk + (j + part) * of_panel
                            to = block.ctypes.data + part * 4 * PANEL
                            if step:
                                add_products(a, b, to, length, stride)
                            else:
                                put_products(a, b, to, length, stride)
                        if step + chunk < steps:
                            continue
                        within = rows[0] <= i * PANEL and (i + 1) * PANEL <= rows[1]
                        within = within and columns[0] <= j * PANEL and (j + 2) * PANEL <= columns[1]
                        if within and not (alike and j <= i):
                            _offer_block(
                                block, first[0] + i * PANEL, first[1] + j * PANEL, both,
                                bias, ids, keep, share, margin, best, threshold, count, score, column, exact,
                            )  # fmt: skip
                        else:
                            _offer_part(
                                block, i, j, rows, columns, first, both, alike,
                                bias, ids, keep, share, margin, best, threshold, count, score, column, exact,
                            )  # fmt: skip
    release()


@uncounted
def _offer_part(  # type: ignore[no-untyped-def]
    block,
    i,
    j,
    rows,
    columns,
    first,
    both,
    alike,
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
    """Offer what is asked for of the products of panel i with panels j and j + 1."""
    top, bottom = max(rows[0], i * PANEL), min(rows[1], (i + 1) * PANEL)
    start, stop = max(columns[0], j * PANEL), min(columns[1], (j + 2) * PANEL)
    row = first[0] + top
    if alike:
        # A panel with itself serves its rows alone.
        begin, start = max(start, i * PANEL), min(max(start, (i + 1) * PANEL), stop)
        product = block[top - i * PANEL : bottom - i * PANEL, begin - j * PANEL : start - j * PANEL]
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
