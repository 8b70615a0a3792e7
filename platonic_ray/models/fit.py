"""Whether a model's weights fit the device that is to hold them: known before they are downloaded or read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from platonic_ray.errors import WeightsError
from platonic_ray.models import hub
from platonic_ray.models.base import Description, ModelSpec, describe
from platonic_ray.models.calibrate import batch_setting
from platonic_ray.models.kinds import KINDS
from platonic_ray.models.weights import locate, matches_any

_CGROUP = Path("/sys/fs/cgroup/memory.max")
_SAFETENSORS = "*.safetensors"


def refuse_too_large(spec: ModelSpec, device: str) -> None:
    """Refuse a model whose weights and activations are larger than the device's memory, in the dtype they run in.

    What a batch holds is looked at where it could decide: where weights take a part of the memory, or the study
    asks for batches larger than the kind's.

    :raises WeightsError: with the figures.
    """
    needed, there = weight_bytes(spec), device_bytes(device)
    setting = batch_setting(spec)
    larger = setting is not None and spec.setting(setting) > KINDS[spec.kind].settings[setting]
    held = activation_bytes(spec, describe(spec)) if needed > there / 8 or larger else 0
    if needed + held > there:
        dtype = dict(spec.settings).get("dtype", "float32")
        half = dtype == "float32" and (needed + held) / 2 <= there
        remedy = ' (or dtype = "bfloat16", half of it)' if half else ""
        batch = f" and {held / 1e9:,.1f} GB for a batch ({setting})" if held else ""
        raise WeightsError(
            f"Model {spec.name!r} needs {needed / 1e9:,.1f} GB for its weights in {dtype}{batch}, and the "
            f"{'GPU' if device != 'cpu' else 'machine'} has {there / 1e9:,.1f} GB: it was not loaded. Take a "
            f"smaller model or batch, or a larger machine{remedy}."
        )


def activation_bytes(spec: ModelSpec, description: Description) -> int:
    """Return about what a batch of a model holds: all its hidden states; 0 where they are not known.

    A lower bound: what a block holds beside them while it computes is less than a tenth of them in deep networks.
    """
    setting = batch_setting(spec)
    if setting is None or not description.held:
        return 0
    size = float(spec.setting(setting))
    if setting == "batch_tokens":  # one text that is longer than a batch is a batch of its own
        size = max(size, float(spec.setting("max_tokens")))
    return int(
        size * description.held * (4 if dict(spec.settings).get("dtype", "float32") == "float32" else 2)
    )


def weight_bytes(spec: ModelSpec) -> int:
    """Return what a model's weights take in memory, read from what is there without reading them.

    Of safetensors their headers; of a hub's model that is not downloaded yet its configuration. Other files
    are small, or say it only when they are read: 0.
    """
    settings = dict(spec.settings)
    numbers = _stored_numbers(spec)
    if numbers is None:
        return describe(spec).weight_bytes if _is_to_come(spec) else 0
    if settings.get("quantization") is not None:
        return numbers // (1 if settings["quantization"] == "8bit" else 2)
    return numbers * (4 if settings.get("dtype", "float32") == "float32" else 2)


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


def _is_safetensors(spec: ModelSpec) -> bool:
    """Whether a model reads trained weights from safetensors."""
    trained = _SAFETENSORS in KINDS[spec.kind].trained and not spec.file
    return trained and spec.weights is not None and spec.init != "random"


def _is_to_come(spec: ModelSpec) -> bool:
    """Whether those have to be downloaded from a hub first."""
    if not _is_safetensors(spec) or spec.weights is None:
        return False
    address = spec.weights.address
    return address.startswith("hub:") and not hub.is_cached(address, (_SAFETENSORS,))


def _stored_numbers(spec: ModelSpec) -> int | None:
    """Return how many numbers the safetensors that a model reads hold; None where it reads none that are here."""
    if not _is_safetensors(spec) or _is_to_come(spec):
        return None
    assert spec.weights is not None
    root = locate(spec.weights)
    return _numbers_in(path for path in root.iterdir() if matches_any(path.name, (_SAFETENSORS,)))


def _numbers_in(files: Iterable[Path]) -> int:
    from safetensors import SafetensorError, safe_open

    count = 0
    for file in files:
        with contextlib.suppress(SafetensorError, OSError), safe_open(file, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (it is no dictionary)
                size = 1
                for length in tensors.get_slice(name).get_shape():
                    size *= length
                count += size
    return count
