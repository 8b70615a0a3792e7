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
) -> None:
    """Call `run(batch, prepare(batch))` for every batch, without gradients; in no order that `run` may count on.

    :param held_bytes: what the states of one batch take; None where batches must not run side by side.
    :raises Exception: what the first of the batches raised that did; those that had not begun are left out.
    """
    before = torch.get_num_threads()
    lanes, threads = lanes_of(len(batches), before, device, held_bytes)
    if lanes == 1:
        with torch.inference_mode():
            for batch, ready in zip(batches, ready_ahead(prepare, batches, device), strict=True):
                run(batch, ready)
        return

    def whole(batch: Item) -> None:
        with torch.inference_mode():  # is a thread's own, as its number of threads is
            run(batch, prepare(batch))

    futures: list[Future[None]] = []
    try:
        with ThreadPoolExecutor(lanes, "lane", torch.set_num_threads, (threads,)) as pool:
            try:
                futures += [pool.submit(whole, batch) for batch in batches]
                for future in futures:
                    future.result()
            finally:
                for future in futures:
                    future.cancel()
    finally:
        torch.set_num_threads(before)  # what threads to come begin with, which the lanes have changed


def lanes_of(batches: int, threads: int, device: str, held_bytes: int | None) -> tuple[int, int]:
    """Return how many batches run at once, and the threads of each.

    >>> lanes_of(5, 4, "cpu", 1 << 20), lanes_of(2, 4, "cpu", 1 << 20), lanes_of(5, 4, "cpu", 1 << 30)
    ((4, 1), (2, 2), (1, 4))
    """
    if device != "cpu" or held_bytes is None:
        return 1, threads
    lanes = max(1, min(threads, batches, _MOST_HELD_BYTES // max(1, held_bytes)))
    return lanes, threads // lanes


def runs_side_by_side(network: Any) -> bool:
    """Whether a network of transformers computes a batch without writing into itself.

    Code of a model's own may do what it likes; it runs one batch at a time.
    """
    if not type(network).__module__.startswith("transformers."):
        return False
    kinds = (getattr(module, "rope_type", "") for module in network.modules())
    return not any(word in str(kind) for kind in kinds for word in _CHANGING_ROTATIONS)
