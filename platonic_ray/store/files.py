"""Bytes on any pyarrow filesystem: one verb a function, atomic to every reader.

A local write goes to a temporary file in the same folder, is flushed to the disk and renamed; an
object store shows an object only when its upload is complete. Either way a reader sees a whole
file or none.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from platonic_ray.errors import StoreError


def open_filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the filesystem of a URI or local path, and the path within it.

    :raises StoreError: if no filesystem is known for the URI.
    """
    if not uri:
        raise StoreError("The store has an empty name; give a folder or a URI.")
    if "://" not in uri:
        return fs.LocalFileSystem(), str(Path(uri).expanduser().absolute())
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise StoreError(
            f"The store {uri} cannot be opened: {error}. Give a folder, or a URI that pyarrow knows (s3://, gs://)."
        ) from None
    return filesystem, path


@contextlib.contextmanager
def explained(action: str, path: str) -> Iterator[None]:
    """Turn an operating system's error into a `StoreError` that says what to do."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "What was finished before is kept; run again to resume.")
        raise StoreError(f"{action} {path} failed: {error.strerror or error}. {advice}") from None


_ROOM = "Free some space, or choose another store (--store); what was finished is kept, run again to resume."
_OTHER = "Choose a store that you may write to (--store, or `[run] store`)."
_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), _ROOM),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT), _OTHER
    ),
}


def write_atomic(filesystem: fs.FileSystem, path: str, data: bytes | pa.Buffer) -> None:
    """Write a whole file so that no reader ever sees a part of it; an older file is replaced.

    :raises StoreError: if it cannot be written; nothing is left behind.
    """
    with explained("Writing", path):
        if isinstance(filesystem, fs.LocalFileSystem):
            _write_local(Path(path), data)
        else:
            filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
            with filesystem.open_output_stream(path) as stream:
                stream.write(data)


def _write_local(path: Path, data: bytes | pa.Buffer) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_bytes(filesystem: fs.FileSystem, path: str) -> pa.Buffer | None:
    """Return a file's content, or None if there is no such file.

    :raises StoreError: if it is there and cannot be read.
    """
    with explained("Reading", path):
        try:
            with filesystem.open_input_file(path) as stream:
                return stream.read_buffer()
        except FileNotFoundError:
            return None


def remove(filesystem: fs.FileSystem, path: str) -> None:
    """Remove a file; it is no error if it has gone already."""
    with explained("Removing", path), contextlib.suppress(FileNotFoundError):
        filesystem.delete_file(path)


def children(filesystem: fs.FileSystem, path: str) -> list[fs.FileInfo]:
    """List a folder, sorted by name; empty if it is not there. Temporary files are left out."""
    selector = fs.FileSelector(path, allow_not_found=True)
    with explained("Listing", path):
        try:
            found = filesystem.get_file_info(selector)
        except FileNotFoundError:  # it was made after Arrow had found nothing there to open
            found = filesystem.get_file_info(selector)
    return sorted(
        (info for info in found if not info.base_name.startswith(".")), key=lambda info: info.base_name
    )
