"""Compiled loops, where numba is installed; whoever asks has a way of plain torch as well."""

from __future__ import annotations

import platform
from functools import cache

from torch import Tensor

LEAST = 2**17  # numbers to go through: for fewer, numba is not loaded


@cache
def native():  # type: ignore[no-untyped-def]
    """Return the compiled loops of the tile engine, None where there is no numba."""
    try:
        from platonic_ray.kernels import native as compiled
    except ImportError:
        return None
    return compiled


@cache
def integer_products():  # type: ignore[no-untyped-def]
    """Return the products of 16-bit integers where they are faster than those of float32, else None."""
    if native() is None or platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    from llvmlite.binding import get_host_cpu_features

    if not get_host_cpu_features().get("avx2"):
        return None
    from platonic_ray.kernels.integer_products import integer_products as products

    return products


@cache
def matrix_units():  # type: ignore[no-untyped-def]
    """Return the products on matrix units where this processor has them and the system lets us, else None."""
    if native() is None:
        return None
    from llvmlite.binding import get_host_cpu_features

    features = get_host_cpu_features()
    if not (features.get("amx-tile") and features.get("amx-bf16")):
        return None
    from platonic_ray.kernels import matrix_units as units

    return units if units.permitted() else None


def loops_for(rows: Tensor, size: int):  # type: ignore[no-untyped-def]
    """Return the compiled loops over rows where they can read these and `size` numbers make them pay, else None."""
    if native() is None or rows.device.type != "cpu" or not rows.is_contiguous() or size < LEAST:
        return None
    from platonic_ray.kernels import row_loops

    return row_loops
