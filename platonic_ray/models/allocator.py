"""What becomes of freed memory: a model's process keeps it for the next batch, a task's worker gives it back.

glibc gives back what is free beyond twice the largest block that it has seen, and beyond less in threads; the
system then clears each page at its next use. Between the operations of EfficientNet-lite0 that were 3,600 page
faults an image, and a fifth to a quarter of its time.

Tasks on tiles take a few blocks of many MiB, of sizes that differ from task to task. Once one of these has been
freed, glibc takes blocks of up to 32 MiB from its heap, where what is freed between others is not given back and
seldom fits the next: a worker's memory grew with the number of its tasks.
"""

from __future__ import annotations

import contextlib
import ctypes

_KEPT_BYTES = 256 << 20
_LARGEST_BYTES = 32 << 20  # the largest block that glibc takes from its heap
_ALONE_BYTES = 4 << 20  # from so many on numpy asks for huge pages, which take few faults to clear
_FREE_BYTES = 32 << 20
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed_memory() -> bool:
    """Let the C library keep up to 256 MiB of freed memory, of blocks of 32 MiB at most, in all of this process.

    Returns False where the library is not glibc: nothing is changed then.
    """
    return _set(_KEPT_BYTES, _LARGEST_BYTES)


def give_back_freed_memory() -> bool:
    """Let the C library give blocks of 4 MiB or more back to the system when they are freed, in all of this process.

    Of smaller ones it keeps up to 32 MiB at the end of its heap. Returns False where the library is not glibc.
    """
    return _set(_FREE_BYTES, _ALONE_BYTES)


def _set(kept_bytes: int, largest_bytes: int) -> bool:
    """Fix what is kept free at the end of the heap, and from what size on a block is not taken from there."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 (others have none, whatever their mallopt means)
        kept = library.mallopt(_TRIM_THRESHOLD, kept_bytes)
        return bool(kept and library.mallopt(_MMAP_THRESHOLD, largest_bytes))
    return False
