"""What a column holds, by its Arrow type, and the one form in which each kind is kept.

Texts are large strings; files (images, sounds, videos) are large binaries, paths, or structs of both.
A column of lists holds several items a sample: one of them is selected, or all are kept.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from platonic_ray.errors import DataError

Kind = Literal["text", "image", "audio", "video"]


def kind_of(found: pa.DataType) -> Kind | None:
    """Return what a column, or each list in it, holds where its type says it: text, else images."""
    if is_list(found):
        return None if is_list(found.value_type) else kind_of(found.value_type)
    if is_string(found):
        return "text"
    return "image" if _is_binary(found) or _is_file_struct(found) else None


def can_hold(found: pa.DataType, kind: Kind) -> bool:
    """Whether a column of a type can be declared to hold items of a kind."""
    if is_list(found):
        return not is_list(found.value_type) and can_hold(found.value_type, kind)
    return is_string(found) or _is_binary(found) or (kind != "text" and _is_file_struct(found))


def canonical(column: pa.ChunkedArray, kind: Kind, name: str, label: str) -> pa.ChunkedArray:
    """Return a column with 64-bit offsets; as a text, bytes, paths or a struct of both, or lists of these.

    :raises DataError: naming data set and column, if it holds anything else.
    """
    try:
        if is_list(column.type):
            return _canonical_lists(column, kind, name, label)
        if kind != "text" and _is_file_struct(column.type):
            parts = {field.name: pc.struct_field(column, field.name) for field in column.type}
            content = canonical(parts["bytes"], kind, name, label)
            if content.null_count == 0 or "path" not in parts:
                return content
            paths = canonical(parts["path"], kind, name, label)
            if content.null_count == len(content):
                return paths
            return pa.chunked_array(pa.table({"bytes": content, "path": paths}).to_struct_array())
        wide = pa.large_string() if kind == "text" or is_string(column.type) else pa.large_binary()
        column = pc.cast(column, wide)
        if wide == pa.large_string():
            column.validate(full=True)  # a file may hold anything; Arrow does not check it on reading
        return column
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{name}: column {label!r} cannot be read as {kind}: {str(error).strip()}.") from None


def selected(column: pa.ChunkedArray, index: int) -> pa.ChunkedArray:
    """Return the item at an index of each list; null where the list is null or shorter."""
    items = []
    for chunk in column.chunks:
        starts = np.asarray(chunk.offsets)
        missing = (np.diff(starts) <= index) | np.asarray(chunk.is_null())
        at = pa.array(np.where(missing, 0, starts[:-1] + index), pa.int64(), mask=missing)
        items.append(chunk.values.take(at) if len(chunk.values) else pa.nulls(len(chunk), chunk.values.type))
    return pa.chunked_array(items, column.type.value_type)


def is_list(found: pa.DataType) -> bool:
    """Whether a column of a type holds several items a row."""
    return pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found)


def is_label(found: pa.DataType) -> bool:
    """Whether a column of a type that is no view can label samples."""
    return pa.types.is_integer(found) or pa.types.is_boolean(found)


def is_string(found: pa.DataType) -> bool:
    """Whether a column of a type holds strings."""
    if pa.types.is_dictionary(found):
        return is_string(found.value_type)
    return pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found)


def _canonical_lists(column: pa.ChunkedArray, kind: Kind, name: str, label: str) -> pa.ChunkedArray:
    column = pc.cast(column, pa.large_list(column.type.value_type))
    # A view of paths alone or of bytes alone has to be one in all chunks: they become one.
    whole = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0) if whole.num_chunks else pa.array([], column.type)
    items = canonical(pa.chunked_array([whole.values]), kind, name, label).combine_chunks()
    if isinstance(items, pa.ChunkedArray):
        items = items.chunk(0)
    lists = pa.LargeListArray.from_arrays(whole.offsets, items, mask=whole.is_null())
    return pa.chunked_array([lists])


def _is_binary(found: pa.DataType) -> bool:
    if pa.types.is_dictionary(found):
        return _is_binary(found.value_type)
    return pa.types.is_binary(found) or pa.types.is_large_binary(found) or pa.types.is_binary_view(found)


def _is_file_struct(found: pa.DataType) -> bool:
    """Whether a type is how Hugging Face keeps an image or a sound: a struct with bytes, and perhaps a path."""
    if not pa.types.is_struct(found):
        return False
    fields = {field.name: field.type for field in found}
    content, path = fields.get("bytes"), fields.get("path")
    return content is not None and _is_binary(content) and (path is None or is_string(path))
