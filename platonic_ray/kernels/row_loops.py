"""The inner loops over rows, compiled by numba (`jit`): canonical values, prepared rows, and what a search measures.

Plain torch does the same (`dot`, `prepare`, `frame`). All functions use one thread, so that callers run them side by
side on disjoint rows.
"""

from __future__ import annotations

import numpy as np

from platonic_ray.kernels.jit import compiled


@compiled
def bfloat16_of(bits):  # type: ignore[no-untyped-def]
    """Round a finite float32 to nearest, ties to even: the upper half of what is returned is the bfloat16."""
    return np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))


@compiled
def _folded(lanes):  # type: ignore[no-untyped-def]
    """Return the sum of 64 lanes, by halves; see `dot`."""
    half = 32
    while half:
        for lane in range(half):
            lanes[lane] += lanes[lane + half]
        half //= 2
    return lanes[0]


@compiled
def canonical_values(a, b, row, col, euclidean, out):  # type: ignore[no-untyped-def]
    """Put the canonical value of every pair (row of a, row of b) into `out`; see `dot`."""
    width = a.shape[1]
    whole = width - width % 64
    lanes = np.empty(64, np.float64)
    for pair in range(row.shape[0]):
        i, j = row[pair], col[pair]
        lanes[:] = 0.0
        if euclidean:
            for start in range(0, whole, 64):
                for lane in range(64):
                    difference = np.float64(a[i, start + lane]) - np.float64(b[j, start + lane])
                    lanes[lane] += difference * difference
            for lane in range(width - whole):
                difference = np.float64(a[i, whole + lane]) - np.float64(b[j, whole + lane])
                lanes[lane] += difference * difference
        else:
            for start in range(0, whole, 64):
                for lane in range(64):
                    lanes[lane] += np.float64(a[i, start + lane]) * np.float64(b[j, start + lane])
            for lane in range(width - whole):
                lanes[lane] += np.float64(a[i, whole + lane]) * np.float64(b[j, whole + lane])
        out[pair] = _folded(lanes)


@compiled
def _canonical_square(values):  # type: ignore[no-untyped-def]
    """Return the canonical dot of one row with itself; see `dot`."""
    width = values.shape[0]
    whole = width - width % 64
    lanes = np.zeros(64, np.float64)
    for start in range(0, whole, 64):
        for lane in range(64):
            value = np.float64(values[start + lane])
            lanes[lane] += value * value
    for lane in range(width - whole):
        value = np.float64(values[whole + lane])
        lanes[lane] += value * value
    return _folded(lanes)


@compiled
def unit_rows(rows, bound, out):  # type: ignore[no-untyped-def]
    """Put rows `[n, D] float32`, clamped to ± `bound` and divided by their norm, into `out`; see `prepare`."""
    wide = np.empty(rows.shape[1], np.float64)
    for i in range(rows.shape[0]):
        for at in range(rows.shape[1]):
            wide[at] = min(max(np.float64(rows[i, at]), -bound), bound)
        norm = np.sqrt(_canonical_square(wide))
        if norm == 0.0:
            norm = 1.0
        for at in range(rows.shape[1]):
            out[i, at] = np.float32(wide[at] / norm)


@compiled
def moved_rows(rows, scale, shift, out, squares):  # type: ignore[no-untyped-def]
    """Put rows `[n, D] float32` times `scale` less `shift` `[D]` into `out`, in float32, and their ‖·‖²."""
    for i in range(rows.shape[0]):
        for at in range(rows.shape[1]):
            out[i, at] = rows[i, at] * scale - shift[at]
        squares[i] = _canonical_square(out[i])


@compiled
def centered_rows(rows, center, low, bias_with_center, squares, lost, biases):  # type: ignore[no-untyped-def]
    """Measure rows `[n, D] float32` less a center: ‖u‖², what bfloat16 loses of it ‖u − û‖², and u·u or u·center.

    Sums are of float64, in 16 lanes.

    :param low: whether `lost` is wanted; else it stays as it is.
    """
    width = rows.shape[1]
    padded = -(-width // 16) * 16
    wide, rounded = np.zeros(padded, np.float32), np.zeros(padded, np.float32)
    with_what = np.zeros(padded, np.float32)
    bits, rounded_bits = wide.view(np.uint32), rounded.view(np.uint32)
    if bias_with_center:
        with_what[:width] = center
    square, loss, bias = np.empty(16, np.float64), np.empty(16, np.float64), np.empty(16, np.float64)
    for i in range(rows.shape[0]):
        for at in range(width):
            wide[at] = rows[i, at] - center[at]
        if low:
            for at in range(width):
                rounded_bits[at] = bfloat16_of(bits[at]) & np.uint32(0xFFFF0000)
        square[:] = 0.0
        loss[:] = 0.0
        bias[:] = 0.0
        for start in range(0, padded, 16):
            for lane in range(16):
                value = np.float64(wide[start + lane])
                square[lane] += value * value
            if bias_with_center:
                for lane in range(16):
                    bias[lane] += np.float64(wide[start + lane]) * np.float64(with_what[start + lane])
            if low:
                for lane in range(16):
                    off = np.float64(wide[start + lane]) - np.float64(rounded[start + lane])
                    loss[lane] += off * off
        squares[i] = square.sum()
        biases[i] = bias.sum() if bias_with_center else squares[i]
        if low:
            lost[i] = loss.sum()
