"""Between the memory of this machine and that of an accelerator: one transfer a batch each way.

A GPU waits while what it made is fetched piece by piece; on a CPU nothing here copies anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray


def to_device(tensor: torch.Tensor, device: str, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Return a tensor on a device; to a GPU from pinned memory, so that nobody waits for the copy."""
    if device.startswith("cuda") and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device=device, dtype=dtype or tensor.dtype, non_blocking=True)


def on_host(states: Sequence[torch.Tensor | NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Return states, `[n, D_l]` each, as arrays of this machine; those of one accelerator come side by side.

    >>> on_host([torch.ones(1, 2), np.zeros((1, 1), np.float32)])
    [array([[1., 1.]], dtype=float32), array([[0.]], dtype=float32)]
    """
    found: dict[int, NDArray[np.float32]] = {}
    away: dict[torch.device, list[int]] = {}  # a network over several GPUs has states on each
    for place, state in enumerate(states):
        if isinstance(state, torch.Tensor) and not _is_here(state):
            away.setdefault(state.device, []).append(place)
        else:
            found[place] = np.asarray(state)
    for places in away.values():
        tensors = [state for place in places if isinstance(state := states[place], torch.Tensor)]
        whole = _fetched(torch.cat(tensors, 1))
        ends = np.cumsum([tensor.shape[1] for tensor in tensors])[:-1]
        found |= zip(places, np.split(whole, ends, axis=1), strict=True)
    return [found[place] for place in range(len(states))]


def _is_here(state: torch.Tensor) -> bool:
    return state.device.type == "cpu"


def _fetched(state: torch.Tensor) -> NDArray[np.float32]:
    fetched: NDArray[np.float32] = state.cpu().numpy()
    return fetched
