"""Products of bfloat16 on a processor's matrix units (AMX), offered to candidates while they are in L1.

An AMX unit multiplies 16 × 32 by 32 × 16 numbers of bfloat16 and adds up in float32, 16 times as many operations a
cycle as AVX-512 has of float32. What is made so fast must not go by way of memory: a block of 32 × 64 products
is filtered, for the queries on both sides of it, as soon as it is there, and never stored elsewhere.

Rows come as panels of 32, cut into steps of 32 columns, each of two halves of 16 rows: 1 KiB apiece, the size of a
register, in the layout of a left and of a right factor. They begin at multiples of 64 bytes: loads of registers from
elsewhere take ten times as long (measured on an Emerald Rapids core: 3 ns and 20–30 ns).

Bound, measured on that core: 2.7 TFLOP/s (a product of registers in 16 cycles, four of them for four loads). Panels
of wide rows come from L2, at a third of that.

Intel, Architecture Instruction Set Extensions Programming Reference, chapter 3: TILELOADD, TDPBF16PS, LDTILECFG.
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from platonic_ray.kernels.native import (
    RUN,
    bfloat16_of,
    compiled,
    offer_columns,
    offer_rows,
    possible_of_columns,
    possible_of_row,
    take,
)

PANEL = 32
"""Rows of a panel, and columns of a step."""

_HALF = 16  # rows of a register; its columns are as many pairs of bfloat16, 64 bytes
_REGISTER = 1024  # bytes
_STEP = 2 * _REGISTER
_NEAR = 2**19  # bytes of right panels that stay in L2 while left panels go by
_LEFT, _RIGHT = 4, 6  # the first two registers of each factor; those of the sums are 0 to 3

_BYTE, _INT, _VOID = ir.IntType(8), ir.IntType(64), ir.VoidType()
_AT = _BYTE.as_pointer()

# Palette 1: all eight registers have 16 rows of 64 bytes.
PALETTE = np.zeros(64, np.uint8)
PALETTE[0] = 1
PALETTE[16:32].view(np.uint16)[:] = 64
PALETTE[48:56] = _HALF


@cache
def permitted() -> bool:
    """Ask Linux for the use of matrix units by this process; return whether it has it."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    call, request, tile_data = 158, 0x1023, 18  # arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return ctypes.CDLL(None).syscall(call, request, tile_data) == 0


def panels_of(count: int, width: int, parts: int = 1) -> Tensor:
    """Return room for rows as panels, `[panels, parts · steps, 2, 16, 16] int32` of two bfloat16 each."""
    # Memory of torch's begins at a multiple of 64 bytes, NumPy's does not.
    return torch.empty((-(-count // PANEL), parts * -(-width // PANEL), 2, _HALF, _HALF), dtype=torch.int32)


def fill(
    panels: Tensor, start: int, rows: Tensor, center: Tensor, digits: tuple[int, ...], right: bool
) -> None:
    """Set panels to rows `[r, D] float32`, less a center, from row `start` on, a multiple of `PANEL`.

    :param digits: what each part of the panels holds: 0 the rows in bfloat16, 1 what that leaves of them, in bfloat16.
    :param right: whether the panels are of a right factor.
    """
    first = start // PANEL
    some = panels[first : first - (-rows.shape[0] // PANEL)]
    _fill(rows.numpy(), center.numpy(), np.array(digits), right, some.numpy())


def _function(builder, name, result, *arguments):  # type: ignore[no-untyped-def]
    module = builder.module
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, arguments), name)


@intrinsic
def _configure(context, palette):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        load = _function(builder, "llvm.x86.ldtilecfg", _VOID, _AT)
        builder.call(load, [builder.inttoptr(arguments[0], _AT)])
        return context.get_dummy_value()

    return types.void(types.intp), generate


@intrinsic
def _release(context):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        builder.call(_function(builder, "llvm.x86.tilerelease", _VOID), [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def _multiply(context, left, right, out, steps, stride):  # type: ignore[no-untyped-def]
    """Put the products `[32, 32] float32` of two panels at `out`, whose rows are `stride` bytes apart; of addresses."""
    integer = types.intp
    return types.void(integer, integer, integer, integer, integer), _generate


def _generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
    left, right, out, steps, stride = arguments
    zero = _function(builder, "llvm.x86.tilezero", _VOID, _BYTE)
    load = _function(builder, "llvm.x86.tileloadd64", _VOID, _BYTE, _AT, _INT)
    store = _function(builder, "llvm.x86.tilestored64", _VOID, _BYTE, _AT, _INT)
    product = _function(builder, "llvm.x86.tdpbf16ps", _VOID, _BYTE, _BYTE, _BYTE)

    def register(number):  # type: ignore[no-untyped-def]
        return ir.Constant(_BYTE, number)

    def number(value):  # type: ignore[no-untyped-def]
        return ir.Constant(_INT, value)

    def get(which, panel, step, half):  # type: ignore[no-untyped-def]
        at = builder.add(panel, builder.add(builder.mul(step, number(_STEP)), number(half * _REGISTER)))
        builder.call(load, [register(which + half), builder.inttoptr(at, _AT), number(64)])

    def add(a, b):  # type: ignore[no-untyped-def]
        builder.call(product, [register(2 * a + b), register(_LEFT + a), register(_RIGHT + b)])

    for each in range(4):
        builder.call(zero, [register(each)])
    before, loop, after = builder.block, *(builder.append_basic_block(name) for name in ("step", "done"))
    builder.branch(loop)
    builder.position_at_end(loop)
    step = builder.phi(_INT)
    step.add_incoming(number(0), before)
    # A product waits for its loads alone: the next loads go on beside it.
    get(_LEFT, left, step, 0)
    get(_RIGHT, right, step, 0)
    add(0, 0)
    get(_RIGHT, right, step, 1)
    add(0, 1)
    get(_LEFT, left, step, 1)
    add(1, 0)
    add(1, 1)
    following = builder.add(step, number(1))
    step.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, steps), loop, after)
    builder.position_at_end(after)
    for a in range(2):
        for b in range(2):
            to = builder.add(out, builder.add(builder.mul(stride, number(_HALF * a)), number(64 * b)))
            builder.call(store, [register(2 * a + b), builder.inttoptr(to, _AT), stride])
    return context.get_dummy_value()


@compiled
def _fill(rows, center, digits, right, panels):  # type: ignore[no-untyped-def]
    """Put rows less a center into panels, in bfloat16; rows and columns that are not there are zero. See `fill`."""
    width, steps = rows.shape[1], panels.shape[1] // digits.shape[0]
    split = digits.max() > 0
    wide, rounded = np.zeros(steps * PANEL, np.float32), np.zeros(steps * PANEL, np.float32)
    bits, rounded_bits = wide.view(np.uint32), rounded.view(np.uint32)
    halves = np.zeros((2, _HALF, steps * PANEL), np.uint16)  # of 16 rows, by digit
    pairs = halves.view(np.int32)
    for panel in range(panels.shape[0]):
        for half in range(2):
            for row in range(_HALF):
                source = (2 * panel + half) * _HALF + row
                if source >= rows.shape[0]:
                    halves[:, row] = 0
                    continue
                for at in range(width):
                    wide[at] = rows[source, at] - center[at]
                for at in range(width):
                    rounded_bits[at] = bfloat16_of(bits[at]) & np.uint32(0xFFFF0000)
                for at in range(width):
                    halves[0, row, at] = np.uint16(rounded_bits[at] >> np.uint32(16))
                if split:
                    for at in range(width):
                        wide[at] -= rounded[at]  # exact
                    for at in range(width):
                        halves[1, row, at] = np.uint16(bfloat16_of(bits[at]) >> np.uint32(16))
            for part in range(digits.shape[0]):
                for step in range(steps):
                    register = panels[panel, part * steps + step, half]
                    if right:
                        for pair in range(_HALF):
                            for row in range(_HALF):
                                register[pair, row] = pairs[digits[part], row, step * _HALF + pair]
                    else:
                        for row in range(_HALF):
                            for pair in range(_HALF):
                                register[row, pair] = pairs[digits[part], row, step * _HALF + pair]


@compiled
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
    heap,
    threshold,
    count,
    score,
    column,
):
    """Offer a whole block, whose first cell is that of rows (row, col) of the search.

    As `native.offer_rows` and `offer_columns`, by addresses alone: what numba does to keep arrays alive takes
    longer than a block.
    """
    at, biases, thresholds = block.ctypes.data, bias.ctypes.data, threshold.ctypes.data
    for i in range(PANEL):
        r, products = row + i, at + 4 * RUN * i
        found = possible_of_row(products, biases + 4 * col, thresholds + 4 * r)
        if found:
            take(
                found, block, i, 0, r, 0, col, 1,
                bias, ids, keep, share, margin, heap, threshold, count, score, column,
            )  # fmt: skip
        found = possible_of_columns(products, biases + 4 * r, thresholds + 4 * col) if both else np.uint64(0)
        if found:
            take(
                found, block, i, 0, col, 1, r, 0,
                bias, ids, keep, share, margin, heap, threshold, count, score, column,
            )  # fmt: skip


@compiled
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
    heap,
    threshold,
    count,
    score,
    column,
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
    _configure(palette.ctypes.data)  # type: ignore[call-arg]
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
                    _multiply(left_at + i * of_panel, right_at + (j + part) * of_panel, to, steps, stride)
                start, stop = max(columns[0], j * PANEL), min(columns[1], (j + wide) * PANEL)
                row = first[0] + top
                if stop - start == RUN and bottom - top == PANEL and not (alike and j <= i):
                    _offer_block(
                        block, row, first[1] + start, both,
                        bias, ids, keep, share, margin, heap, threshold, count, score, column,
                    )  # fmt: skip
                    continue
                if alike:
                    begin, start = max(start, i * PANEL), min(max(start, (i + 1) * PANEL), stop)
                    product = block[
                        top - i * PANEL : bottom - i * PANEL, begin - j * PANEL : start - j * PANEL
                    ]
                    offer_rows(
                        product, 0, bottom - top, row, first[1] + begin,
                        bias, ids, keep, share, margin, heap, threshold, count, score, column,
                    )  # fmt: skip
                product = block[top - i * PANEL : bottom - i * PANEL, start - j * PANEL : stop - j * PANEL]
                offer_rows(
                    product, 0, bottom - top, row, first[1] + start,
                    bias, ids, keep, share, margin, heap, threshold, count, score, column,
                )  # fmt: skip
                if both:
                    offer_columns(
                        product, 0, stop - start, row, first[1] + start,
                        bias, ids, keep, share, margin, heap, threshold, count, score, column,
                    )  # fmt: skip
    _release()
