"""Batches side by side: on the cores of this machine each on threads of its own, on an accelerator one by one.

Two threads that share one batch wait for each other after each of a network's hundreds of operations, and whoever
decodes beside them makes both wait. Two batches, each decoded and computed by a thread of its own, meet at the end
alone: two cores then do twice what one does, as far as caches and memory let them. (Measured in README, Speed.)

What a batch comes to depends on the batch and on its number of threads, and that is a function of how many batches
there are and of how many threads the study gives: never of who was faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from platonic_ray.models.batches import ready_ahead

Item = TypeVar("Item")
Ready = TypeVar("Ready")

_MOST_HELD_BYTES = 1 << 30
"""What the states of all batches at once may take, where one batch alone does not take more."""
_CHANGING_ROTATIONS = ("dynamic", "longrope")
"""Rotary positions whose frequencies a network rewrites in place, by the longest text of the batch."""


def run_batches(
    prepare: Callable[[Item], Ready],
    run: Callable[[Item, Ready], None],
    batches: Sequence[Item],
    device: str,
    held_bytes: int | None,
    cost: Callable[[Item], int] | None = None,
) -> None:
    """Call `run(batch, prepare(batch))` for every batch, without gradients; in no order that `run` may count on.

    Batches that are left when each lane has had as many as the others come last, on all threads, one by one: a
    lane that is done would wait for the last of another.

    :param held_bytes: what the states of one batch take; None where batches must not run side by side.
    :param cost: how long a batch takes, in any unit. Lanes then begin with the dearest, so that the one that is
        done first waits for a cheap one. Which batches come last on all threads does not depend on it.
    :raises Exception: what the first of the batches, as they begin, raised that did; those that had not begun are
        left out.
    """
    threads = torch.get_num_threads()
    lanes = lanes_of(len(batches), threads, device, held_bytes)
    shared = len(batches) - len(batches) % lanes if lanes > 1 else 0
    if shared:
        beside = batches[:shared] if cost is None else sorted(batches[:shared], key=cost, reverse=True)
        _run_in_lanes(prepare, run, beside, lanes, threads)
    with torch.inference_mode():
        for batch, ready in zip(
            batches[shared:], ready_ahead(prepare, batches[shared:], device), strict=True
        ):
            run(batch, ready)


def _run_in_lanes(
    prepare: Callable[[Item], Ready],
    run: Callable[[Item, Ready], None],
    batches: Sequence[Item],
    lanes: int,
    threads: int,
) -> None:
    def whole(batch: Item) -> None:
        with torch.inference_mode():  # is a thread's own, as its number of threads is
            run(batch, prepare(batch))

    futures: list[Future[None]] = []
    try:
        with ThreadPoolExecutor(lanes, "lane", torch.set_num_threads, (threads // lanes,)) as pool:
            try:
                futures += [pool.submit(whole, batch) for batch in batches]
                for future in futures:
                    future.result()
            finally:
                for future in futures:
                    future.cancel()
    finally:
        torch.set_num_threads(threads)  # what threads to come begin with, which the lanes have changed


def lanes_of(batches: int, threads: int, device: str, held_bytes: int | None) -> int:
    """Return how many batches run at once: each has an equal share of the threads, and none is left over.

    >>> [lanes_of(batches, 4, "cpu", 1 << 20) for batches in (0, 1, 2, 3, 4, 100)]
    [1, 1, 2, 2, 4, 4]
    """
    if device != "cpu" or held_bytes is None:
        return 1
    most = min(threads, batches, _MOST_HELD_BYTES // max(1, held_bytes))
    return max((lanes for lanes in range(1, most + 1) if threads % lanes == 0), default=1)


def runs_side_by_side(network: Any) -> bool:
    """Whether a network of transformers computes a batch without writing into itself.

    Code of a model's own may do what it likes; it runs one batch at a time.
    """
    if not type(network).__module__.startswith("transformers."):
        return False
    kinds = (getattr(module, "rope_type", "") for module in network.modules())
    return not any(word in str(kind) for kind in kinds for word in _CHANGING_ROTATIONS)
