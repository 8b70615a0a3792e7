"""Copies of samples on this machine's disk: of what lies elsewhere, and of what would not stay in memory.

What a URI names is fetched once a machine. A table that would be large in memory is written once as an
Arrow file and mapped from then on: all processes of a machine share its pages, and the system drops
those that nobody reads. Copies are named by what they were made of (place, sizes, times), appear whole
or not at all, and can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from platonic_ray.cache import cache_folder
from platonic_ray.digest import digest
from platonic_ray.errors import DataError, StudyError

LARGE_BYTES = 256 << 20
"""From this size on a table is mapped instead of held in memory."""


def fetch(uri: str) -> Path:
    """Return the path, on this machine, of the file or folder that a URI of a pyarrow filesystem names.

    :raises StudyError: for a URI that pyarrow does not know.
    :raises DataError: if there is nothing, or it cannot be read.
    """
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except (pa.ArrowException, OSError) as error:
        raise StudyError(
            f"{uri} cannot be opened: {_first_line(error)}. Give a path, or a URI that "
            "pyarrow knows (s3://, gs://, file://)."
        ) from None
    if isinstance(filesystem, fs.LocalFileSystem):
        return Path(path)
    try:
        info = filesystem.get_file_info(path)
        if info.type == fs.FileType.NotFound:
            raise DataError(f"There is nothing at {uri}.")
        whole = info.type == fs.FileType.File
        files = [info] if whole else filesystem.get_file_info(fs.FileSelector(path, recursive=True))
        files = [file for file in files if file.type == fs.FileType.File]
        target = _copy_of("fetched", uri, sorted((file.path, file.size, file.mtime_ns) for file in files))
        if not target.is_dir():
            with _fresh(target) as folder:
                for file in files:
                    inside = file.base_name if whole else file.path.removeprefix(path).lstrip("/")
                    local = folder / inside
                    if not local.resolve().is_relative_to(folder.resolve()):
                        raise DataError(f"{uri} holds {file.path}, which is no path inside of it.")
                    local.parent.mkdir(parents=True, exist_ok=True)
                    with filesystem.open_input_stream(file.path) as source, local.open("wb") as copy:
                        shutil.copyfileobj(source, copy, 1 << 20)
    except OSError as error:
        raise DataError(f"{uri} cannot be fetched: {_first_line(error)}.") from None
    return target / info.base_name if whole else target


def mapped(made_of: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> pa.Table:
    """Return a table memory-mapped from a copy; its batches are read only if there is no copy yet.

    :param made_of: the file that the batches come from.
    :raises DataError: if the copy cannot be written.
    """
    status = made_of.stat()
    place = [str(made_of.resolve()), status.st_size, status.st_mtime_ns, status.st_ino]
    target = _copy_of("tables", *place, str(schema))
    if not target.is_dir():
        try:
            with _fresh(target) as folder, pa.ipc.new_file(folder / "table.arrow", schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
        except OSError as error:
            raise DataError(
                f"{made_of} needs a copy of its samples in {target.parent}, which cannot be written: "
                f"{_first_line(error)}. Free some space, or set PLATONIC_RAY_CACHE to another folder."
            ) from None
    return pa.ipc.open_file(pa.memory_map(str(target / "table.arrow"))).read_all()


def _copy_of(what: str, *made_of: object) -> Path:
    return cache_folder("datasets") / what / digest(list(made_of))


@contextlib.contextmanager
def _fresh(target: Path) -> Iterator[Path]:
    """Give a folder that takes its name when the block ends well, and goes when it does not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".fresh-", dir=target.parent))
    try:
        yield folder
        try:
            folder.replace(target)
        except OSError:
            if not target.is_dir():  # else another process was first
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
