"""What `platonic-ray models --check` says: of each model of a study, whether it can be had and how large it is.

Known without running a model: from its configuration, its tokenizer or image processor, and the files
that are there. A hub's weights are not downloaded for it (a package of the Python index is: it is one
file).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from platonic_ray import hub
from platonic_ray.errors import PlatonicRayError, WeightsError
from platonic_ray.models.base import ModelSpec, describe
from platonic_ray.models.calibrate import ITEMS, Calibration, calibrate
from platonic_ray.models.catalog import CATALOG
from platonic_ray.models.fit import activation_bytes, shortage
from platonic_ray.models.kinds import KINDS
from platonic_ray.models.resolve import resolve
from platonic_ray.models.weights import matches_any
from platonic_ray.study import ModelEntry

if TYPE_CHECKING:
    from platonic_ray.datasets import Dataset


@dataclass(frozen=True)
class ModelCheck:
    """One model of a study. Where it cannot be loaded, `problem` says why and the rest is None.

    `layers` are (name, width) of what would be kept. `weight_bytes` is what the network's `parameters` take in
    memory, in the dtype or the quantization that it runs in, `batch_bytes` about what a batch of it holds;
    `weights` says where they are: "here", "hub" (downloaded when the study runs), "random", or "none" for a model
    without any. `warning` says what this machine's device lacks to hold it: another machine may have it.
    """

    model: str
    kind: str | None
    view: str
    weights: str | None = None
    layers: tuple[tuple[str, int], ...] | None = None
    parameters: int | None = None
    weight_bytes: int | None = None
    batch_bytes: int | None = None
    problem: str | None = None
    warning: str | None = None


def check_models(entries: Iterable[ModelEntry]) -> list[ModelCheck]:
    """Check every model of a study; a problem with one is told in its place and stops no other.

    >>> check_models([ModelEntry(name="floor", view="image", use="pixels")])[0].layers
    (('pixels', 3072),)
    >>> check_models([ModelEntry(name="m", view="image", use="pixel")])[0].problem[:51]
    "Model 'm': the catalog has no 'pixel'. Did you mean"
    """
    device = _device()
    checks = []
    for entry in entries:
        listed = CATALOG.get(entry.use or "")
        kind = listed.kind if listed else entry.kind
        try:
            spec = resolve(entry)
            found = describe(spec)
            weights = _weights(spec)
        except PlatonicRayError as error:
            checks.append(ModelCheck(entry.name, kind, entry.view, problem=str(error)))
            continue
        layers = tuple((layer.name, layer.width) for layer in found.layers)
        checks.append(
            ModelCheck(
                *(entry.name, kind, entry.view, weights, layers, found.parameters, found.weight_bytes),
                batch_bytes=activation_bytes(spec, found),
                warning=shortage(spec, found, device),
            )
        )
    return checks


def calibrate_models(
    entries: Iterable[ModelEntry], dataset: Dataset, threads: int = 1
) -> list[tuple[str, Calibration | str | None]]:
    """Measure every model of a study at sizes of its batches, on the first samples of its view.

    :param threads: those that a model runs on in the study (`run.threads`).
    :returns: of each its name, and what was found, why it could not be measured, or None for one without batches.
    """
    import torch

    device, before = _device(), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return [(entry.name, _calibrated(entry, dataset, device)) for entry in entries]
    finally:
        torch.set_num_threads(before)


def _calibrated(entry: ModelEntry, dataset: Dataset, device: str) -> Calibration | str | None:
    try:
        items = list(dataset.shard(entry.view, 0, ITEMS).items)
        if dataset.several(entry.view):
            items = list(itertools.chain.from_iterable(items))
        return calibrate(resolve(entry), items, device)
    except PlatonicRayError as error:
        return str(error)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _weights(spec: ModelSpec) -> str:
    """Return where the weights are.

    :raises WeightsError: if there are none of a form that is read.
    """
    if spec.init == "random":
        return "random"
    if spec.weights is None:
        return "none"
    address, away = spec.weights.address, spec.weights.address.startswith("hub:")
    there = hub.names(address) if away else [name for name, _ in spec.weights.files]
    trained = [pattern for pattern in KINDS[spec.kind].trained if not pattern.endswith(".json")]
    read = [name for name in spec.weights.patterns if matches_any(name, trained) or name == spec.file]
    if read and not any(matches_any(name, read) for name in there):
        raise WeightsError(
            f"Model {spec.name!r}: {address} has no weights of a form that is read ({', '.join(read)}); it has: "
            f"{', '.join(there)}."
        )
    return "hub" if away else "here"
