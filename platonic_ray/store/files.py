"""Bytes on any pyarrow filesystem: one verb a function, atomic to every reader.

A local write goes to a temporary file in the same folder, is flushed to the disk and renamed; an
object store shows an object only when its upload is complete. Either way a reader sees a whole
file or none. What an object store fails at is tried again for a while (`objects.patiently`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from platonic_ray.errors import StoreError
from platonic_ray.store import objects

_AT_A_TIME = 32


def open_filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the filesystem of a URI or local path, and the path within it.

    :raises StoreError: if no filesystem is known for the URI.
    """
    if not uri:
        raise StoreError("The store has an empty name; give a folder or a URI.")
    if "://" not in uri:
        return fs.LocalFileSystem(), str(Path(uri).expanduser().absolute())
    return objects.open_uri(uri)


def is_local(filesystem: fs.FileSystem) -> bool:
    """Whether a filesystem is that of this machine."""
    return isinstance(filesystem, fs.LocalFileSystem)


@contextlib.contextmanager
def explained(action: str, path: str) -> Iterator[None]:
    """Turn an operating system's error into a `StoreError` that says what to do."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        advice = objects.advice(error) or _ADVICE.get(error.errno or 0, _AGAIN)
        what = " ".join(
            [str(error.strerror or error).rstrip("."), *map("({})".format, getattr(error, "__notes__", ()))]
        )
        raise StoreError(f"{action} {path} failed: {what}. {advice}") from None


_AGAIN = "What was finished before is kept; run again to resume."
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
        if is_local(filesystem):
            _write_local(Path(path), data)
        elif objects.is_object_store(filesystem):
            # In a thread of its own, which no interrupt of the main thread cuts short: closing a stream
            # that was opened, and not written to, would upload an empty object.
            with ThreadPoolExecutor(1) as pool:
                pool.submit(
                    objects.patiently, filesystem, lambda: _write_stream(filesystem, path, data)
                ).result()
        else:
            filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
            temporary = f"{path}.{uuid.uuid4().hex[:12]}.tmp"
            _write_stream(filesystem, temporary, data)
            filesystem.move(temporary, path)


def _write_stream(filesystem: fs.FileSystem, path: str, data: bytes | pa.Buffer) -> None:
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
            return objects.patiently(filesystem, lambda: _read_whole(filesystem, path))
        except FileNotFoundError:
            return None


def _read_whole(filesystem: fs.FileSystem, path: str) -> pa.Buffer:
    with filesystem.open_input_file(path) as stream:
        size = stream.size()
        data = stream.read_buffer()
    if data.size < size:
        raise OSError(f"the content was truncated: {data.size} of {size} bytes came")
    return data


def read_many(filesystem: fs.FileSystem, paths: Sequence[str]) -> list[pa.Buffer | None]:
    """Return the contents of files, as `read_bytes` does, several at a time: an object store takes its time for each.

    :raises StoreError: if one is there and cannot be read.
    """
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        return list(pool.map(lambda path: read_bytes(filesystem, path), paths))


def written_at(info: fs.FileInfo) -> float:
    """Return when a file was written, in seconds since the epoch; 0 where its filesystem does not say."""
    return 0.0 if info.mtime is None else float(info.mtime.timestamp())


def written(filesystem: fs.FileSystem, path: str) -> float:
    """Return when a file was written, as `written_at`; 0 if it is not there."""
    with explained("Reading", path):
        return written_at(objects.patiently(filesystem, lambda: filesystem.get_file_info(path)))


def remove(filesystem: fs.FileSystem, path: str) -> None:
    """Remove a file; it is no error if it has gone already."""
    with explained("Removing", path), contextlib.suppress(FileNotFoundError):
        objects.patiently(filesystem, lambda: filesystem.delete_file(path))


def children(filesystem: fs.FileSystem, path: str, *, below: bool = False) -> list[fs.FileInfo]:
    """List a folder, sorted by path; empty if it is not there. Hidden and temporary files are left out.

    :param below: list what is in its folders too.
    """
    return [info for info in _listed(filesystem, path, below) if not _is_passing(info.base_name)]


def sweep(filesystem: fs.FileSystem, root: str, *, before: float) -> None:
    """Remove temporary files below a folder that were written before a time, in seconds since the epoch.

    A writer that is killed leaves its own; on an object store there are none.
    """
    for info in _listed(filesystem, root, below=True):
        if _TEMPORARY.search(info.base_name) and written_at(info) < before:
            with contextlib.suppress(StoreError):  # another user's, perhaps: it is in nobody's way
                remove(filesystem, info.path)


_TEMPORARY = re.compile(r"\.[0-9a-f]{12}\.tmp$")


def _is_passing(name: str) -> bool:
    return name.startswith(".") or _TEMPORARY.search(name) is not None


def _listed(filesystem: fs.FileSystem, path: str, below: bool) -> list[fs.FileInfo]:
    selector = fs.FileSelector(path, allow_not_found=True, recursive=below)
    with explained("Listing", path):
        try:
            found = objects.patiently(filesystem, lambda: filesystem.get_file_info(selector))
        except FileNotFoundError:  # it was made, or a part of it went, while Arrow looked
            found = objects.patiently(filesystem, lambda: filesystem.get_file_info(selector))
    return sorted(found, key=lambda info: info.path)
