"""Features that exist already: arrays in files, read as the layers of a model.

`.npy` holds `[N, D]` or `[N, L, D]`; `.safetensors` one such tensor, or one `[N, D]` a layer in the
order of their names (numbers in them count as numbers); `.parquet` and `.arrow` a column of fixed-size
lists (or lists of one length) a layer, and in a column `id` the samples' ids; `.pt` a tensor, a list of
one `[N, D]` a layer, or a dictionary with either under "feats", as the code of Huh et al. (2024) saves
them. Nothing that could run code is read: no pickled array, and of `.pt` tensors and plain containers
alone (`weights_only=True`).
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from platonic_ray.datasets import ID_COLUMN, unique_ids
from platonic_ray.errors import DataError

Layers = dict[str, NDArray[np.generic]]

_TABLES = (".parquet", ".arrow", ".feather")


def read_features(path: str | Path) -> list[NDArray[np.generic]]:
    """Return the layers in a file, `[N, D_l]` each.

    :raises DataError: if the file is missing, damaged, or holds no features.
    """
    return list(read_layers(path).values())


def read_layers(path: str | Path) -> Layers:
    """Return the layers in a file by name, `[N, D_l]` each; where it has no names, "layer 0", "layer 1", ….

    A `.npy` file is mapped, not read.

    :raises DataError: if the file is missing, damaged, or holds no features.
    """
    path = Path(path).expanduser()
    readers = {
        ".npy": _read_npy,
        ".safetensors": _read_safetensors,
        ".parquet": _read_table,
        ".arrow": _read_table,
        ".feather": _read_table,
        ".pt": _read_pt,
        ".pth": _read_pt,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path} is not a feature file; known endings: {', '.join(readers)}.")
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    try:
        return reader(path)
    except DataError:
        raise
    except Exception as error:  # each library raises its own kinds for a damaged file
        raise DataError(f"{path} cannot be read as features: {str(error).splitlines()[0]}") from None


def read_ids(path: str | Path) -> list[str] | None:
    """Return the ids in a file's column `id`, a row's each; None for a file without one.

    :raises DataError: for ids that are neither strings nor integers, are missing or repeat.
    """
    path = Path(path)
    if path.suffix.lower() not in _TABLES:
        return None
    table = _opened_table(path, [ID_COLUMN])
    return None if table is None else unique_ids(table, ID_COLUMN, str(path)).to_pylist()


def _split(array: NDArray[np.generic], path: Path) -> Layers:
    if array.ndim == 2:
        return {"layer 0": array}
    if array.ndim == 3:
        return {f"layer {layer}": array[:, layer] for layer in range(array.shape[1])}
    raise DataError(f"{path} holds an array of shape {array.shape}; expected [N, D] or [N, L, D].")


def _read_npy(path: Path) -> Layers:
    return _split(np.load(path, mmap_mode="c", allow_pickle=False), path)


def _read_safetensors(path: Path) -> Layers:
    from safetensors.torch import load_file

    tensors = load_file(path)
    if not tensors:
        raise DataError(f"{path} holds no tensor.")
    names = sorted(tensors, key=lambda name: [int(p) if p.isdigit() else p for p in _NUMBERS.split(name)])
    if len(names) == 1:
        return _split(_array(tensors[names[0]]), path)
    for name in names:
        if tensors[name].ndim != 2:
            raise DataError(
                f"{path}: tensor {name!r} has the shape {tuple(tensors[name].shape)}; one layer is [N, D]."
            )
    return {name: _array(tensors[name]) for name in names}


_NUMBERS = re.compile(r"(\d+)")


def _array(tensor: Any) -> NDArray[np.generic]:
    """Return a tensor's numbers; numpy has no bfloat16, and float32 holds each of its values exactly."""
    import torch

    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _read_pt(path: Path) -> Layers:
    import torch

    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise DataError(
            f"{path} is refused: it is damaged, or holds more than tensors, lists and dictionaries, and "
            "reading it could run code. Save the features as .npy or .safetensors."
        ) from None
    if isinstance(held, dict):
        if "feats" not in held:
            raise DataError(
                f'{path} is a dictionary without "feats"; it has: {", ".join(map(repr, held)) or "nothing"}.'
            )
        held = held["feats"]
    if isinstance(held, torch.Tensor):
        return _split(_array(held.detach()), path)
    if not isinstance(held, list | tuple) or not held or not all(isinstance(t, torch.Tensor) for t in held):
        raise DataError(f"{path} holds {type(held).__name__}; expected a tensor, or a list of tensors.")
    for index, tensor in enumerate(held):
        if tensor.ndim != 2:
            raise DataError(
                f"{path}: layer {index} has the shape {tuple(tensor.shape)}; one layer is [N, D]."
            )
    return {f"layer {index}": _array(tensor.detach()) for index, tensor in enumerate(held)}


def _opened_table(path: Path, columns: list[str] | None = None) -> pa.Table | None:
    """Return a table of a file, or of some of its columns; None where it has none of them."""
    if path.suffix.lower() == ".parquet":
        with pq.ParquetFile(path) as file:
            there = set(file.schema_arrow.names)
            return None if columns and not there.intersection(columns) else file.read(columns)
    with pa.OSFile(str(path)) as file:
        reader = pa.ipc.open_file(file)
        if columns is None:
            return reader.read_all()
        places = [reader.schema.get_field_index(name) for name in columns if name in reader.schema.names]
        if not places:
            return None
    options = pa.ipc.IpcReadOptions(included_fields=places)
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_file(file, options=options).read_all()


def _read_table(path: Path) -> Layers:
    table = _opened_table(path)
    assert table is not None
    layers: Layers = {}
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        kind = column.type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            lengths = set(column.value_lengths().to_pylist())
            if len(lengths) != 1 or None in lengths:
                raise DataError(f"{path}: the lists in column {name!r} differ in length or are missing.")
            width = lengths.pop()
        elif pa.types.is_fixed_size_list(kind):
            width = kind.list_size
        else:
            continue
        if column.null_count:
            raise DataError(f"{path}: column {name!r} has {column.null_count} missing rows.")
        layers[name] = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), width)
    if not layers:
        raise DataError(
            f"{path} has no column of lists of numbers; its columns: {', '.join(table.column_names)}."
        )
    return layers
