"""The compiled loops of `native`, where numba is installed; whoever asks has a way of plain torch as well."""

from __future__ import annotations

from functools import cache

from torch import Tensor

_LEAST = 2**18  # values: for fewer, numba is not loaded


@cache
def native():  # type: ignore[no-untyped-def]
    """Return the compiled loops, None where there is no numba."""
    try:
        from platonic_ray.kernels import native as compiled
    except ImportError:
        return None
    return compiled


def worth_compiling(rows: Tensor) -> bool:
    """Whether rows are where compiled loops can read them, and so many that these pay."""
    return rows.device.type == "cpu" and rows.numel() >= _LEAST and rows.is_contiguous()
