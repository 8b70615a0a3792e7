"""Two tables of the same samples become one by their ids, whatever the order of their rows."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from platonic_ray.errors import DataError, StudyError

ID_COLUMN = "id"
"""What a column of samples' ids is called where nothing else says so."""
_SHOWN = 5


def paired(table: pa.Table, other: pa.Table, on: str, name: str, other_name: str) -> pa.Table:
    """Return a table with the other's columns beside its own, its rows in its order.

    Where the other has no row of an id its columns are null; ids that it alone has are left out.

    :param on: the column of ids that both have.
    :raises StudyError: if one of them has no such column, or another column is in both.
    :raises DataError: for an id that is missing or there more than once, or if no id is in both.
    """
    ids, other_ids = unique_ids(table, on, name), unique_ids(other, on, other_name)
    both = sorted(set(table.column_names) & set(other.column_names) - {on})
    if both:
        raise StudyError(
            f"dataset.join: {name} and {other_name} both have the column {both[0]!r}; rename it in one of them."
        )
    places = pc.index_in(ids, value_set=other_ids.combine_chunks())
    if places.null_count == len(places):
        raise DataError(
            f"No {on!r} of {name} is in {other_name}: {_some(ids)} there, {_some(other_ids)} here. "
            "Pairing needs the same ids."
        )
    rest = other.drop_columns([on]).take(places.combine_chunks())
    for column in rest.column_names:
        table = table.append_column(column, rest[column])
    return table


def unique_ids(table: pa.Table, column: str, name: str) -> pa.ChunkedArray:
    """Return a column of ids as strings.

    :raises StudyError: if there is no such column.
    :raises DataError: if it holds neither strings nor integers, or an id is missing or repeats.
    """
    if column not in table.column_names:
        raise StudyError(
            f"dataset.on: {name} has no column {column!r}; it has: {', '.join(table.column_names)}."
        )
    ids = ids_of(table, column, name)
    counts = pc.value_counts(ids)
    twice = [entry["values"] for entry in counts.filter(pc.greater(counts.field("counts"), 1)).to_pylist()]
    if twice:
        raise DataError(
            f"{name}: {len(twice)} ids in {column!r} are there more than once, so rows cannot be paired by "
            f"them: {', '.join(map(repr, twice[:_SHOWN]))}{', …' if len(twice) > _SHOWN else ''}."
        )
    return ids


def ids_of(table: pa.Table, column: str, name: str) -> pa.ChunkedArray:
    """Return a column of strings or integers as strings.

    :raises DataError: if it holds anything else, or an id is missing.
    """
    held = table[column]
    if held.null_count:
        raise DataError(f"{name}: {held.null_count} ids are missing (null); every row needs one.")
    unusable = f"{name}: the column {column!r} is {held.type}; ids are strings or integers."
    if pa.types.is_floating(held.type):
        raise DataError(unusable)
    try:
        return pc.cast(held, pa.large_string())
    except (pa.ArrowException, UnicodeDecodeError):
        raise DataError(unusable) from None


def _some(ids: pa.ChunkedArray) -> str:
    return ", ".join(map(repr, ids.slice(0, 2).to_pylist()))
