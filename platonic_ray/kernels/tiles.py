"""The instructions of matrix units (AMX), written for LLVM, and products of two panels made of them.

A register has 16 rows of 64 bytes. Intel, Architecture Instruction Set Extensions Programming Reference, chapter 3:
LDTILECFG, TILELOADD, TILESTORED, TDPBF16PS.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types

intrinsic: Any = extending.intrinsic  # by its type a caller would pass the context as well

HALF = 16
"""Rows of a register; of a factor its columns are as many pairs of bfloat16."""

REGISTER = 1024
"""Bytes of a register."""

_LEFT, _RIGHT = 4, 6  # the first two registers of each factor; those of the sums are 0 to 3
_BYTE, _INT, _VOID = ir.IntType(8), ir.IntType(64), ir.VoidType()
_AT = _BYTE.as_pointer()

# Palette 1: all eight registers have 16 rows of 64 bytes.
PALETTE = np.zeros(64, np.uint8)
PALETTE[0] = 1
PALETTE[16:32].view(np.uint16)[:] = 64
PALETTE[48:56] = HALF


def _function(builder, name, result, *arguments):  # type: ignore[no-untyped-def]
    module = builder.module
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, arguments), name)


@intrinsic
def configure(context, palette):  # type: ignore[no-untyped-def]
    """Set registers up as the palette at an address says."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        load = _function(builder, "llvm.x86.ldtilecfg", _VOID, _AT)
        builder.call(load, [builder.inttoptr(arguments[0], _AT)])
        return context.get_dummy_value()

    return types.void(types.intp), generate


@intrinsic
def release(context):  # type: ignore[no-untyped-def]
    """Give the registers back."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        builder.call(_function(builder, "llvm.x86.tilerelease", _VOID), [])
        return context.get_dummy_value()

    return types.void(), generate


def _products(begun: bool):  # type: ignore[no-untyped-def]
    """Return what puts the products `[32, 32] float32` of some steps of two panels at `out`; or, if begun, adds them.

    `products(left, right, out, steps, stride)`, of addresses; rows at `out` are `stride` bytes apart.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
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
            offset = builder.add(builder.mul(step, number(2 * REGISTER)), number(half * REGISTER))
            at = builder.inttoptr(builder.add(panel, offset), _AT)
            builder.call(load, [register(which + half), at, number(64)])

        def add(a, b):  # type: ignore[no-untyped-def]
            builder.call(product, [register(2 * a + b), register(_LEFT + a), register(_RIGHT + b)])

        def place(a, b):  # type: ignore[no-untyped-def]
            to = builder.add(out, builder.add(builder.mul(stride, number(HALF * a)), number(64 * b)))
            return [register(2 * a + b), builder.inttoptr(to, _AT), stride]

        quarters = [(a, b) for a in range(2) for b in range(2)]
        for a, b in quarters:
            if begun:
                builder.call(load, place(a, b))
            else:
                builder.call(zero, [register(2 * a + b)])
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
        for a, b in quarters:
            builder.call(store, place(a, b))
        return context.get_dummy_value()

    @intrinsic
    def products(context, left, right, out, steps, stride):  # type: ignore[no-untyped-def]
        return types.void(*[types.intp] * 5), generate

    return products


put_products, add_products = _products(False), _products(True)
