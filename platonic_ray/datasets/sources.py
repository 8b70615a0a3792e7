"""Where samples come from: the embedded dataset, or a user's file or folder whose columns are views."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from platonic_ray.datasets.base import Dataset, Kind, Problem
from platonic_ray.datasets.emoji import read_emoji
from platonic_ray.datasets.tables import FILE_NAME, is_image_folder, read_table
from platonic_ray.errors import DataError, StudyError
from platonic_ray.study import DatasetEntry, ViewEntry

EMBEDDED: Mapping[str, Callable[[], pa.Table]] = {"emoji": read_emoji}
ID_COLUMN = "id"
PROBLEMS_SHOWN = 20


def open_dataset(entry: DatasetEntry, seed: int) -> Dataset:
    """Open what `[dataset]` names and draw `entry.samples` of it by the study's seed.

    Files are Parquet, Arrow, CSV or JSON lines; folders hold Parquet shards, what `datasets` saved, or
    images with a `metadata.csv`, `.jsonl` or `.parquet`, whose images then are the view `image`
    (`tables.read_table`).

    Columns of integers or booleans are labels (`Dataset.labels`), string columns are that too.
    Views are all string columns (text), binary columns and structs {bytes, path} (images: encoded,
    as Hugging Face stores them), but for `id`, and what `entry.views` declares: for example
    `photo = {column = "file", kind = "image"}` for a string column of paths, which are relative to
    the file's folder; audio and video are always declared. With `samples`, rows come in the order they are
    drawn, so that a larger sample begins with the smaller one; without, in the file's order. Samples are
    not checked here: `check_samples`.

    :raises StudyError: for a source, view or number of samples that is not there.
    :raises DataError: for a file that is missing, of no known format, cut off, or without usable columns.
    """
    if entry.source in EMBEDDED:
        dataset = dataset_of(EMBEDDED[entry.source](), entry.source, views=entry.views)
    else:
        path = Path(entry.source).expanduser()
        table = _read(path, entry.source)
        images = {"image": ViewEntry(column=FILE_NAME, kind="image")} if is_image_folder(path) else {}
        dataset = dataset_of(
            table,
            str(path),
            views={**images, **entry.views},
            folder=path if path.is_dir() else path.parent,
        )
    return dataset if entry.samples is None else dataset.sample(entry.samples, seed)


def dataset_of(
    table: pa.Table,
    name: str,
    *,
    views: Mapping[str, ViewEntry] | None = None,
    folder: str | Path | None = None,
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
        kind = _kind_of(table.schema.field(column).type)
        if kind is not None and column != ID_COLUMN and column not in declared:
            kinds[column], columns[column] = kind, _canonical(table[column], kind, name, column)
        elif _is_label(table.schema.field(column).type) and column not in {ID_COLUMN, *declared}:
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
        if not (_is_string(found) or _is_binary(found) or (given.kind != "text" and _is_file_struct(found))):
            raise StudyError(
                f"dataset.views.{view}: column {given.column!r} of {name} is {found}, not {given.kind}. "
                + _EXPECTED
            )
        kinds[view], columns[view] = (
            given.kind,
            _canonical(table[given.column], given.kind, name, given.column),
        )
    if not columns:
        there = ", ".join(f"{field.name} ({field.type})" for field in table.schema) or "none"
        raise DataError(f"{name} has no column that a model could read. Its columns: {there}. {_EXPECTED}")
    return Dataset(name, pa.table(columns | labels), kinds, ids=_ids(table, name), folder=folder)


def check_samples(
    dataset: Dataset, views: Sequence[str], on_bad_sample: str = "refuse"
) -> tuple[Dataset, list[Problem]]:
    """Return the dataset without samples that are bad in any of the views, and what was wrong with them.

    A sample that is bad in two views has two problems; their `row` is that of the given dataset.

    :raises StudyError: for a name that is not a view.
    :raises DataError: if there are bad samples and `on_bad_sample` is not "drop" (the first 20 are
        listed, and their number), or if none would be left.
    """
    problems = dataset.problems(views)
    if not problems:
        return dataset, []
    bad = {problem.row for problem in problems}
    listed = "\n".join(f"  {problem}" for problem in problems[:PROBLEMS_SHOWN])
    if len(problems) > PROBLEMS_SHOWN:
        listed += f"\n  … and {len(problems) - PROBLEMS_SHOWN} more"
    count = (
        f"{len(bad)} of {len(dataset)} samples of {dataset.name} cannot be used ({len(problems)} problems)"
    )
    if on_bad_sample != "drop":
        raise DataError(
            f'{count}:\n{listed}\nRepair them, or set on_bad_sample = "drop" under [dataset] to go on '
            "without them in every view."
        )
    if len(bad) == len(dataset):
        raise DataError(f"{count}; none is left:\n{listed}\nRepair them, or choose other views.")
    return dataset.take([row for row in range(len(dataset)) if row not in bad]), problems


_EXPECTED = (
    "Text is a string column; images are encoded bytes in a binary column or a struct {bytes, path}, or "
    "paths in a string column that [dataset.views] declares; audio and video are declared there too."
)


def _read(path: Path, source: str) -> pa.Table:
    if "://" in source:
        raise StudyError(
            f"dataset.source: {source} is a URI; give the path of a file or folder on this machine."
        )
    if not path.exists():
        if path.suffix or len(path.parts) > 1:
            raise DataError(f"There is no dataset file at {path}.")
        near = difflib.get_close_matches(source, EMBEDDED, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise StudyError(
            f"dataset.source: there is no embedded dataset {source!r}.{hint} Give one of: "
            f"{', '.join(EMBEDDED)}; or the path of a file or folder."
        )
    return read_table(path)


def _ids(table: pa.Table, name: str) -> list[str] | None:
    """Return the column `id` as strings; None where there is no such column."""
    if ID_COLUMN not in table.column_names:
        return None
    column = table[ID_COLUMN]
    if column.null_count:
        raise DataError(f"{name}: {column.null_count} ids are missing (null); every row needs one.")
    try:
        return pc.cast(column, pa.large_string()).to_pylist()
    except (pa.ArrowException, UnicodeDecodeError):
        raise DataError(
            f"{name}: the column {ID_COLUMN!r} is {column.type}; ids are strings or integers."
        ) from None


def _canonical(column: pa.ChunkedArray, kind: Kind, name: str, label: str) -> pa.ChunkedArray:
    """Return a column with 64-bit offsets; as a text, image bytes, paths or a struct of both."""
    try:
        if kind != "text" and _is_file_struct(column.type):
            parts = {field.name: pc.struct_field(column, field.name) for field in column.type}
            content = _canonical(parts["bytes"], kind, name, label)
            if content.null_count == 0 or "path" not in parts:
                return content
            paths = _canonical(parts["path"], kind, name, label)
            if content.null_count == len(content):
                return paths
            return pa.chunked_array(pa.table({"bytes": content, "path": paths}).to_struct_array())
        wide = pa.large_string() if kind == "text" or _is_string(column.type) else pa.large_binary()
        column = pc.cast(column, wide)
        if wide == pa.large_string():
            column.validate(full=True)  # a file may hold anything; Arrow does not check it on reading
        return column
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{name}: column {label!r} cannot be read as {kind}: {str(error).strip()}.") from None


def _kind_of(found: pa.DataType) -> Kind | None:
    if _is_string(found):
        return "text"
    return "image" if _is_binary(found) or _is_file_struct(found) else None


def _is_string(found: pa.DataType) -> bool:
    if pa.types.is_dictionary(found):
        return _is_string(found.value_type)
    return pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found)


def _is_label(found: pa.DataType) -> bool:
    return pa.types.is_integer(found) or pa.types.is_boolean(found)


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
    return content is not None and _is_binary(content) and (path is None or _is_string(path))
