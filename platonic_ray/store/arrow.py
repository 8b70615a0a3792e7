"""Arrow tables for what the store keeps: feature blocks, and small sets of named arrays.

Only plain Arrow types are written and read: fixed-size lists of numbers and lists of numbers. No
extension type, no pickle.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from platonic_ray.errors import StoreError


def feature_table(features: NDArray[np.float32] | NDArray[np.float16]) -> pa.Table:
    """Wrap features `[n, D]` float32 or float16 as a table of one fixed-size-list column, without a copy."""
    n, width = features.shape
    kept = np.float16 if features.dtype == np.float16 else np.float32
    flat = pa.array(np.ascontiguousarray(features, dtype=kept).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, width)
    return pa.table({"features": column}) if n else pa.table({"features": column.slice(0, 0)})


def feature_array(table: pa.Table) -> NDArray[np.float32]:
    """Return features `[n, D]` float32 of a table made by `feature_table`: a read-only view, of float16 a copy."""
    column = table.column("features").combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # an empty table combines to no chunk at all
        column = column.chunk(0) if column.num_chunks else pa.array([], type=column.type)
    width = column.type.list_size
    flat = column.flatten().to_numpy(zero_copy_only=True)
    return flat.reshape(len(column), width).astype(np.float32, copy=False)


def arrays_table(arrays: Mapping[str, NDArray[np.generic]]) -> pa.Table:
    """Pack named numeric arrays of any shape into one table, a row an array (inverse: `table_arrays`)."""
    names = list(arrays)
    values = [np.asarray(arrays[name], order="C") for name in names]
    little = [value.astype(value.dtype.newbyteorder("<"), copy=False) for value in values]
    return pa.table(
        {
            "name": pa.array(names, pa.string()),
            "dtype": pa.array([value.dtype.str for value in little], pa.string()),
            "shape": pa.array([list(value.shape) for value in little], pa.list_(pa.int64())),
            "data": pa.array([value.tobytes() for value in little], pa.large_binary()),
        }
    )


_DTYPES = frozenset({"<f8", "<f4", "<i8", "<i4", "|b1", "|u1"})


def table_arrays(table: pa.Table) -> dict[str, NDArray[np.generic]]:
    """Unpack the arrays of a table made by `arrays_table`.

    :raises StoreError: if a row names a type that is not a plain number.
    """
    arrays = {}
    for name, dtype, shape, data in zip(
        table.column("name").to_pylist(),
        table.column("dtype").to_pylist(),
        table.column("shape").to_pylist(),
        table.column("data"),
        strict=True,
    ):
        if dtype not in _DTYPES:
            raise StoreError(f"The array {name!r} has the type {dtype!r}; only plain numbers are read.")
        arrays[name] = np.frombuffer(data.as_buffer(), dtype=dtype).reshape(shape)
    return arrays


def to_ipc(table: pa.Table) -> pa.Buffer:
    """Serialise a table as one Arrow IPC file; equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue()


def from_ipc(data: pa.Buffer) -> pa.Table:
    """Read a table from an Arrow IPC file's bytes, without a copy.

    :raises ValueError: if it holds an extension type, which may be somebody else's code.
    """
    with pa.ipc.open_file(data) as file:
        for field in file.schema:
            extended = isinstance(field.type, pa.BaseExtensionType)
            if extended or b"ARROW:extension:name" in (field.metadata or {}):
                raise ValueError(f"its column {field.name!r} is of an extension type")
        return file.read_all()
