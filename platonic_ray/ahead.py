"""Results in order, made by threads ahead of who takes them: what reads, decodes or writes need not be waited for."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(make: Callable[[Item], Made], items: Iterable[Item], threads: int = 1) -> Iterator[Made]:
    """Yield `make(item)` of every item in order, made by threads while the caller works.

    At most one item a thread and one more is made or being made: memory is bounded by that. What `make`
    raises is raised here, in the item's turn.

    >>> list(ahead(len, ["a", "abc"]))
    [1, 3]
    """
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="ahead") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # nothing is made for a caller that has gone
            for future in waiting:
                future.cancel()


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
