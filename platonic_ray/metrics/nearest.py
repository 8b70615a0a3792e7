"""Neighbors of features, wherever these are: in memory, or read block by block from a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from platonic_ray.errors import DataError, StudyError
from platonic_ray.kernels import (
    TieRule,
    TopK,
    as_rows,
    exact_neighbors,
    growing_neighbors,
    prepare,
    require_finite,
)
from platonic_ray.kernels.exhaustive import Similarity
from platonic_ray.kernels.ties import Ties
from platonic_ray.metrics.base import whole, whole_numbers
from platonic_ray.metrics.unary import blocks_digest, rows_digest

SIMILARITIES = ("cosine", "inner", "euclidean")
_READ_BYTES = 64 * 2**20


class Readable(Protocol):
    """A matrix that is read block by block: `shape`, and `x[start:stop]` gives rows."""

    shape: tuple[int, ...]

    def __getitem__(self, rows: slice) -> Any: ...


class NpyFile:
    """The matrix of a `.npy` file. Rows are read, not mapped: what was read does not stay in memory.

    :raises DataError: if it is no `.npy` file of a matrix of real numbers in C order.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        try:
            mapped = np.load(self._path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as a .npy file of features: {error}") from None
        if mapped.ndim != 2 or not mapped.flags.c_contiguous or mapped.dtype.kind not in "fiu":
            raise DataError(
                f"{path} must hold a matrix [samples, width] of numbers in C order, not {mapped.dtype} of shape "
                f"{list(mapped.shape)}."
            )
        self.shape, self._dtype, self._offset = mapped.shape, mapped.dtype, mapped.offset

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.shape[0])
        width = self.shape[1]
        offset = self._offset + start * width * self._dtype.itemsize
        flat = np.fromfile(self._path, self._dtype, (stop - start) * width, offset=offset)
        return flat.reshape(stop - start, width)


def nearest(
    x: Any,
    k: int = 10,
    similarity: str = "cosine",
    ties: Ties = "hash",
    queries: Any = None,
    sizes: Sequence[int] | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Return, for every size of the gallery, the nearest rows of the queries; see `api.neighbors`.

    :returns: for each size ids `[q, k] int64` and similarities `[q, k] float32` (for "euclidean" the
        distances); without `sizes`, of all rows alone.
    :raises StudyError: if k, a size or a query cannot be, or an option is unknown.
    :raises DataError: if the features are no finite matrix, or queries have another width.
    """
    k = whole("k", k)
    if similarity not in SIMILARITIES:
        raise StudyError(f'similarity must be "cosine", "inner" or "euclidean" (given: {similarity!r}).')
    kind: Similarity = "euclidean" if similarity == "euclidean" else "inner"

    def prepared(rows: Any, start: int, name: str) -> Tensor:
        rows = as_rows(rows, name)
        require_finite(rows, name if not start else f"{name} from row {start} on")
        return prepare(rows, "l2" if similarity == "cosine" else "none")

    source = NpyFile(x) if isinstance(x, str | Path) else x
    if _is_read(source):
        n, width = _shape(source)

        def read(start: int, stop: int) -> Tensor:
            return prepared(source[start:stop], start, "features")
    else:
        rows = prepared(source, 0, "features")
        n, width = rows.shape

        def read(start: int, stop: int) -> Tensor:
            return rows[start:stop]

        if queries is None and sizes is None:
            _sizes(None, n, k)
            return [_result(exact_neighbors(rows, k, cache(lambda: rows_digest(rows)), kind, ties), k, kind)]

    own, own_ids = _queries(queries, n, width, prepared, read)
    wanted = _sizes(sizes, n, k)
    digest = cache(lambda: blocks_digest(_blocks(read, n, width), n, width))
    found = growing_neighbors(
        read, n, width, k, TieRule(digest, ties), kind, sizes=wanted, queries=own, query_ids=own_ids
    )
    return [_result(top, k, kind) for top in found]


def _is_read(source: Any) -> bool:
    """Return whether rows are to be read as they are needed: a file, or what is like an array and is none."""
    if isinstance(source, Tensor | list | tuple):
        return False
    if isinstance(source, np.ndarray) and not isinstance(source, np.memmap):
        return False
    return hasattr(source, "shape") and hasattr(source, "__getitem__")


def _shape(source: Readable) -> tuple[int, int]:
    if len(source.shape) != 2 or 0 in source.shape:
        raise DataError(f"features must be a matrix [samples, width], not of shape {list(source.shape)}.")
    return int(source.shape[0]), int(source.shape[1])


def _queries(
    queries: Any,
    n: int,
    width: int,
    prepared: Callable[[Any, int, str], Tensor],
    read: Callable[[int, int], Tensor],
) -> tuple[Tensor | None, Tensor | None]:
    """Return the prepared rows of the queries, and which rows of the gallery they are."""
    if queries is None:
        return None, None
    given = queries if isinstance(queries, Tensor) else torch.from_numpy(np.asarray(queries))
    if given.ndim == 2:
        rows = prepared(queries, 0, "queries")
        if rows.shape[1] != width:
            raise DataError(f"queries have {rows.shape[1]} columns, and the gallery {width}.")
        return rows, None
    if given.ndim != 1 or given.is_floating_point() or given.dtype == torch.bool or given.shape[0] == 0:
        raise DataError(
            "queries must be rows [q, width], or the numbers of some rows of the gallery, whole and 1-D "
            f"(given: {given.dtype} of shape {list(given.shape)})."
        )
    at = given.long()
    if int(at.min()) < 0 or int(at.max()) >= n:
        raise StudyError(
            f"queries are rows 0 to {n - 1} of the gallery (given: {int(at.min())} to {int(at.max())})."
        )
    return torch.cat([read(i, i + 1) for i in at.tolist()]), at


def _sizes(sizes: Sequence[int] | None, n: int, k: int) -> list[int]:
    wanted = [n] if sizes is None else list(whole_numbers("sizes", sizes))
    if not wanted or wanted != sorted(set(wanted)) or wanted[-1] > n or wanted[0] < 1:
        raise StudyError(f"sizes must ascend and end at {n} or below; given: {', '.join(map(str, wanted))}.")
    least = wanted[0]
    if not 1 <= k < least:
        raise StudyError(
            f"k = {k} neighbors cannot be had of {least} samples: 1 ≤ k ≤ {least - 1} is needed."
        )
    return wanted


def _blocks(read: Callable[[int, int], Tensor], n: int, width: int) -> Iterator[Tensor]:
    step = max(1, _READ_BYTES // (4 * width))
    return (read(start, min(start + step, n)) for start in range(0, n, step))


def _result(top: TopK, k: int, kind: Similarity) -> tuple[Tensor, Tensor]:
    values = top.values.sqrt() if kind == "euclidean" else top.values
    return top.ids[:, :k].contiguous(), values[:, :k].float()
