"""A labelled table of scores, and how the pairs of a result are laid out in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from platonic_ray.errors import StudyError


@dataclass(frozen=True, eq=False)
class Matrix:
    """Scores with the names of their rows and columns.

    `values` is `[rows, columns]` float64 and read-only; NaN where a score is undefined or was not
    asked for. `np.asarray(matrix)` gives the values.

    >>> matrix = Matrix("cka", ("a", "b"), ("c",), np.array([[0.5], [np.nan]]))
    >>> matrix.at("a", "c")
    0.5
    """

    metric: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)
        if values.shape != (len(self.rows), len(self.columns)):
            raise StudyError(
                f"{len(self.rows)} rows and {len(self.columns)} columns are named, "
                f"but the values have the shape {values.shape}."
            )
        values.flags.writeable = False
        object.__setattr__(self, "values", values)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return len(self.rows), len(self.columns)

    def at(self, row: str, column: str) -> float:
        """Return one score by its names.

        :raises StudyError: if a name is not in the table.
        """
        for name, names in ((row, self.rows), (column, self.columns)):
            if name not in names:
                raise StudyError(f"There is no {name!r} in this table; it has: {', '.join(names)}.")
        return float(self.values[self.rows.index(row), self.columns.index(column)])

    def to_polars(self) -> pl.DataFrame:
        """Return a frame with the row names in its first column and a column of scores for each name.

        The first column is called `model`, with underscores added where a column has that name.
        """
        key = "model"
        while key in self.columns:
            key += "_"
        values = {name: self.values[:, at] for at, name in enumerate(self.columns)}
        return pl.DataFrame({key: pl.Series(self.rows, dtype=pl.String), **values})

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False and dtype is not None and np.dtype(dtype) != self.values.dtype:
            raise ValueError(f"the values are float64; as {np.dtype(dtype)} they have to be copied")
        wanted = self.values if dtype is None else self.values.astype(dtype, copy=False)
        return wanted.copy() if copy else wanted

    def __repr__(self) -> str:
        from platonic_ray.results.text import grid

        most = 20
        shown = [
            ["" if np.isnan(value) else f"{value:.4f}" for value in row[:most]] for row in self.values[:most]
        ]
        cut = "" if max(self.shape) <= most else f" (the first {most} rows and columns are shown)"
        head = f"Matrix of {self.metric}, {self.shape[0]} × {self.shape[1]}{cut}"
        return f"{head}\n{grid(self.rows[:most], self.columns[:most], shown, width=100)}"


@dataclass(frozen=True, eq=False)
class Layout:
    """Where each pair of one metric stands in its table.

    `index` is `[rows, columns]` int64: the pair's row in the frame it was made from, −1 where
    there is none. `flipped` marks cells that show a symmetric pair the other way round, so that
    its layers have to change places. `square` is True where rows and columns are the same models.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    index: npt.NDArray[np.int64]
    flipped: npt.NDArray[np.bool_]

    @property
    def square(self) -> bool:
        return self.rows == self.columns

    @property
    def symmetric(self) -> bool:
        """True where the lower triangle says all there is to say."""
        return self.square and bool((self.index == self.index.T).all())


def lay_out(pairs: pl.DataFrame, order: Sequence[str]) -> Layout:
    """Arrange the pairs of one metric (columns model_x, model_y, symmetric), models as in `order`.

    A table is a cross table, xs down and ys across, where no model is on both sides or where every
    x meets every y; otherwise it is square over all models.
    """
    xs, ys = pairs["model_x"].to_list(), pairs["model_y"].to_list()
    on_x, on_y = set(xs), set(ys)
    cross = not on_x & on_y or len(set(zip(xs, ys, strict=True))) == len(on_x) * len(on_y)
    rows = tuple(model for model in order if model in (on_x if cross else on_x | on_y))
    columns = tuple(model for model in order if model in (on_y if cross else on_x | on_y))
    row_of = {model: at for at, model in enumerate(rows)}
    column_of = {model: at for at, model in enumerate(columns)}
    index = np.full((len(rows), len(columns)), -1, dtype=np.int64)
    flipped = np.zeros(index.shape, dtype=bool)
    for at, (x, y) in enumerate(zip(xs, ys, strict=True)):
        index[row_of[x], column_of[y]] = at
    for at, (x, y, symmetric) in enumerate(zip(xs, ys, pairs["symmetric"], strict=True)):
        if symmetric and y in row_of and x in column_of and index[row_of[y], column_of[x]] < 0:
            index[row_of[y], column_of[x]] = at
            flipped[row_of[y], column_of[x]] = True
    return Layout(rows, columns, index, flipped)
