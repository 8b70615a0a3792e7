"""How inner loops are compiled: by numba, for one thread, without the interpreter's lock, and kept on disk."""

from __future__ import annotations

import zlib
from pathlib import Path

from numba import njit

_CALLED = ("filters", "jit", "native", "row_loops", "tiles")  # modules of which others have functions
_SOURCE = zlib.crc32(b"".join(Path(__file__).with_name(f"{name}.py").read_bytes() for name in _CALLED))


def compiled(function, counted=True, **options):  # type: ignore[no-untyped-def]
    """Compile a function when it is first called, and keep it on disk where that can be written to.

    What is kept has all in it that the function calls, and numba asks of the function's own file alone whether it
    has changed. So the content of all files that others call is part of the name.

    :param counted: whether references to arrays are counted; a function that makes arrays must do it.
    """
    function.__qualname__ += f"_{_SOURCE:08x}"
    options |= {"nogil": True} if counted else {"nogil": True, "_nrt": False}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # there is no folder that could be written to
        return njit(**options)(function)


def uncounted(function):  # type: ignore[no-untyped-def]
    """Compile a function that makes no array and returns none.

    Counting is two atomic additions of every array in every call, in memory that all threads share: it took longer
    than a block of products.
    """
    return compiled(function, counted=False)
