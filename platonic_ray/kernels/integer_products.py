"""Products of rows rounded to 16-bit integers, for processors that multiply these faster than float32.

x86 multiplies 16 pairs of int16 and adds neighbors in the time of 8 float32 multiply-adds (`vpmaddwd`; twice
as many each with AVX-512), and did so long before it had units for bfloat16. Sums are exact where norms are
below 2¹⁵·⁵: |q · r| ≤ ‖q‖ ‖r‖ < 2³¹ holds of every part of the columns too (Cauchy–Schwarz), so that nothing
overflows on the way, and the order of summation changes nothing. `frame` scales rows so, and bounds what
rounding them does.

Rows are packed as matrix libraries do it (Goto & van de Geijn 2008): panels of rows, pairs of columns next
to each other, so that the innermost loop reads in order, and a block of the result stays in registers
while it runs. That loop is written for LLVM, which numba brings: compiled Python would not hold the block.
"""

from __future__ import annotations

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

from platonic_ray.kernels.jit import compiled

_LANES = 16 if binding.get_host_cpu_features().get("avx512bw") else 8  # int32 in a register
_ROWS, _VECTORS = 6, 2  # of the block that stays in registers, with 16 of which AVX2 does
_COLUMNS = _LANES * _VECTORS
_PAIRS = 256  # pairs of columns at a time: a panel of these is half of the smallest L1 cache
_PANELS = 16  # panels of rows that stay in L2 while panels of columns go by

_I16, _I32, _FLOAT = ir.IntType(16), ir.IntType(32), ir.FloatType()
_INTS, _FLOATS = ir.VectorType(_I32, _LANES), ir.VectorType(_FLOAT, _LANES)
_SHORTS, _WIDE = ir.VectorType(_I16, 2 * _LANES), ir.VectorType(_I32, 2 * _LANES)


def _block(first: bool, last: bool):  # type: ignore[no-untyped-def]
    """Return what multiplies a panel of rows by one of columns: `block(a, b, out, pairs, stride, scale)`.

    Addresses of `a` `[pairs, rows]` and `b` `[pairs, columns]`, of int32 that are two int16 each, and of the
    first cell of `out` `[rows, columns]`, whose rows are `stride` apart. Sums stay in `out` as int32 until
    the last pairs of columns, and become float32 times `scale` then.

    :param first: whether sums start at zero.
    """

    @intrinsic
    def block(context, a, b, out, pairs, stride, scale):  # type: ignore[no-untyped-def]
        integer = types.intp
        signature = types.void(integer, integer, integer, integer, integer, types.float32)
        return signature, generate

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        a, b, out, pairs, stride, scale = arguments
        index = pairs.type
        zero, one = ir.Constant(index, 0), ir.Constant(index, 1)
        rows_at = builder.inttoptr(a, _I32.as_pointer())
        columns_at = builder.inttoptr(b, _INTS.as_pointer())
        cells = [(row, vector) for row in range(_ROWS) for vector in range(_VECTORS)]

        def address(cell, kind):  # type: ignore[no-untyped-def]
            row, vector = cell
            at = builder.add(
                builder.mul(stride, ir.Constant(index, row)), ir.Constant(index, vector * _LANES)
            )
            return builder.inttoptr(
                builder.add(out, builder.mul(at, ir.Constant(index, 4))), kind.as_pointer()
            )

        start = {
            cell: ir.Constant(_INTS, None) if first else builder.load(address(cell, _INTS), align=4)
            for cell in cells
        }
        before, loop, after = builder.block, *(builder.append_basic_block(name) for name in ("pairs", "done"))
        builder.branch(loop)
        builder.position_at_end(loop)
        pair = builder.phi(index)
        pair.add_incoming(zero, before)
        held = {cell: builder.phi(_INTS) for cell in cells}
        columns = []
        for vector in range(_VECTORS):
            at = builder.add(builder.mul(pair, ir.Constant(index, _VECTORS)), ir.Constant(index, vector))
            loaded = builder.load(builder.gep(columns_at, [at]), align=4)
            columns.append(builder.sext(builder.bitcast(loaded, _SHORTS), _WIDE))
        sums = {}
        for row in range(_ROWS):
            at = builder.add(builder.mul(pair, ir.Constant(index, _ROWS)), ir.Constant(index, row))
            both = _everywhere(builder, builder.load(builder.gep(rows_at, [at])), _INTS)
            both = builder.sext(builder.bitcast(both, _SHORTS), _WIDE)
            for vector in range(_VECTORS):
                # LLVM knows a multiply-add of neighbors, and the processor's own instruction for it, by this form.
                products = builder.mul(both, columns[vector])
                even, odd = (_every_second(builder, products, lane) for lane in (0, 1))
                sums[row, vector] = builder.add(held[row, vector], builder.add(even, odd))
        following = builder.add(pair, one)
        pair.add_incoming(following, loop)
        for cell in cells:
            held[cell].add_incoming(start[cell], before)
            held[cell].add_incoming(sums[cell], loop)
        builder.cbranch(builder.icmp_signed("<", following, pairs), loop, after)
        builder.position_at_end(after)
        scales = _everywhere(builder, scale, _FLOATS)
        for cell in cells:
            if last:
                scaled = builder.fmul(builder.sitofp(sums[cell], _FLOATS), scales)
                builder.store(scaled, address(cell, _FLOATS), align=4)
            else:
                builder.store(sums[cell], address(cell, _INTS), align=4)
        return context.get_dummy_value()

    return block


def _everywhere(builder, value, kind):  # type: ignore[no-untyped-def]
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_INTS, [0] * _LANES))


def _every_second(builder, values, start):  # type: ignore[no-untyped-def]
    which = ir.Constant(_INTS, [2 * lane + start for lane in range(_LANES)])
    return builder.shuffle_vector(values, ir.Constant(_WIDE, ir.Undefined), which)


_only, _begin, _go_on, _end = (
    _block(first, last) for first, last in ((True, True), (True, False), (False, False), (False, True))
)


@compiled
def _packed(pairs, start, stop, size):  # type: ignore[no-untyped-def]
    """Return pairs `start` to `stop` of columns `[n, ·] int32` of all rows as `[⌈n / size⌉, stop − start, size]`."""
    n = pairs.shape[0]
    panels = -(-n // size)
    packed = np.empty((panels, stop - start, size), np.int32)
    for panel in range(panels):
        for row in range(size):
            source = panel * size + row
            if source < n:
                for pair in range(start, stop):
                    packed[panel, pair - start, row] = pairs[source, pair]
            else:
                for pair in range(start, stop):
                    packed[panel, pair - start, row] = 0
    return packed


@compiled
def _multiply(a, b, out, pairs, stride, scale, first, last):  # type: ignore[no-untyped-def]
    if first and last:
        _only(a, b, out, pairs, stride, scale)
    elif first:
        _begin(a, b, out, pairs, stride, scale)
    elif last:
        _end(a, b, out, pairs, stride, scale)
    else:
        _go_on(a, b, out, pairs, stride, scale)


# Addresses keep nothing alive: whoever takes one is handed the array by a caller that holds it.


@compiled
def _inside(a, b, out, scale, first, last):  # type: ignore[no-untyped-def]
    """Go over the blocks that lie whole within `out`, of packed rows and columns."""
    m, n, pairs = out.shape[0], out.shape[1], a.shape[1]
    of_a, of_b = 4 * pairs * _ROWS, 4 * pairs * _COLUMNS
    a_at, b_at, to = a.ctypes.data, b.ctypes.data, out.ctypes.data
    for some in range(0, m // _ROWS, _PANELS):
        for j in range(n // _COLUMNS):
            for i in range(some, min(some + _PANELS, m // _ROWS)):
                cell = to + 4 * (i * _ROWS * n + j * _COLUMNS)
                _multiply(a_at + i * of_a, b_at + j * of_b, cell, pairs, n, scale, first, last)


@compiled
def _at_the_edge(a, b, blocks, scale, first, last):  # type: ignore[no-untyped-def]
    """Go over the blocks in `blocks` `[i, j, rows, columns]`, the last of each row or column of blocks."""
    pairs = a.shape[1]
    of_a, of_b, size = 4 * pairs * _ROWS, 4 * pairs * _COLUMNS, 4 * _ROWS * _COLUMNS
    a_at, b_at, to = a.ctypes.data, b.ctypes.data, blocks.ctypes.data
    first_a, first_b = a.shape[0] - blocks.shape[0], b.shape[0] - blocks.shape[1]
    for i in range(blocks.shape[0]):
        for j in range(blocks.shape[1]):
            cell = to + (i * blocks.shape[1] + j) * size
            of_i, of_j = a_at + (first_a + i) * of_a, b_at + (first_b + j) * of_b
            _multiply(of_i, of_j, cell, pairs, _COLUMNS, scale, first, last)


@compiled
def _copy(blocks, row, column, out):  # type: ignore[no-untyped-def]
    """Copy what of `blocks` lies within `out`, from (row, column) on."""
    for i in range(blocks.shape[0]):
        for r in range(min(_ROWS, out.shape[0] - row - i * _ROWS)):
            for j in range(blocks.shape[1]):
                for c in range(min(_COLUMNS, out.shape[1] - column - j * _COLUMNS)):
                    out[row + i * _ROWS + r, column + j * _COLUMNS + c] = blocks[i, j, r, c]


@compiled
def integer_products(left, right, scale, out):  # type: ignore[no-untyped-def]
    """Put the products of rows, times `scale`, into `out` `[m, n] float32`.

    :param left: `[m, P] int32`, rows whose every int32 is two int16 (columns 2 p and 2 p + 1).
    :param right: `[n, P] int32`.
    """
    m, n, width = left.shape[0], right.shape[0], left.shape[1]
    rows, columns = -(-m // _ROWS), -(-n // _COLUMNS)
    # What is over below and at the right goes by way of whole blocks of its own.
    below = np.empty((min(m % _ROWS, 1), columns, _ROWS, _COLUMNS), np.float32)
    right_of = np.empty((rows, min(n % _COLUMNS, 1), _ROWS, _COLUMNS), np.float32)
    for start in range(0, width, _PAIRS):
        stop = min(start + _PAIRS, width)
        first, last = start == 0, stop == width
        a, b = _packed(left, start, stop, _ROWS), _packed(right, start, stop, _COLUMNS)
        _inside(a, b, out, scale, first, last)
        _at_the_edge(a, b, below, scale, first, last)
        _at_the_edge(a, b, right_of, scale, first, last)
    _copy(below, m - m % _ROWS, 0, out)
    _copy(right_of, 0, n - n % _COLUMNS, out)
