"""Samples seen through views: an immutable table whose columns models read.

Nothing here knows where samples come from (`sources.py`) or what a model does with them.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from platonic_ray.datasets.audio import decode_audio
from platonic_ray.datasets.columns import Kind, is_list
from platonic_ray.datasets.images import decode_image
from platonic_ray.datasets.video import decode_video
from platonic_ray.digest import digest, digest_items
from platonic_ray.errors import DataError, StudyError

CHUNK_ROWS = 256
_FILES = {"image": "an image file", "audio": "an audio file", "video": "a video file"}
_DECODERS: Mapping[str, Callable[[bytes], object]] = {
    "image": decode_image,
    "audio": decode_audio,
    "video": decode_video,
}


def items_digest(items: Sequence[Any]) -> str:
    """Return the sha256 of the content of samples in their order: texts, encoded files, row numbers, or lists."""
    return digest_items(_encoded(item) for item in items)


@dataclass(frozen=True)
class Problem:
    """A sample that no model can use in a view, and why."""

    row: int
    id: str
    view: str
    reason: str

    def __str__(self) -> str:
        return f"row {self.row} (id {self.id}), {self.view}: {self.reason}"


class Dataset:
    """N samples, each with one item in every view.

    `views` maps the name of a column to what it holds: "text" (a string column), "image", "audio" or
    "video". A column of the last three is of encoded bytes, of paths (strings, relative to `folder`), or
    of structs {bytes, path} of which the bytes are taken where they are not null. Files are read when
    asked for. In a column of lists a sample has several items.
    Columns of the table that are no views may be labels of the samples.

    >>> table = pa.table({"caption": ["a cat", "a dog", "a fox"]})
    >>> data = Dataset("pets", table, {"caption": "text"})
    >>> len(data), data.ids, data.read("caption", 1, 3)
    (3, ('0', '1', '2'), ['a dog', 'a fox'])
    """

    __slots__ = ("_folder", "_ids", "_name", "_rows", "_table", "_views")

    def __init__(
        self,
        name: str,
        table: pa.Table,
        views: Mapping[str, Kind],
        *,
        ids: Sequence[str] | None = None,
        folder: str | Path | None = None,
        rows: Sequence[int] | None = None,
    ) -> None:
        """Take a table's columns as views; `ids` default to the row numbers.

        :param rows: which rows of the table the samples are, by default all in their order. The table is
            not copied, so that a choice of a mapped one stays mapped.
        :raises DataError: if ids repeat, or their number is not that of the samples.
        """
        self._name = name
        self._table = table
        self._views: Mapping[str, Kind] = MappingProxyType(dict(views))
        self._folder = Path(folder) if folder is not None else None
        self._rows = tuple(range(table.num_rows)) if rows is None else tuple(rows)
        self._ids = tuple(ids) if ids is not None else tuple(map(str, self._rows))
        if len(self._ids) != len(self._rows):
            raise DataError(f"{name}: {len(self._ids)} ids for {len(self._rows)} rows.")
        if len(set(self._ids)) != len(self._ids):
            twice = _first_repeated(self._ids)
            raise DataError(f"{name}: ids must be unique, but {twice!r} is there more than once.")

    @property
    def name(self) -> str:
        """What the dataset is called in messages and reports."""
        return self._name

    @property
    def ids(self) -> tuple[str, ...]:
        """The samples' names, unique, in row order."""
        return self._ids

    @property
    def rows(self) -> tuple[int, ...]:
        """Where each sample stands in the source: its row there, whatever was drawn or left out since."""
        return self._rows

    @property
    def source_rows(self) -> int:
        """How many rows the source has."""
        rows: int = self._table.num_rows
        return rows

    @property
    def views(self) -> Mapping[str, Kind]:
        """The views' names and kinds; read-only."""
        return self._views

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {len(self)} samples, views: {', '.join(self.views)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (*(self._name, self._table, dict(self._views), self._ids, self._folder, self._rows),)

    def kind(self, view: str) -> Kind:
        """Return what a view holds.

        :raises StudyError: for a name that is not a view, with those there are.
        """
        if view in self._views:
            return self._views[view]
        near = difflib.get_close_matches(view, self._views, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise StudyError(f"{self.name} has no view {view!r}.{hint} It has: {', '.join(self._views)}.")

    def several(self, view: str) -> bool:
        """Whether a view holds a list of items for every sample.

        :raises StudyError: for a name that is not a view.
        """
        self.kind(view)
        return is_list(self._table.schema.field(view).type)

    def read(self, view: str, start: int = 0, stop: int | None = None) -> list[Any]:
        """Return the items of rows `start` to `stop` (as a list slices): texts, encoded files, or lists of them.

        :raises StudyError: for a name that is not a view.
        :raises DataError: at the first item that is null or whose file cannot be read.
        """
        items: list[Any] = []
        for row, item, reason in self._items(view, start, stop):
            if item is None:
                raise DataError(f"{self.name}: {Problem(row, self._ids[row], view, reason)}.")
            items.append(item)
        return items

    def labels(self, column: str) -> list[str] | list[int]:
        """Return a label for every sample: a column of strings, integers or booleans.

        :raises StudyError: for a column that is not there, or of another type.
        :raises DataError: where a label is null.
        """
        usable = [
            field.name
            for field in self._table.schema
            if pa.types.is_integer(field.type)
            or pa.types.is_boolean(field.type)
            or pa.types.is_large_string(field.type)
        ]
        if column not in usable:
            near = difflib.get_close_matches(column, usable, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise StudyError(
                f"{self.name} has no column of labels {column!r}.{hint} Columns of strings, integers or "
                f"booleans: {', '.join(usable) or 'none'}."
            )
        found = self._table.column(column).take(pa.array(self._rows, pa.int64())).to_pylist()
        missing = next((row for row, label in enumerate(found) if label is None), None)
        if missing is not None:
            raise DataError(
                f"{self.name}: row {missing} (id {self._ids[missing]}) has no label in {column!r} (null)."
            )
        return found

    def shard_digests(self, view: str, shard_rows: int) -> list[str]:
        """Return the sha256 of each shard of `shard_rows` rows of a view: of its items' content alone.

        Appending rows changes no digest of a shard that was full.

        :raises StudyError: for a name that is not a view, or `shard_rows` below 1.
        :raises DataError: as `read`.
        """
        if shard_rows < 1:
            raise StudyError(f"shard_rows must be at least 1 (given: {shard_rows}).")
        return [
            items_digest(self.read(view, start, start + shard_rows))
            for start in range(0, len(self), shard_rows)
        ]

    def fingerprint(self, views: Sequence[str] | None = None) -> str:
        """Return the sha256 of ids and items in the named views (default: all), in row order.

        It depends on the content, not on how the file stores it. What is missing counts as such.

        :raises StudyError: for a name that is not a view.
        """
        content = {}
        for view in self._views if views is None else views:
            items = (b"" if item is None else b"=" + _encoded(item) for _, item, _ in self._items(view))
            content[view] = {"kind": self.kind(view), "items": digest_items(items)}
        return digest({"ids": digest_items(map(_encoded, self._ids)), "views": content})

    def take(self, rows: Sequence[int]) -> Dataset:
        """Return the dataset of these rows, in this order; every sample keeps its id.

        :raises StudyError: for a row that is not there.
        :raises DataError: for a row given twice.
        """
        rows = [int(row) for row in rows]
        outside = next((row for row in rows if not 0 <= row < len(self)), None)
        if outside is not None:
            raise StudyError(f"{self.name} has rows 0 to {len(self) - 1} (given: {outside}).")
        ids = [self._ids[row] for row in rows]
        places = [self._rows[row] for row in rows]
        return Dataset(self._name, self._table, self._views, ids=ids, folder=self._folder, rows=places)

    def of_ids(self, ids: Sequence[str]) -> Dataset:
        """Return the samples of these ids, in this order.

        :raises StudyError: naming ids that are not there.
        :raises DataError: for an id given twice.
        """
        places = {name: row for row, name in enumerate(self._ids)}
        unknown = [name for name in ids if name not in places]
        if unknown:
            raise StudyError(
                f"{self.name} has no sample of {len(unknown)} of the ids given: {', '.join(map(repr, unknown[:5]))}"
                f"{', …' if len(unknown) > 5 else ''}."
            )
        return self.take([places[name] for name in ids])

    def sample(self, n: int, seed: int) -> Dataset:
        """Return `n` samples drawn without replacement, in the order they were drawn.

        Samples are ordered by sha256(f"{seed}:{id}") and the first n are taken: the draw depends on
        seed and ids alone, and the draw of n starts with the draw of any m < n.

        :raises StudyError: if there are fewer than n samples.
        """
        if not 0 <= n <= len(self):
            raise StudyError(f"{self.name} has {len(self)} samples; {n} cannot be drawn from it.")
        keys = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in self._ids]
        return self.take(sorted(range(len(self)), key=keys.__getitem__)[:n])

    def problems(self, views: Sequence[str]) -> list[Problem]:
        """Return every bad item of the named views, by row, then in the views' order.

        Bad is: missing, an empty list of items; empty or blank text; an image, a sound or a video that
        does not decode or has no pixels, no length or no motion; a file that cannot be read. Everything is
        decoded, so this reads all of the views.

        :raises StudyError: for a name that is not a view.
        """
        views = list(dict.fromkeys(views))
        found = [
            Problem(row, self._ids[row], view, why)
            for view in views
            for row, item, reason in self._items(view)
            if (why := reason or _fault(item, self.kind(view)))
        ]
        return sorted(found, key=lambda problem: problem.row)

    def _items(self, view: str, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Any, str]]:
        """Yield (row, item, "") or (row, None, why there is none), a few rows in memory at a time."""
        kind = self.kind(view)
        column = self._table.column(view)
        first, last, _ = slice(start, stop).indices(len(self))
        for at in range(first, last, CHUNK_ROWS):
            places = self._rows[at : min(at + CHUNK_ROWS, last)]
            if places == tuple(range(places[0], places[0] + len(places))):
                values = column.slice(places[0], len(places)).to_pylist()
            else:  # one by one: taking from a column of many chunks copies all of it
                values = (column[place].as_py() for place in places)
            for row, value in enumerate(values, at):
                yield row, *self._item(value, kind)

    def _item(self, value: Any, kind: Kind) -> tuple[Any, str]:
        """Return a column's value as an item, or a list of items, and ""; or None and why there is none."""
        if not isinstance(value, list):
            item, reason = (value, "") if kind == "text" else self._encoded_file(value, kind)
            return item, reason or ("missing (null)" if item is None else "")
        items = []
        for number, one in enumerate(value, 1):
            item, reason = self._item(one, kind)
            if item is None:
                return None, f"item {number} of {len(value)}: {reason}"
            items.append(item)
        return (items, "") if items else (None, "an empty list of items")

    def _encoded_file(self, value: Any, kind: Kind) -> tuple[bytes | None, str]:
        """Return the value of a column of files as encoded bytes, or None and why there are none."""
        if isinstance(value, dict):
            value = value["bytes"] if value["bytes"] is not None else value["path"]
        if value is None or isinstance(value, bytes):
            return value, ""
        path = (self._folder or Path()) / Path(value).expanduser()
        if not value.strip():
            return None, f"empty path of {_FILES[kind]}"
        try:
            return path.read_bytes(), ""
        except FileNotFoundError:
            return None, f"{kind} file {path} does not exist"
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            return None, f"{kind} file {path} cannot be read ({why})"


def _fault(item: Any, kind: Kind) -> str:
    """Return why an item that is there cannot be used, or ""."""
    if isinstance(item, list):
        faults = (
            f"item {at} of {len(item)}: {why}" for at, one in enumerate(item, 1) if (why := _fault(one, kind))
        )
        return next(faults, "")
    if isinstance(item, bytes):
        try:
            _DECODERS[kind](item)
        except DataError as error:
            return str(error)
        return ""
    if not item:
        return "empty text"
    return "" if item.strip() else "blank text (only white space)"


def _encoded(item: Any) -> bytes:
    if isinstance(item, list):  # a list of one is another content than that one
        return b"[" + digest_items(map(_encoded, item)).encode()
    return item if isinstance(item, bytes) else str(item).encode()


def _first_repeated(names: Sequence[str]) -> str | None:
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def _rebuild(
    name: str,
    table: pa.Table,
    views: Mapping[str, Kind],
    ids: Sequence[str],
    folder: Path | None,
    rows: Sequence[int],
) -> Dataset:
    return Dataset(name, table, views, ids=ids, folder=folder, rows=rows)
