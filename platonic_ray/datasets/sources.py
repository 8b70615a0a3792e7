"""Where samples come from: the embedded dataset, or a user's file or folder whose columns are views."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from platonic_ray.datasets.base import Dataset
from platonic_ray.datasets.columns import (
    Kind,
    can_hold,
    canonical,
    is_label,
    is_list,
    is_string,
    kind_of,
    selected,
)
from platonic_ray.datasets.emoji import read_emoji
from platonic_ray.datasets.hub import PREFIX, read_hub
from platonic_ray.datasets.mapped import fetch
from platonic_ray.datasets.pairing import ID_COLUMN, ids_of, paired
from platonic_ray.datasets.tables import FILE_NAME, is_image_folder, read_table, split_of
from platonic_ray.errors import DataError, StudyError
from platonic_ray.study import DatasetEntry, ViewEntry

EMBEDDED: Mapping[str, Callable[[], pa.Table]] = {"emoji": read_emoji}


@dataclass(frozen=True)
class _Source:
    """A table of samples, where its paths are relative to, and the views that its form declares."""

    name: str
    table: pa.Table
    folder: Path | None = None
    views: Mapping[str, ViewEntry] = field(default_factory=dict)


def open_dataset(entry: DatasetEntry, seed: int) -> Dataset:
    """Open what `[dataset]` names, pair it with what it joins, and keep the rows that it selects.

    A source is an embedded dataset, a dataset of the hub (`hub`), a path, or a URI that pyarrow knows,
    which is fetched once a machine (`mapped`). Files are Parquet, Arrow, CSV, JSON lines or WebDataset
    tars; folders hold Parquet shards, tars, what `datasets` saved, or images with a `metadata.csv`,
    `.jsonl` or `.parquet`, whose images then are the view `image` (`tables.read_table`). Tables of
    `entry.join` are paired with it by the ids in the column `entry.on` (`pairing`).

    Columns of integers or booleans are labels (`Dataset.labels`), string columns are that too.
    Views are all string columns (text), binary columns and structs {bytes, path} (images: encoded,
    as Hugging Face stores them), lists of any of these, but for `id`, and what `entry.views` declares: for
    example `photo = {column = "file", kind = "image"}` for a string column of paths, which are relative to
    the file's folder; audio and video are always declared. Of a list the first item is taken, unless the
    view's `items` says which, that the features of all are averaged ("mean"), or that each becomes a row of
    its own ("expand", after rows are selected). With `samples`, rows come
    in the order they are drawn, so that a larger sample begins with the smaller one; without, in the
    source's order, or that of `ids`. Samples are not checked here: `check_samples`.

    :raises StudyError: for a source, view, id or number of samples that is not there.
    :raises DataError: for a file that is missing, of no known format, cut off, or without usable columns.
    """
    first = _opened(entry.source, entry)
    table, views = first.table, {**first.views}
    for source in entry.join:
        other = _opened(source, entry)
        other_views = {**other.views, **entry.views}
        table = paired(table, _with_whole_paths(other, other_views), entry.on, first.name, other.name)
        views |= other.views
    dataset = dataset_of(
        table,
        first.name,
        views={**views, **entry.views},
        folder=first.folder,
        id_column=entry.on if entry.join else ID_COLUMN,
    )
    if entry.ids is not None:
        dataset = dataset.of_ids(entry.ids)
    if entry.rows is not None:
        start, stop = entry.rows
        if stop > len(dataset):
            raise StudyError(
                f"dataset.rows: {dataset.name} has {len(dataset)} rows (given: {start} to {stop})."
            )
        dataset = dataset.take(range(start, stop))
    if entry.samples is not None:
        dataset = dataset.sample(entry.samples, seed)
    expanded = [view for view, given in entry.views.items() if given.items == "expand"]
    if len(expanded) > 1:
        raise StudyError(f"dataset.views: one view can be expanded (given: {', '.join(expanded)}).")
    return dataset.expanded(expanded[0]) if expanded else dataset


def dataset_of(
    table: pa.Table,
    name: str,
    *,
    views: Mapping[str, ViewEntry] | None = None,
    folder: str | Path | None = None,
    id_column: str = ID_COLUMN,
) -> Dataset:
    """Make a dataset of a table, by the rules of `open_dataset`.

    :raises StudyError: for a declared view whose column is not there or is of another type.
    :raises DataError: for a table without rows or usable columns, or whose ids are null or repeat.
    """
    if len(set(table.column_names)) != len(table.column_names):
        raise DataError(
            f"{name} has several columns of one name: {', '.join(table.column_names)}. Rename them."
        )
    if table.num_rows == 0:
        raise DataError(f"{name} has no rows.")
    declared = views or {}
    columns: dict[str, pa.ChunkedArray] = {}
    kinds: dict[str, Kind] = {}
    labels: dict[str, pa.ChunkedArray] = {}
    for column in table.column_names:
        kind = kind_of(table.schema.field(column).type)
        if kind is not None and column != id_column and column not in declared:
            kinds[column] = kind
            columns[column] = canonical(_of_each(table[column], None, column), kind, name, column)
        elif is_label(table.schema.field(column).type) and column not in {id_column, *declared}:
            labels[column] = table[column]
    for view, given in declared.items():
        if given.column not in table.column_names:
            near = difflib.get_close_matches(given.column, table.column_names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise StudyError(
                f"dataset.views.{view}: {name} has no column {given.column!r}.{hint} "
                f"It has: {', '.join(table.column_names)}."
            )
        found = table.schema.field(given.column).type
        if not can_hold(found, given.kind):
            raise StudyError(
                f"dataset.views.{view}: column {given.column!r} of {name} is {found}, not {given.kind}. "
                + _EXPECTED
            )
        kinds[view] = given.kind
        columns[view] = canonical(
            _of_each(table[given.column], given.items, view), given.kind, name, given.column
        )
    if not columns:
        there = ", ".join(f"{field.name} ({field.type})" for field in table.schema) or "none"
        raise DataError(f"{name} has no column that a model could read. Its columns: {there}. {_EXPECTED}")
    ids = ids_of(table, id_column, name).to_pylist() if id_column in table.column_names else None
    return Dataset(name, pa.table(columns | labels), kinds, ids=ids, folder=folder)


_EXPECTED = (
    "Text is a string column; images are encoded bytes in a binary column or a struct {bytes, path}, or "
    "paths in a string column that [dataset.views] declares; audio and video are declared there too."
)


def _opened(source: str, entry: DatasetEntry) -> _Source:
    if source in EMBEDDED:
        return _Source(source, EMBEDDED[source]())
    if source.startswith(PREFIX):
        return _Source(source, read_hub(source, entry.config, entry.split))
    path = fetch(source) if "://" in source else Path(source).expanduser()
    if not path.exists():
        if path.suffix or len(path.parts) > 1:
            raise DataError(f"There is no dataset file at {path}.")
        near = difflib.get_close_matches(source, EMBEDDED, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise StudyError(
            f"dataset.source: there is no embedded dataset {source!r}.{hint} Give one of: "
            f"{', '.join(EMBEDDED)}; the path or URI of a file or folder; or 'hub:org/name@revision'."
        )
    if entry.split is not None:
        path = split_of(path, entry.split)
    images = {"image": ViewEntry(column=FILE_NAME, kind="image")} if is_image_folder(path) else {}
    folder = path if path.is_dir() else path.parent
    return _Source(source if "://" in source else str(path), read_table(path), folder, images)


def _with_whole_paths(source: _Source, views: Mapping[str, ViewEntry]) -> pa.Table:
    """Return a source's table with paths that no longer depend on its folder."""
    table = source.table
    for column in {view.column for view in views.values() if view.kind != "text"} & set(table.column_names):
        if source.folder is not None and is_string(table.schema.field(column).type):
            folder = pa.scalar(f"{source.folder.absolute()}/", pa.large_string())
            paths = pc.cast(table[column], pa.large_string())
            whole = pc.if_else(
                pc.match_substring_regex(paths, r"^(/|~|$|[A-Za-z]:)"),
                paths,
                pc.binary_join_element_wise(folder, paths, pa.scalar("", pa.large_string())),
            )
            table = table.set_column(table.column_names.index(column), column, whole)
    return table


def _of_each(column: pa.ChunkedArray, items: int | str | None, view: str) -> pa.ChunkedArray:
    """Return a column with one item a sample, or with all where they are to be averaged or expanded.

    :raises StudyError: if items are chosen where there is one.
    """
    if not is_list(column.type):
        if items is not None:
            raise StudyError(f"dataset.views.{view}: it has one item a sample; remove 'items'.")
        return column
    if items in ("mean", "expand"):
        return column
    return selected(
        pc.cast(column, pa.large_list(column.type.value_type)), items if isinstance(items, int) else 0
    )
