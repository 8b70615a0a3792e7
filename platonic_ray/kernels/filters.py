"""What marks, of products in the cache, the proposals that reach their thresholds: written for LLVM.

Of compiled Python LLVM makes neither a comparison of 16 numbers nor bits of its outcome. All arguments are
addresses: of products, biases and thresholds, `float32`; all that is returned are 64 bits, the lowest of the first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import extending, types

intrinsic: Any = extending.intrinsic  # by its type a caller would pass the context as well

RUN = 64
"""Proposals that are compared before any is looked at, the bits of a number."""

PANEL = 32
"""Rows of a block of `RUN` columns."""

_LANES = 16 if binding.get_host_cpu_features().get("avx512f") else 8  # numbers that are compared at a time
_BITS, _INDEX, _NUMBER = ir.IntType(64), ir.IntType(32), ir.FloatType()
_NUMBERS = ir.VectorType(_NUMBER, _LANES)


def _load(builder, address, place, kind=_NUMBERS):  # type: ignore[no-untyped-def]
    """Return the number or numbers at a place counted from an address."""
    at = builder.add(address, ir.Constant(_BITS, 4 * place))
    return builder.load(builder.inttoptr(at, kind.as_pointer()), align=4)


def _spread(builder, address):  # type: ignore[no-untyped-def]
    """Return the number at an address in every lane."""
    first = builder.insert_element(
        ir.Constant(_NUMBERS, ir.Undefined), _load(builder, address, 0, _NUMBER), ir.Constant(_INDEX, 0)
    )
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(_INDEX, _LANES), None))


def _reaching(builder, scores, thresholds):  # type: ignore[no-untyped-def]
    """Return a bit for each lane whose score is the threshold or more."""
    return builder.bitcast(builder.fcmp_ordered(">=", scores, thresholds), ir.IntType(_LANES))


def _with(builder, found, part, place):  # type: ignore[no-untyped-def]
    """Return the bits found, and those of a part that begins at a place."""
    return builder.or_(found, builder.shl(builder.zext(part, _BITS), ir.Constant(_BITS, place)))


def _larger(builder, a, b):  # type: ignore[no-untyped-def]
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


@intrinsic
def lowest(context, bits):  # type: ignore[no-untyped-def]
    """Return the place of the lowest bit that is set, of one that is not zero."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@intrinsic
def possible_of_row(context, products, biases, threshold):  # type: ignore[no-untyped-def]
    """Mark a run of products of one query, each with the bias of its own row of the gallery."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        products, biases, threshold = arguments
        least, found = _spread(builder, threshold), ir.Constant(_BITS, 0)
        for lane in range(0, RUN, _LANES):
            scores = builder.fadd(_load(builder, products, lane), _load(builder, biases, lane))
            found = _with(builder, found, _reaching(builder, scores, least), lane)
        return found

    return types.uint64(*[types.intp] * 3), generate


@intrinsic
def possible_of_columns(context, products, bias, thresholds):  # type: ignore[no-untyped-def]
    """Mark a run of products of as many queries with one row of the gallery."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        products, bias, thresholds = arguments
        added, found = _spread(builder, bias), ir.Constant(_BITS, 0)
        for lane in range(0, RUN, _LANES):
            scores = builder.fadd(_load(builder, products, lane), added)
            found = _with(builder, found, _reaching(builder, scores, _load(builder, thresholds, lane)), lane)
        return found

    return types.uint64(*[types.intp] * 3), generate


@intrinsic
def possible_of_column(context, products, biases, threshold):  # type: ignore[no-untyped-def]
    """Mark the `PANEL` products of one query that are one below another in a block of `RUN` columns."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        products, biases, threshold = arguments
        least, found = _spread(builder, threshold), ir.Constant(_BITS, 0)
        for start in range(0, PANEL, _LANES):
            scores = ir.Constant(_NUMBERS, ir.Undefined)
            for lane in range(_LANES):
                number = _load(builder, products, RUN * (start + lane), _NUMBER)
                scores = builder.insert_element(scores, number, ir.Constant(_INDEX, lane))
            scores = builder.fadd(scores, _load(builder, biases, start))
            found = _with(builder, found, _reaching(builder, scores, least), start)
        return found

    return types.uint64(*[types.intp] * 3), generate


def _possible_in_block(both: bool):  # type: ignore[no-untyped-def]
    """Return what marks the rows, and if `both` the columns, that hold any proposal which reaches its threshold.

    It goes over a block `[PANEL, RUN]` once. What it holds in registers meanwhile are the columns' biases and, of
    each column, the highest score: one comparison at the end stands for one a row, as one stands for a whole row.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        products, biases, thresholds, column_biases, column_thresholds = arguments
        zero, lanes = ir.Constant(_BITS, 0), range(0, RUN, _LANES)
        added = [_load(builder, column_biases, lane) for lane in lanes]
        before, loop, after = builder.block, *(builder.append_basic_block(name) for name in ("row", "done"))
        builder.branch(loop)
        builder.position_at_end(loop)
        row, rows, *highest = [
            builder.phi(kind) for kind in (_BITS, _BITS, *[_NUMBERS] * (len(lanes) * both))
        ]
        numbers = [
            _load(builder, builder.add(products, builder.mul(row, ir.Constant(_BITS, 4 * RUN))), lane)
            for lane in lanes
        ]
        at = builder.mul(row, ir.Constant(_BITS, 4))
        scores = [builder.fadd(number, bias) for number, bias in zip(numbers, added, strict=True)]
        while len(scores) > 1:
            scores = [_larger(builder, a, b) for a, b in zip(scores[::2], scores[1::2], strict=True)]
        reaching = _reaching(builder, scores[0], _spread(builder, builder.add(thresholds, at)))
        any_there = builder.zext(builder.icmp_unsigned("!=", reaching, ir.Constant(reaching.type, 0)), _BITS)
        found = builder.or_(rows, builder.shl(any_there, row))
        following = builder.add(row, ir.Constant(_BITS, 1))
        own = _spread(builder, builder.add(biases, at))
        higher = [
            _larger(builder, builder.fadd(number, own), old)
            for number, old in zip(numbers, highest, strict=False)
        ]
        least = ir.Constant(_NUMBERS, [-np.inf] * _LANES)
        for kept, first, now in zip(
            (row, rows, *highest),
            (zero, zero, *[least] * len(highest)),
            (following, found, *higher),
            strict=True,
        ):
            kept.add_incoming(first, before)
            kept.add_incoming(now, loop)
        builder.cbranch(builder.icmp_unsigned("<", following, ir.Constant(_BITS, PANEL)), loop, after)
        builder.position_at_end(after)
        columns = zero
        for lane, score in zip(lanes, higher, strict=False):
            part = _reaching(builder, score, _load(builder, column_thresholds, lane))
            columns = _with(builder, columns, part, lane)
        return context.make_tuple(builder, signature.return_type, (found, columns))

    @intrinsic
    def possible(context, products, biases, thresholds, column_biases, column_thresholds):  # type: ignore[no-untyped-def]
        return types.UniTuple(types.uint64, 2)(*[types.intp] * 5), generate

    return possible


possible_in_block, possible_in_rows = _possible_in_block(True), _possible_in_block(False)
