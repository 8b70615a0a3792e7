"""Features that exist already: arrays in files, read as the layers of a model.

`.npy` holds `[N, D]` or `[N, L, D]`; `.safetensors` one such tensor, or one `[N, D]` a layer in the
order of their names; `.parquet` and `.arrow` a column of fixed-size lists (or lists of one length) a
layer. Nothing that could run code is read: no pickled array, no `.pt`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from platonic_ray.errors import DataError

Layers = list[NDArray[np.generic]]


def read_features(path: str | Path) -> Layers:
    """Return the layers in a file, `[N, D_l]` each.

    :raises DataError: if the file is missing, damaged, or holds no features.
    """
    path = Path(path).expanduser()
    readers = {
        ".npy": _read_npy,
        ".safetensors": _read_safetensors,
        ".parquet": _read_table,
        ".arrow": _read_table,
        ".feather": _read_table,
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


def _split(array: NDArray[np.generic], path: Path) -> Layers:
    if array.ndim == 2:
        return [array]
    if array.ndim == 3:
        return [array[:, layer] for layer in range(array.shape[1])]
    raise DataError(f"{path} holds an array of shape {array.shape}; expected [N, D] or [N, L, D].")


def _read_npy(path: Path) -> Layers:
    return _split(np.load(path, allow_pickle=False), path)


def _read_safetensors(path: Path) -> Layers:
    from safetensors.torch import load_file

    tensors = load_file(path)
    if not tensors:
        raise DataError(f"{path} holds no tensor.")
    # numpy has no bfloat16; float32 holds each of its values exactly
    arrays = [t.float().numpy() if t.is_floating_point() else t.numpy() for _, t in sorted(tensors.items())]
    if len(arrays) == 1:
        return _split(arrays[0], path)
    for name, array in zip(sorted(tensors), arrays, strict=True):
        if array.ndim != 2:
            raise DataError(f"{path}: tensor {name!r} has the shape {array.shape}; one layer is [N, D].")
    return arrays


def _read_table(path: Path) -> Layers:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix.lower() == ".parquet":
        table = pq.read_table(path)
    else:
        with pa.OSFile(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
    layers = []
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
        layers.append(column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), width))
    if not layers:
        raise DataError(
            f"{path} has no column of lists of numbers; its columns: {', '.join(table.column_names)}."
        )
    return layers
