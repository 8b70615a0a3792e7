"""Memory that was freed, given back to the system.

Rows and cells of a model are freed before the next model comes, but C's heap keeps them: pieces that live
on lie between, and every thread has a heap of its own. Model by model that adds up to gigabytes.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


@cache
def _trim() -> Any:
    """Return glibc's `malloc_trim`; None where the C library has none."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None


def give_back() -> None:
    """Let the C library return what it holds unused, where it can; else do nothing."""
    trim = _trim()
    if trim is not None:
        trim(0)
