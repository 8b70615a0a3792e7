"""Samples seen through views: an immutable table whose columns models read.

Nothing here knows where samples come from (`sources.py`) or what a model does with them.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from platonic_ray.ahead import ahead, cores
from platonic_ray.datasets.columns import Kind, is_list
from platonic_ray.datasets.items import Problem, Shard, encoded, fault_of
from platonic_ray.datasets.values import item_of
from platonic_ray.digest import digest, digest_items
from platonic_ray.errors import DataError, StudyError

CHUNK_ROWS = 256
_DECODED_ROWS = 8  # that a thread checks before it takes others
_MOST_DECODERS = 16  # each holds a decoded file


class Dataset:
    """N samples, each with one item in every view.

    `views` maps the name of a column to what it holds: "text" (a string column), "image", "audio" or
    "video". A column of the last three is of encoded bytes, of paths (strings, relative to `folder`), or
    of structs {bytes, path} of which the bytes are taken where they are not null. Files are read when
    asked for. In a column of lists a sample has several items, unless its view is expanded (`expanded`).
    Columns of the table that are no views may be labels of the samples.

    >>> table = pa.table({"caption": ["a cat", "a dog", "a fox"]})
    >>> data = Dataset("pets", table, {"caption": "text"})
    >>> len(data), data.ids, data.read("caption", 1, 3)
    (3, ('0', '1', '2'), ['a dog', 'a fox'])
    """

    __slots__ = (
        *("_contents", "_folder", "_ids", "_items_at", "_name", "_rows"),
        *("_table", "_view_expanded", "_views"),
    )

    def __init__(
        self,
        name: str,
        table: pa.Table,
        views: Mapping[str, Kind],
        *,
        ids: Sequence[str] | None = None,
        folder: str | Path | None = None,
        rows: Sequence[int] | None = None,
        expanded: tuple[str, Sequence[int]] | None = None,
    ) -> None:
        """Take a table's columns as views; `ids` default to the row numbers.

        :param rows: which rows of the table the samples are, by default all in their order. The table is
            not copied, so that a choice of a mapped one stays mapped.
        :param expanded: a view of lists of which each row has one item, and which.
        :raises DataError: if ids repeat, or their number is not that of the samples.
        """
        self._name = name
        self._table = table
        self._views: Mapping[str, Kind] = MappingProxyType(dict(views))
        self._folder = Path(folder) if folder is not None else None
        self._rows = tuple(range(table.num_rows)) if rows is None else tuple(rows)
        self._ids = tuple(ids) if ids is not None else tuple(map(str, self._rows))
        self._view_expanded: str | None = None if expanded is None else expanded[0]
        self._items_at: tuple[int, ...] = () if expanded is None else tuple(expanded[1])
        self._contents: dict[str, str] = {}
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
        made = self._ids, self._folder, self._rows, self._expanded_of(range(len(self)))
        return _rebuild, (self._name, self._table, dict(self._views), *made)

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
        return view != self._view_expanded and is_list(self._table.schema.field(view).type)

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

    def expanded(self, view: str) -> Dataset:
        """Return the dataset with a row for every item of a view of lists.

        The rows of a sample stand one after another, named `id#0`, `id#1`, …; in the other views each has the
        sample's item. A sample without items keeps one row, which is bad.

        :raises StudyError: for a name that is not a view of lists, or if one is expanded already.
        """
        if not self.several(view) or self._view_expanded is not None:
            raise StudyError(f"{self.name}: {view!r} is no view of lists that can be expanded.")
        column = self._table.column(view)
        counts = [max(1, len(column[place]) if column[place].is_valid else 0) for place in self._rows]
        at = [(row, item) for row, count in enumerate(counts) for item in range(count)]
        return Dataset(
            self._name,
            self._table,
            self._views,
            ids=[f"{self._ids[row]}#{item}" for row, item in at],
            folder=self._folder,
            rows=[self._rows[row] for row, _ in at],
            expanded=(view, [item for _, item in at]),
        )

    @property
    def owners(self) -> tuple[int, ...] | None:
        """Of an expanded dataset, for each row the first row of its sample; None of any other."""
        if self._view_expanded is None:
            return None
        first: dict[int, int] = {}
        return tuple(first.setdefault(place, row) for row, place in enumerate(self._rows))

    def shard(self, view: str, start: int, stop: int) -> Shard:
        """Return the items of rows `start` to `stop`; one that all rows of a sample share is there once.

        :raises StudyError: for a name that is not a view.
        :raises DataError: as `read`.
        """
        firsts = self._firsts(view, start, stop)
        if firsts is None:
            return Shard(tuple(self.read(view, start, stop)))
        counts = [b - a for a, b in itertools.pairwise([*firsts, min(stop, len(self))])]
        return Shard(tuple(self.read(view, row, row + 1)[0] for row in firsts), tuple(counts))

    def numbers(self, view: str) -> tuple[int, ...]:
        """Return which row of a file with a row for each item of a view's source belongs to each row here.

        That is the sample's row in the source or, of the view that is expanded, its item's place among
        all items of the source.
        """
        if view != self._view_expanded:
            return self._rows
        starts = list(itertools.accumulate(self._source_counts(view), initial=0))
        return tuple(starts[place] + item for place, item in zip(self._rows, self._items_at, strict=True))

    def names(self, view: str) -> tuple[str, ...]:
        """Return what a file that names the items of a view calls that of each row here.

        That is the sample's id or, of the view that is expanded, the row's own: `id#0`, `id#1`, ….
        """
        if self._view_expanded in (None, view):
            return self._ids
        return tuple(name.rpartition("#")[0] for name in self._ids)

    def source_items(self, view: str) -> int:
        """Return how many rows a file with a row for each item of a view's source has."""
        return sum(self._source_counts(view)) if view == self._view_expanded else self.source_rows

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
            self.shard(view, start, start + shard_rows).digest() for start in range(0, len(self), shard_rows)
        ]

    def fingerprint(self, views: Sequence[str] | None = None) -> str:
        """Return the sha256 of ids and items in the named views (default: all), in row order.

        It depends on the content, not on how the file stores it. What is missing counts as such. A view is
        read once, however often it is asked for.

        :raises StudyError: for a name that is not a view.
        """
        content = {}
        for view in self._views if views is None else views:
            if view not in self._contents:
                items = (b"" if item is None else b"=" + encoded(item) for _, item, _ in self._items(view))
                self._contents[view] = digest_items(items)
            content[view] = {"kind": self.kind(view), "items": self._contents[view]}
        return digest({"ids": digest_items(map(encoded, self._ids)), "views": content})

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
        return Dataset(
            self._name,
            self._table,
            self._views,
            ids=ids,
            folder=self._folder,
            rows=places,
            expanded=self._expanded_of(rows),
        )

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
        decoded, so this reads all of the views: on every core up to 16, each with one decoded file in memory.

        :raises StudyError: for a name that is not a view.
        """
        spans = []
        for view in dict.fromkeys(views):
            step = CHUNK_ROWS if self.kind(view) == "text" else _DECODED_ROWS
            spans += [(view, start, start + step) for start in range(0, len(self), step)]
        parts = ahead(lambda span: self._problems(*span), spans, min(_MOST_DECODERS, cores()))
        return sorted(itertools.chain.from_iterable(parts), key=lambda problem: problem.row)

    def _problems(self, view: str, start: int, stop: int) -> list[Problem]:
        """Return the bad items of some rows of a view, in row order."""
        kind, shared = self.kind(view), view != self._view_expanded
        found = []
        last, why = -1, ""
        for row, item, reason in self._items(view, start, stop):
            if not (shared and self._rows[row] == last):  # the rows of a sample share its item
                last, why = self._rows[row], reason or fault_of(item, kind)
            if why:
                found.append(Problem(row, self._ids[row], view, why))
        return found

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
                if view == self._view_expanded and value:
                    value = value[self._items_at[row]]
                yield row, *item_of(value, kind, self._folder)

    def _expanded_of(self, rows: Sequence[int]) -> tuple[str, list[int]] | None:
        if self._view_expanded is None:
            return None
        return self._view_expanded, [self._items_at[row] for row in rows]

    def _firsts(self, view: str, start: int, stop: int) -> list[int] | None:
        """Return, of a view whose items are shared by rows, those that begin a sample or the span."""
        if self._view_expanded in (None, view):
            return None
        span = range(start, min(stop, len(self)))
        return [row for row in span if row == start or self._rows[row] != self._rows[row - 1]]

    def _source_counts(self, view: str) -> list[int]:
        return [len(value) if value.is_valid else 0 for value in self._table.column(view)]


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
    expanded: tuple[str, Sequence[int]] | None,
) -> Dataset:
    return Dataset(name, table, views, ids=ids, folder=folder, rows=rows, expanded=expanded)
