"""A network over several GPUs, where one does not hold it: which of its blocks goes where.

Decided on shapes alone, by accelerate: GPUs are filled one after another in the order of the network, no block is
cut, and a network that the first GPU holds stays on it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import torch

from platonic_ray.errors import StudyError, WeightsError

_FOR_WEIGHTS = 0.85
"""The share of a GPU's memory that weights may take: activations need the rest."""


def device_map(network: Any, memory: Mapping[int, int], where: str) -> dict[str, int]:
    """Return the GPU of each part of a network, by the name of its module.

    :param network: with the dtype that it will run in; its numbers are not read, so it may be on the meta device.
    :param memory: bytes for weights, by the number of the GPU.
    :param where: what an error is about, for example `Model 'llama'`.
    :raises StudyError: without accelerate.
    :raises WeightsError: if all GPUs together do not hold it, with both figures.
    """
    if importlib.util.find_spec("accelerate") is None:
        raise StudyError(f"{where}: several GPUs need accelerate; pip install 'platonic-ray[quantized]'.")
    from accelerate import infer_auto_device_map

    limits: dict[int | str, int] = {"cpu": 0} | dict(memory)
    whole = sorted(getattr(network, "_no_split_modules", None) or [])
    found: dict[str, Any] = infer_auto_device_map(network, max_memory=limits, no_split_module_classes=whole)
    if not set(found.values()) <= set(memory):
        needed = sum(tensor.numel() * tensor.element_size() for tensor in network.parameters())
        raise WeightsError(
            f"{where} needs {needed / 1e9:,.1f} GB for its weights, and the {len(memory)} GPUs that it was given have "
            f"{sum(memory.values()) / 1e9:,.1f} GB for them, block by block: it was not loaded. Give it more (gpus)."
        )
    return found


def memory_for_weights() -> dict[int, int]:
    """Return what each GPU that this process sees has for weights."""
    return {
        gpu: int(torch.cuda.get_device_properties(gpu).total_memory * _FOR_WEIGHTS)
        for gpu in range(torch.cuda.device_count())
    }
