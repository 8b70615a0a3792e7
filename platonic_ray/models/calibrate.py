"""What size of batch a model is fastest at on this machine, measured before a study fixes it.

A study says what a batch may hold, because the batches enter the features' last bits; this proposes it. The
network is one of random weights, so that nothing is downloaded for it: how fast a network is does not depend
on its weights.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from platonic_ray.models.base import ModelSpec, configuration, load

_SETTINGS: dict[str, tuple[float, ...]] = {
    "batch_tokens": (256, 512, 1024, 2048, 4096, 8192, 16384, 32768),
    "batch_images": (1, 2, 4, 8, 16, 32, 64, 128, 256),
    "batch_seconds": (30.0, 60.0, 120.0, 240.0, 480.0),
    "batch_clips": (1, 2, 4, 8, 16),
    "batch_items": (1, 2, 4, 8, 16, 32, 64, 128, 256),
}
_AS_GOOD = 0.97
_WORSE = 0.8
ITEMS = 64
"""How many samples it is measured on."""


@dataclass(frozen=True)
class Calibration:
    """Samples a second of a model at sizes of its batches, by the setting that fixes them.

    `proposed` is the smallest that is within 3 % of the best; `given` is the study's. `peak_bytes` is what the
    device held at the proposed size, None on a CPU.
    """

    setting: str
    given: float
    proposed: float
    rates: dict[float, float]
    peak_bytes: int | None = None


def batch_setting(spec: ModelSpec) -> str | None:
    """Return the name of the setting that fixes a model's batches; None for a model that has none."""
    return next((name for name, _ in spec.settings if name in _SETTINGS), None)


def calibrate(
    spec: ModelSpec, items: Sequence[Any], device: str = "cpu", seconds: float = 20.0
) -> Calibration | None:
    """Measure a model at sizes of its batches, from small to large; None for a model without batches.

    It stops where a size is a fifth slower than the best, does not fit the device, puts all items into one
    batch that a smaller size did already, or after `seconds`.

    :param items: of the view that the model reads; the first of them make it warm.
    :raises PlatonicRayError: as `load` and the model's `embed`.
    """
    setting = batch_setting(spec)
    if setting is None or spec.fits:
        return None
    import torch

    alone = spec if spec.weights is None else replace(spec, init="random", weights=configuration(spec))
    model: Any = load(alone, device=device)
    model.embed(items[:2])
    given = float(spec.setting(setting))
    rates: dict[float, float] = {}
    peaks: dict[float, int] = {}
    started = time.perf_counter()
    for size in _SETTINGS[setting]:
        model.budget = size
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        begun = time.perf_counter()
        try:
            model.embed(items)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        rates[size] = len(items) / (time.perf_counter() - begun)
        if device != "cpu":
            peaks[size] = int(torch.cuda.max_memory_allocated())
        counted = setting not in ("batch_tokens", "batch_seconds")
        slower = rates[size] < _WORSE * max(rates.values())
        if slower or (counted and size >= len(items)) or time.perf_counter() - started > seconds:
            break
    proposed = propose(rates)
    return Calibration(setting, given, proposed, rates, peaks.get(proposed))


def propose(rates: dict[float, float]) -> float:
    """Return the smallest size whose rate is within 3 % of the best.

    >>> propose({512: 90.0, 1024: 99.0, 2048: 100.0, 4096: 80.0})
    1024
    """
    best = max(rates.values())
    return min(size for size, rate in rates.items() if rate >= _AS_GOOD * best)
