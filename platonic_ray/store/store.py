"""The durable truth of a run: content-addressed artifacts on any pyarrow filesystem.

An artifact is a set of named Arrow tables (parts) under a kind and a key that was made from
everything that determines its content. Layout::

    ROOT/platonic-ray.json                                  the format's version
    ROOT/<kind>/<key[:2]>/<key>/<part>-<sha256[:16]>.arrow  the parts
    ROOT/<kind>/<key[:2]>/<key>/manifest.json               the marker: written last
    ROOT/runs/<run>/events-<n>.jsonl                        logs of runs, never keys

Without its manifest an artifact does not exist. Parts are named by their content and manifests are
replaced atomically, so two writers of one key cannot harm each other: whichever comes last, the
manifest that a reader sees names parts that are whole. Every read is checked against the sha256 in
the manifest. Kinds in use: `features`, `recipes`, `neighbors`, `kernels`, `scales`, `permuted`, `scores`, `checks`,
`results`, `jobs`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import fs

from platonic_ray.errors import StoreError
from platonic_ray.store import arrow, files, objects

FORMAT = 1
_DAY_S = 24 * 3600.0
_PART = re.compile(r"[a-z0-9][a-z0-9_.]{0,63}")
_KIND = re.compile(r"[a-z]{1,32}")
_KEY = re.compile(r"[0-9a-f]{64}")


class CorruptArtifactError(StoreError):
    """A part that is missing or does not have the sha256 that its manifest names."""


@dataclass(frozen=True)
class Part:
    """One table of an artifact: its file name, the sha256 of the file and its size."""

    file: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """What an artifact consists of, and what its writer noted about it."""

    kind: str
    key: str
    parts: Mapping[str, Part]
    meta: Mapping[str, Any]

    @property
    def size_bytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.size_bytes for part in self.parts.values())


class Draft:
    """An artifact in the making: parts become durable one by one, `commit` makes it exist."""

    def __init__(self, store: Store, kind: str, key: str) -> None:
        self._store, self._kind, self._key = store, kind, key
        self._parts: dict[str, Part] = {}

    def add(self, name: str, table: pa.Table) -> Part:
        """Write a part durably.

        :raises StoreError: if it cannot be written.
        """
        if not _PART.fullmatch(name):
            raise ValueError(f"a part is named in lower-case letters, digits, '_' and '.', not {name!r}")
        data = arrow.to_ipc(table)
        sha256 = hashlib.sha256(data).hexdigest()
        part = Part(f"{name}-{sha256[:16]}.arrow", sha256, data.size)
        self._store.write(f"{self._store.folder(self._kind, self._key)}/{part.file}", data)
        self._parts[name] = part
        return part

    def commit(self, meta: Mapping[str, Any] | None = None) -> Manifest:
        """Write the manifest: from now on the artifact exists."""
        manifest = Manifest(self._kind, self._key, dict(self._parts), dict(meta or {}))
        body = {
            "format": FORMAT,
            "kind": manifest.kind,
            "key": manifest.key,
            "parts": {name: vars(part) for name, part in manifest.parts.items()},
            "meta": manifest.meta,
        }
        text = json.dumps(body, indent=1, ensure_ascii=False, sort_keys=True)
        self._store.write(f"{self._store.folder(self._kind, self._key)}/manifest.json", text.encode())
        return manifest


class Store:
    """Artifacts below one folder of a filesystem. Cheap to make; each process opens its own."""

    def __init__(self, uri: str) -> None:
        self._fs, self._root = files.open_filesystem(uri)
        # Absolute, because it travels to processes that run in other folders.
        self.uri = uri if "://" in uri else self._root

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.uri,)

    @classmethod
    def open(cls, uri: str) -> Store:
        """Open a store for a run: make it if it is new, check its version, prove it can be written.

        :raises StoreError: if it cannot be written or was made by another version's format.
        """
        store = cls(uri)
        marker = f"{store._root}/platonic-ray.json"
        with files.explained("Opening the store", uri):
            found = files.read_bytes(store._fs, marker)
            others = found is None and files.children(store._fs, store._root)
            if others:  # another run may have made the store since we looked
                found = files.read_bytes(store._fs, marker)
        if found is None:
            if others:
                raise StoreError(
                    f"{uri} is not empty and is no platonic_ray store. Choose an empty or a new folder."
                )
            files.write_atomic(store._fs, marker, json.dumps({"format": FORMAT}).encode())
            return store
        try:
            version = json.loads(found.to_pybytes())["format"]
        except (ValueError, KeyError, TypeError):
            raise StoreError(f'{marker} is damaged; it should read {{"format": {FORMAT}}}.') from None
        if version != FORMAT:
            raise StoreError(
                f"The store {uri} has format {version}; this version of platonic_ray reads {FORMAT}. "
                "Choose another store, or the version that made it."
            )
        probe = f"{store._root}/.probe"  # one name, so that killed openers do not fill a bucket
        files.write_atomic(store._fs, probe, b"")
        files.remove(store._fs, probe)
        store._sweep()
        return store

    def _sweep(self) -> None:
        """Remove what killed writers left behind, once a day: to look for it takes a walk through the store."""
        swept, day_ago = f"{self._root}/.swept", time.time() - _DAY_S
        with contextlib.suppress(StoreError):  # a store that can be used is one without it
            if not objects.is_object_store(self._fs) and files.written(self._fs, swept) < day_ago:
                files.sweep(self._fs, self._root, before=day_ago)
                self.write(swept, b"")

    def exists(self) -> bool:
        """Whether there is a store of this format, without making one."""
        with files.explained("Opening the store", self.uri):
            found = files.read_bytes(self._fs, f"{self._root}/platonic-ray.json")
        try:
            return found is not None and json.loads(found.to_pybytes())["format"] == FORMAT
        except (ValueError, KeyError, TypeError):
            return False

    def draft(self, kind: str, key: str) -> Draft:
        """Begin an artifact."""
        return Draft(self, kind, key)

    def put(
        self, kind: str, key: str, parts: Mapping[str, pa.Table], meta: Mapping[str, Any] | None = None
    ) -> Manifest:
        """Write an artifact whole."""
        draft = self.draft(kind, key)
        for name, table in parts.items():
            draft.add(name, table)
        return draft.commit(meta)

    def manifest(self, kind: str, key: str) -> Manifest | None:
        """Return an artifact's manifest, or None where there is no such artifact.

        A manifest that is damaged counts as none: its artifact is made again.

        :raises StoreError: if another version of this package wrote it: it names another format.
        """
        for _ in range(2):  # on an object store, one that is replaced between two requests may come torn
            found = files.read_bytes(self._fs, f"{self.folder(kind, key)}/manifest.json")
            if found is None:
                return None
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                body = json.loads(found.to_pybytes())
                if body["format"] != FORMAT:
                    raise StoreError(
                        f"{self.folder(kind, key)} was written by another version of platonic_ray (format "
                        f"{body['format']!r}; this one reads {FORMAT}). Use that version, or another store."
                    )
                parts = {name: Part(**part) for name, part in body["parts"].items()}
                if all(_PART.fullmatch(name) and _KEY.fullmatch(part.sha256) for name, part in parts.items()):
                    return Manifest(kind, key, parts, body["meta"])
        return None

    def read(self, manifest: Manifest, part: str) -> pa.Table:
        """Read and verify one part.

        :raises CorruptArtifactError: if the file is missing, if its content is not what was written, or if it
            holds other types than this package writes.
        """
        entry = manifest.parts[part]
        folder = self.folder(manifest.kind, manifest.key)
        # The name is derived, not taken: a manifest can never point out of its folder.
        path = f"{folder}/{part}-{entry.sha256[:16]}.arrow"
        for _ in range(2):  # what was damaged on its way here is whole the second time
            data = files.read_bytes(self._fs, path)
            if data is None:
                raise CorruptArtifactError(f"{path} is missing although its manifest names it.")
            if hashlib.sha256(data).hexdigest() == entry.sha256:
                try:
                    return arrow.from_ipc(data)
                except (ValueError, TypeError, pa.ArrowException) as error:
                    raise CorruptArtifactError(f"{path} is no plain Arrow table: {error}.") from None
        raise CorruptArtifactError(f"{path} does not have the sha256 in its manifest: it was damaged.")

    def keys(self, kind: str) -> list[str]:
        """Return the keys of all artifacts of a kind that exist, sorted."""
        if not _KIND.fullmatch(kind):
            raise ValueError(f"not a kind of artifact: {kind!r}")
        found = files.children(self._fs, f"{self._root}/{kind}", below=True)
        return sorted(info.path.rsplit("/", 2)[1] for info in found if info.base_name == "manifest.json")

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine's file system (which others may or may not share)."""
        return files.is_local(self._fs)

    def write_word(self, word: str) -> None:
        """Leave a word, which shows another process that it sees the same store."""
        self.write(f"{self._root}/.word", word.encode())

    def read_word(self) -> str | None:
        """Return the word that was left last, or None."""
        found = files.read_bytes(self._fs, f"{self._root}/.word")
        return None if found is None else found.to_pybytes().decode(errors="replace")

    def discard(self, kind: str, key: str) -> None:
        """Let an artifact cease to exist: its manifest goes, its parts may stay."""
        files.remove(self._fs, f"{self.folder(kind, key)}/manifest.json")

    def append_events(self, run: str, segment: int, lines: list[str]) -> None:
        """Write one segment of a run's event log."""
        self.write(f"{self._root}/runs/{run}/events-{segment:06d}.jsonl", ("\n".join(lines) + "\n").encode())

    def events(self, run: str, *, segments: int | None = None) -> list[dict[str, Any]]:
        """Return all events of a run, or those of its first segments, in the order they were written."""
        paths = [info.path for info in self._segments(run)][:segments]
        texts = [data.to_pybytes().decode() for data in files.read_many(self._fs, paths) if data is not None]
        return [json.loads(line) for text in texts for line in text.splitlines()]

    def last_written(self, run: str) -> float:
        """Return when a run last wrote to its log, in seconds since the epoch, by the clock of the store's files."""
        return max((files.written_at(info) for info in self._segments(run)), default=0.0)

    def _segments(self, run: str) -> list[fs.FileInfo]:
        return files.children(self._fs, f"{self._root}/runs/{run}")

    def runs(self) -> list[str]:
        """Return the names of the runs that left a log, oldest first."""
        return [info.base_name for info in files.children(self._fs, f"{self._root}/runs")]

    def folder(self, kind: str, key: str) -> str:
        """Return the folder of an artifact; kind and key are checked, so it is always below the root."""
        if not _KIND.fullmatch(kind) or not _KEY.fullmatch(key):
            raise ValueError(f"not an artifact's address: {kind!r}, {key!r}")
        return f"{self._root}/{kind}/{key[:2]}/{key}"

    def write(self, path: str, data: bytes | pa.Buffer) -> None:
        """Write a file below the root, atomically."""
        files.write_atomic(self._fs, path, data)
