"""Threads that change no byte: every product and sum of the numerics contract is made on one.

Many short operations scale over layers or pairs of models, not within themselves. What is computed
must not depend on the number of threads: here every piece of work sees exactly one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

Run = Callable[[Iterable[Callable[[], Any]]], list[Any]]
"""Does jobs, and returns their results in the jobs' order."""


_LEAST_PART = 16  # of a range that is worth a thread


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many intra-op threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread() -> AbstractContextManager[None]:
    """Compute with one intra-op thread, so that bytes do not depend on how many there are.

    The number is the process's: other threads that use torch meanwhile have one as well.
    """
    return threads(1)


@contextmanager
def workers(count: int) -> Iterator[Run]:
    """Run jobs on so many threads, each of which computes with one of torch's; see `one_thread`."""
    if count == 1:
        yield lambda jobs: [job() for job in jobs]
        return
    with one_thread(), ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield lambda jobs: list(pool.map(_call, jobs))


Spread = Callable[[Callable[[int, int], Any], int], None]
"""Does `function(start, stop)` for ranges that make up `range(size)`, side by side."""


@contextmanager
def spreading(threads: int) -> Iterator[Spread]:
    """Cut work over a range into one part a thread; see `workers`."""
    with workers(threads) as run:

        def spread(function: Callable[[int, int], Any], size: int) -> None:
            step = max(_LEAST_PART, -(-size // threads))
            run(partial(function, start, min(start + step, size)) for start in range(0, size, step))

        yield spread


def _call(job: Callable[[], Any]) -> Any:
    return job()


def each(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return `function` of every item, in order, as many at a time as torch has threads.

    >>> each(abs, [-1, 2])
    [1, 2]
    """
    todo = list(items)
    workers = min(torch.get_num_threads(), len(todo))
    with one_thread():
        if workers < 2:
            return [function(item) for item in todo]
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, todo))
