"""A result as a folder of open formats, written so that it is either whole or known to be not.

`result.json` is written last and holds the hash of every other file. A save that was interrupted,
even one that was replacing an older result, can therefore never be read as something it is not.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from platonic_ray.errors import StoreError, StudyError

SCHEMA_VERSION = 5
# Versions that are read too, with the frames that they did not have yet: those are empty.
_OLDER: dict[int, tuple[str, ...]] = {2: ("examples", "samples", "capability"), 3: ("capability",), 4: ()}
_ADDED = {"models": ("interval_halves",)}  # columns that came with this version: null in older ones
_INDEX = "result.json"


def write_folder(path: str | Path, frames: dict[str, pl.DataFrame], provenance: dict[str, Any]) -> Path:
    """Write frames as `<name>.parquet` and the rest as `result.json`; return the folder.

    Equal input gives equal bytes. A result that is in the folder is replaced.

    :raises StoreError: if the folder cannot be written (permission, disk full, a file in its place).
    """
    folder = local(path)
    staged: list[tuple[Path, Path]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = {}
        for name, frame in frames.items():
            content = _parquet(frame)
            files[f"{name}.parquet"] = {
                "rows": frame.height,
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            staged.append(_stage(folder / f"{name}.parquet", content))
        index = {"schema": SCHEMA_VERSION, "files": files, "provenance": provenance}
        text = json.dumps(index, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        staged.append(_stage(folder / _INDEX, text.encode() + b"\n"))
        for temporary, final in staged:
            os.replace(temporary, final)
    except OSError as error:
        raise StoreError(
            f"The result cannot be saved in {folder}: {error.strerror or error}. "
            "Choose another folder or make room, and save again."
        ) from None
    finally:
        for temporary, _ in staged:
            temporary.unlink(missing_ok=True)
    return folder


def read_folder(
    path: str | Path, schemas: dict[str, pl.Schema], leave_out: Collection[str] = ()
) -> tuple[dict[str, pl.DataFrame], dict[str, Any]]:
    """Read what `write_folder` wrote: the frames named in `schemas`, and the provenance.

    Frames named in `leave_out` are not read, but empty.

    :raises StoreError: if the folder is missing, is not a finished result, was cut short, or was
        written with another schema version.
    """
    folder = local(path)
    index = _read_index(folder)
    absent = {*_OLDER.get(index["schema"], ()), *leave_out}
    frames = {name: pl.DataFrame(schema=schemas[name]) for name in absent if name in schemas}
    for name, schema in schemas.items():
        if name in absent:
            continue
        file = folder / f"{name}.parquet"
        content = _read(file)
        expected = index["files"].get(file.name, {}).get("sha256")
        if hashlib.sha256(content).hexdigest() != expected:
            raise StoreError(
                f"{file} is not the file that {_INDEX} beside it describes: it was cut short or changed, "
                "or saving was interrupted. Save the result again (running the study again costs "
                "nothing where its store is still there)."
            )
        frame = pl.read_parquet(io.BytesIO(content))
        if index["schema"] < SCHEMA_VERSION:
            new = [pl.lit(None, schema[column]).alias(column) for column in _ADDED.get(name, ())]
            frame = frame.with_columns(new).select(list(schema))
        if frame.schema != schema:
            raise StoreError(f"{file} has the columns {frame.columns}; expected were {list(schema)}.")
        frames[name] = frame
    return frames, index["provenance"]


def local(path: str | Path) -> Path:
    """Return a path on this machine.

    :raises StudyError: if it is an address of another kind.
    """
    if "://" in str(path):
        raise StudyError(f"Results are saved in folders of this machine; {path} is not one.")
    return Path(path).expanduser()


def _read_index(folder: Path) -> dict[str, Any]:
    if folder.is_file():
        raise StoreError(f"{folder} is a file; give the folder that a result was saved in.")
    if not folder.is_dir():
        raise StoreError(f"There is no folder {folder}. Give the folder that a result was saved in.")
    if not (folder / _INDEX).is_file():
        raise StoreError(f"{folder} holds no finished result: {_INDEX}, which is written last, is not there.")
    try:
        index = json.loads(_read(folder / _INDEX))
    except ValueError:
        raise StoreError(f"{folder / _INDEX} was cut short or is not JSON. Save the result again.") from None
    version = index.get("schema") if isinstance(index, dict) else None
    if not isinstance(version, int):
        raise StoreError(f"{folder / _INDEX} is not the {_INDEX} of a result: it names no schema version.")
    if version != SCHEMA_VERSION and version not in _OLDER:
        readable = ", ".join(map(str, (*_OLDER, SCHEMA_VERSION)))
        raise StoreError(
            f"The result in {folder} was written with schema {version}; this version of platonic-ray "
            f"reads schema {readable}. Read it with the version that wrote it, or run its study again."
        )
    files, provenance = index.get("files"), index.get("provenance")
    if not (
        isinstance(files, dict)
        and isinstance(provenance, dict)
        and all(isinstance(file, dict) for file in files.values())
    ):
        raise StoreError(f"{folder / _INDEX} is damaged. Save the result again.")
    return dict(index)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise StoreError(f"{file} is missing. Save the result again.") from None
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror or error}.") from None


def _parquet(frame: pl.DataFrame) -> bytes:
    """Return a frame's Parquet bytes, which depend on its values alone.

    pyarrow's writer is serial; polars' splits the rows by threads and by how the frame came about.
    """
    buffer = io.BytesIO()
    table = frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
    pq.write_table(table, buffer, compression="zstd", store_schema=False, row_group_size=1 << 20)
    return buffer.getvalue()


def _stage(final: Path, content: bytes) -> tuple[Path, Path]:
    """Write a file under another name in the same folder; return both names."""
    temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary, final
