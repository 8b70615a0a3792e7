"""Whether a model fits the device that is to hold it: known from its configuration, before its weights are read.

Of a hub's model the configuration is a file of its own, so that it is known before the download too. Of a GGUF file
it stands inside: that is downloaded, and then refused before its weights are dequantized.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from platonic_ray import hub
from platonic_ray.errors import WeightsError
from platonic_ray.models.base import Description, ModelSpec, describe
from platonic_ray.models.calibrate import batch_setting
from platonic_ray.models.kinds import KINDS
from platonic_ray.models.weights import locate, matches_any

_CGROUP = Path("/sys/fs/cgroup/memory.max")
_WIDENED = 16
"""How much larger a file's weights may be in memory: two bits that are read as float32."""


def refuse_too_large(spec: ModelSpec, device: str) -> None:
    """Refuse a model whose weights and activations are larger than the device's memory, as it is to run.

    It is described for that where it could decide: where its files are no small part of the memory, or the study
    asks for batches larger than the kind's.

    :raises WeightsError: with the figures.
    """
    setting = batch_setting(spec)
    larger = setting is not None and spec.setting(setting) > KINDS[spec.kind].settings[setting]
    if not KINDS[spec.kind].trained or (_is_small(spec, device_bytes(device)) and not larger):
        return
    lacking = shortage(spec, describe(spec), device)
    if lacking is not None:
        raise WeightsError(f"Model {spec.name!r} {lacking} It was not loaded.")


def shortage(spec: ModelSpec, description: Description, device: str) -> str | None:
    """Return what a model needs that a device does not have, and what to do; None where it fits."""
    needed, held, there = description.weight_bytes, activation_bytes(spec, description), device_bytes(device)
    if needed + held <= there or not KINDS[spec.kind].trained:
        return None
    settings = dict(spec.settings)
    form = settings.get("quantization") or settings.get("dtype", "float32")
    half = form == "float32" and "dtype" in settings and (needed + held) / 2 <= there
    remedy = ' (or dtype = "bfloat16", half of it)' if half else ""
    batch = f" and {held / 1e9:,.1f} GB for a batch ({batch_setting(spec)})" if held else ""
    return (
        f"needs {needed / 1e9:,.1f} GB for its weights in {form}{batch}, and the "
        f"{'GPU' if device != 'cpu' else 'machine'} has {there / 1e9:,.1f} GB. Take a smaller model or batch, or a "
        f"larger machine{remedy}."
    )


def activation_bytes(spec: ModelSpec, description: Description) -> int:
    """Return about what a batch of a model holds: all its hidden states; 0 where they are not known.

    A lower bound: what a block holds beside them while it computes is less than a tenth of them in deep networks.
    """
    setting = batch_setting(spec)
    if setting is None or not description.held:
        return 0
    size = float(spec.setting(setting))
    longest = {"batch_tokens": "max_tokens", "batch_seconds": "max_seconds"}.get(setting)
    if longest is not None:  # a text or sound that is longer than a batch is a batch of its own
        size = max(size, float(spec.setting(longest)))
    return int(
        size * description.held * (4 if dict(spec.settings).get("dtype", "float32") == "float32" else 2)
    )


def device_bytes(device: str) -> int:
    """Return the memory of all GPUs that this process sees, or of the machine or what its container may use."""
    if device.startswith("cuda"):
        import torch

        each = (
            torch.cuda.get_device_properties(gpu).total_memory for gpu in range(torch.cuda.device_count())
        )
        return int(sum(each))
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no such limit
        there = min(there, int(_CGROUP.read_text()))
    return there


def _is_small(spec: ModelSpec, there: int) -> bool:
    """Whether the files of a model's weights are here, and so small that it fits, whatever is in them."""
    if spec.weights is None or spec.init == "random":
        return False
    patterns = spec.weights.patterns
    address = spec.weights.address
    if address.startswith("hub:") and not hub.is_cached(address, patterns):
        return False
    files = [path for path in locate(spec.weights).iterdir() if matches_any(path.name, patterns)]
    return _WIDENED * sum(path.stat().st_size for path in files) <= there / 8
