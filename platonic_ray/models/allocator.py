"""What is freed stays with its process for what comes next, instead of going back to the system and coming anew.

glibc gives back what is free beyond twice the largest block that it has seen, and beyond less in threads; the
system then clears each page at its next use. Between the operations of EfficientNet-lite0 that were 3,600 page
faults an image, and a fifth to a quarter of its time; 3,000 to 7,000 a tile of neighbors.

What that size is, and with it where blocks come from, changes as blocks are freed, and a worker's memory grew with
the number of its tasks. Fixed from the start, memory is what the largest tasks take after the first few.
"""

from __future__ import annotations

import contextlib
import ctypes

_KEPT_BYTES = 256 << 20
_LARGEST_BYTES = 32 << 20  # the largest block that glibc takes from its heap
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed_memory(kept_bytes: int = _KEPT_BYTES) -> bool:
    """Let the C library keep up to `kept_bytes` of freed memory, of blocks of 32 MiB at most, in all of this process.

    Returns False where the library is not glibc: nothing is changed then.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 (others have none, whatever their mallopt means)
        kept = library.mallopt(_TRIM_THRESHOLD, kept_bytes)
        return bool(kept and library.mallopt(_MMAP_THRESHOLD, _LARGEST_BYTES))
    return False
