"""Kind "features": a model whose features exist already, in a file with a row for each sample of the dataset.

Rows are paired with samples by id where the file names them (a table's column `id`), else by position:
row i belongs to row i of the dataset's source, also where the study draws some samples or drops bad ones.
Formats are those of `arrays`. Nothing is computed; the file's content is the model's identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from platonic_ray.errors import DataError
from platonic_ray.models.arrays import read_ids, read_layers
from platonic_ray.models.base import Description, Features, ModelSpec
from platonic_ray.models.weights import locate


class StoredFeatures:
    """The layers of a file. Its items are numbers of their rows."""

    def __init__(self, spec: ModelSpec, layers: dict[str, NDArray[np.generic]]) -> None:
        self._readout = spec.keep([(name, array.shape[1]) for name, array in layers.items()])
        self.layers = self._readout.layers
        self._arrays = list(layers.values())
        self.rows = len(self._arrays[0])

    def embed(self, items: Sequence[int]) -> Features:
        """Return the rows of n samples, rounded to float32: one `[n, D]` array a layer."""
        kept, some = self._readout.rows(len(items)), list(items)
        kept.put(slice(None), lambda place, _: np.asarray(self._arrays[place][some], np.float32))
        return Features(kept.features())


def load(spec: ModelSpec, *, corpus: object = None, device: str = "cpu") -> StoredFeatures:
    """Open a file of features; they stay on the CPU.

    :raises DataError: if it holds no features, or layers of different numbers of samples.
    """
    path = _path(spec)
    layers = read_layers(path)
    _refuse_unusable(layers, path)
    return StoredFeatures(spec, layers)


def describe(spec: ModelSpec) -> Description:
    """Describe a file of features: its layers, no parameters, and the size of its arrays.

    :raises DataError: as `load`.
    """
    model = load(spec)
    return Description(model.layers, 0, sum(4 * model.rows * layer.width for layer in model.layers))


def count_rows(spec: ModelSpec) -> int:
    """Return of how many samples a file has features.

    :raises DataError: as `load`.
    """
    return load(spec).rows


def ids(spec: ModelSpec) -> list[str] | None:
    """Return the ids of a file's rows; None where it has none.

    :raises DataError: for ids that are neither strings nor integers, are missing or repeat.
    """
    return read_ids(_path(spec))


def _path(spec: ModelSpec) -> Path:
    assert spec.weights is not None
    assert spec.file is not None
    return locate(spec.weights) / spec.file


def _refuse_unusable(layers: dict[str, NDArray[np.generic]], path: Path) -> None:
    for name, array in layers.items():
        if array.dtype.kind not in "fiub":
            raise DataError(f"{path}, {name}: features must be real numbers (found: {array.dtype}).")
        if array.shape[1] == 0:
            raise DataError(f"{path}, {name}: features have no dimension (shape {array.shape}).")
    counts = {name: len(array) for name, array in layers.items()}
    if len(set(counts.values())) > 1:
        raise DataError(f"{path}: layers differ in their numbers of samples: {counts}.")
