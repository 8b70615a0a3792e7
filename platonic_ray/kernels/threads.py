"""Independent pieces of work side by side, one thread each.

Many short operations scale over layers or pairs of models, not within themselves. What is computed
must not depend on the number of threads: here every piece sees exactly one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from platonic_ray.kernels.grams import one_thread

T = TypeVar("T")
R = TypeVar("R")


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
