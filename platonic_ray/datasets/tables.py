"""Files and folders of samples to one Arrow table: Parquet, Arrow, CSV, JSON lines, tars, and folders of them.

A folder is one of three: `datasets.save_to_disk`'s (Arrow shards listed in `state.json`), images beside
a `metadata.csv`, `.jsonl` or `.parquet` whose column `file_name` names them, or shards, Parquet or
WebDataset tars, which are read in the order of their names. What the columns mean is not known here (`sources`).
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from platonic_ray.datasets.mapped import LARGE_BYTES, mapped
from platonic_ray.datasets.webdataset import read_tar
from platonic_ray.errors import DataError, StudyError

MAGIC = b"PAR1"
FILE_NAME = "file_name"
"""The column of an image folder's metadata that names the image files."""
_LONGEST_LINE = 1 << 24
_ROWS_AT_A_TIME = 1024
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def read_table(path: Path) -> pa.Table:
    """Read a file or a folder of samples that exists.

    Every column of a CSV file is read as text: nothing in it says what is a number.

    :raises DataError: for a file of another format, damaged or cut off; for a folder of no known form.
    """
    if path.is_dir():
        return _read_folder(path)
    readers = {
        ".arrow": _read_arrow,
        ".feather": _read_arrow,
        ".csv": _read_csv,
        ".jsonl": _read_json_lines,
        ".ndjson": _read_json_lines,
        ".tar": read_tar,
    }
    reader = readers.get(path.suffix.lower(), _read_parquet)
    try:
        return reader(path)
    except DataError:
        raise
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:  # two of them from types of others
        kind = path.suffix.lower().removeprefix(".") if reader is not _read_parquet else "Parquet"
        raise DataError(
            f"{path} cannot be read as {kind}: {(str(error).strip() or type(error).__name__).splitlines()[0]}."
        ) from None


def is_image_folder(path: Path) -> bool:
    """Whether a folder holds images and a table of metadata that names them."""
    return path.is_dir() and any((path / name).is_file() for name in METADATA)


def split_of(path: Path, split: str) -> Path:
    """Return the folder of one split of what `datasets` saved.

    :raises StudyError: if the path holds no splits, or not this one.
    """
    splits = sorted(state.parent.name for state in path.glob("*/state.json"))
    if split not in splits:
        there = f"it has: {', '.join(splits)}" if splits else "it has no splits; remove 'split'"
        raise StudyError(f"dataset.split: {path} has no split {split!r}; {there}.")
    return path / split


def _read_folder(path: Path) -> pa.Table:
    if (path / "state.json").is_file():
        return _together([path / name for name in _saved_shards(path)], path)
    if is_image_folder(path):
        tables = [path / name for name in METADATA if (path / name).is_file()]
        if len(tables) > 1:
            raise DataError(f"{path} has {' and '.join(table.name for table in tables)}; keep one of them.")
        table = read_table(tables[0])
        if FILE_NAME not in table.column_names:
            raise DataError(
                f"{tables[0]} has no column {FILE_NAME!r} that names the images; "
                f"it has: {', '.join(table.column_names)}."
            )
        return table
    if (path / "dataset_dict.json").is_file():
        splits = sorted(state.parent.name for state in path.glob("*/state.json"))
        raise DataError(f"dataset.split: {path} holds several splits; give one of: {', '.join(splits)}.")
    shards = sorted(path.glob("*.parquet")) or sorted(path.glob("*.tar"))
    if not shards:
        raise DataError(
            f"{path} is a folder without samples. It should hold Parquet files, WebDataset tars, a data set "
            f"that `datasets` saved (state.json), or images and a {METADATA[0]} whose column {FILE_NAME!r} names them."
        )
    return _together(shards, path)


def _saved_shards(path: Path) -> list[str]:
    """Return the names of the Arrow shards that `datasets.save_to_disk` listed."""
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        names = [str(Path(file["filename"]).name) for file in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{path / 'state.json'} is not what `datasets.save_to_disk` writes.") from None
    if state.get("_indices_files"):
        raise DataError(
            f"{path} keeps a selection of rows beside its data; save it after `.flatten_indices()`."
        )
    if not names:
        raise DataError(f"{path} lists no data files in its state.json.")
    return names


def _together(shards: list[Path], path: Path) -> pa.Table:
    """Return the rows of shards one below the other.

    :raises DataError: naming a shard that is missing or has other columns than the first.
    """
    tables = []
    for shard in shards:
        if not shard.is_file():
            raise DataError(f"{path} lacks its shard {shard.name}; copy it again.")
        tables.append(read_table(shard))
        if not tables[-1].schema.equals(tables[0].schema):
            raise DataError(
                f"{shard} has other columns than {shards[0].name}: {_columns(tables[-1])}; "
                f"expected {_columns(tables[0])}."
            )
    return pa.concat_tables(tables)


def _columns(table: pa.Table) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in table.schema)


def _read_parquet(path: Path) -> pa.Table:
    with path.open("rb") as file:
        head = file.read(len(MAGIC))
        file.seek(-min(len(MAGIC), file.seek(0, 2)), 2)
        tail = file.read()
    if head != MAGIC:
        raise DataError(f"{path} is not a Parquet file.")
    if tail != MAGIC:
        raise DataError(f"{path} is a Parquet file that was cut off: its end is missing. Copy it again.")
    file = pq.ParquetFile(path, memory_map=True)
    groups = range(file.metadata.num_row_groups)
    if sum(file.metadata.row_group(group).total_byte_size for group in groups) < LARGE_BYTES:
        return file.read()
    return mapped(path, file.schema_arrow, file.iter_batches(_ROWS_AT_A_TIME))


def _read_arrow(path: Path) -> pa.Table:
    """Read an Arrow file, or the stream that `datasets` writes under the same ending."""
    source = pa.memory_map(str(path))
    try:
        return pa.ipc.open_file(source).read_all()
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_stream(source).read_all()


def _read_json_lines(path: Path) -> pa.Table:
    options = pyarrow.json.ReadOptions(block_size=_LONGEST_LINE)
    return pyarrow.json.read_json(path, read_options=options)


def _read_csv(path: Path) -> pa.Table:
    with path.open(encoding="utf-8-sig", newline="") as file:
        names = next(csv.reader(file), [])
    if not names:
        raise DataError(f"{path} is empty; its first line should name the columns.")
    return pyarrow.csv.read_csv(
        path,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={name: pa.string() for name in names}, strings_can_be_null=False
        ),
    )
