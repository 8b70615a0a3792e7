"""From scored pairs of models to the frames of a result. Reduces and labels; computes no score.

The three schemas below are part of the schema of a saved result; `result.py` documents them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from platonic_ray.errors import StudyError

if TYPE_CHECKING:  # making a result needs these; reading one does not, and is quick
    from platonic_ray.statistics import Calibration, Interval

SCORES_SCHEMA = pl.Schema(
    {
        "metric": pl.String,
        "model_x": pl.String,
        "model_y": pl.String,
        "layer_x": pl.Int64,
        "layer_y": pl.Int64,
        "layer_x_name": pl.String,
        "layer_y_name": pl.String,
        "score": pl.Float64,
        "status": pl.String,
    }
)
_MODELS: Mapping[str, Any] = {
    "metric": pl.String,
    "model_x": pl.String,
    "model_y": pl.String,
    "score": pl.Float64,
    "layer_x": pl.Int64,
    "layer_y": pl.Int64,
    "layer_x_name": pl.String,
    "layer_y_name": pl.String,
    "selection_score": pl.Float64,
    "n": pl.Int64,
    "k": pl.Int64,
    "chance": pl.Float64,
    "null_threshold": pl.Float64,
    "calibrated": pl.Float64,
    "p": pl.Float64,
    "q": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "interval_target": pl.String,
    "interval_method": pl.String,
    "interval_halves": pl.List(pl.Float64),
    "symmetric": pl.Boolean,
    "direction": pl.String,
    "status": pl.String,
}
MODELS_SCHEMA = pl.Schema(_MODELS)
LAYERS_SCHEMA = pl.Schema(
    {
        "model": pl.String,
        "layer": pl.Int64,
        "layer_name": pl.String,
        "width": pl.Int64,
        "zero_rows": pl.Int64,
        "k": pl.Int64,
        "tied_share": pl.Float64,
    }
)

_UNEXPLAINED = "undefined"
_MAY_BE_NULL = {name: MODELS_SCHEMA[name] for name in ("selection_score", "k", "chance", "status")}


@dataclass(frozen=True)
class LayerInfo:
    """What is known of one layer of one model before any pair is scored.

    `tied_share` is the share of rows (0 to 1) whose k-th and (k+1)-th neighbors are equally near,
    so that the tie rule chose between them; None, like `k`, where no neighbors were computed. A
    layer that was used at several k is listed once for each.
    """

    model: str
    layer: int
    layer_name: str
    width: int
    zero_rows: int = 0
    k: int | None = None
    tied_share: float | None = None


@dataclass(frozen=True)
class Chosen:
    """The layers of a pair that other samples chose, by position, and their score on those samples.

    −1 and NaN where no layer pair had a score there.
    """

    layer_x: int
    layer_y: int
    score: float

    @property
    def known(self) -> bool:
        """Whether there was anything to choose."""
        return self.layer_x >= 0


@dataclass(frozen=True, eq=False)
class PairScores:
    """One metric's scores of one pair of models, over all their layers.

    `scores` is `[Lx, Ly]` float64, NaN where undefined; its i-th row is the i-th layer that is
    listed for model `x`. `status` is None or has the same shape, with a text or None a cell: why
    the cell is undefined, or what to know about it. `symmetric` says that `(y, x)` has the
    transposed scores, and then the pair is given once. `direction` is "similarity" or "distance": of
    what is best. `compat` says that the best is taken as the reference's code takes it. `null` sets the
    best score against its null, `interval` is that of the best score, for its layers. With `chosen`, the
    pair's score is that of these layers, and not the best.
    """

    metric: str
    x: str
    y: str
    scores: npt.ArrayLike
    status: Any = None
    n: int = 0
    k: int | None = None
    chance: float | None = None
    symmetric: bool = True
    direction: str = "similarity"
    compat: bool = False
    null: Calibration | None = None
    interval: Interval | None = None
    chosen: Chosen | None = None


@dataclass(frozen=True, eq=False)
class _Cells:
    """A pair with its scores as a vector in row-major order, and where its layers are listed."""

    pair: PairScores
    scores: npt.NDArray[np.float64]
    status: list[str | None]
    rows_x: npt.NDArray[np.int64]
    rows_y: npt.NDArray[np.int64]

    def best(self) -> tuple[float, int | None]:
        """Return the score of the pair and its position: the best, or that of the layers chosen elsewhere.

        There is no position where all scores are NaN, or none counts.
        """
        columns = np.unique(self.rows_y).size
        chosen = self.pair.chosen
        if chosen is not None:
            at = chosen.layer_x * columns + chosen.layer_y
            return (float(self.scores[at]), at) if chosen.known else (np.nan, None)
        from platonic_ray.metrics import best

        table = self.scores.reshape(-1, max(1, columns))
        score, i, j = best(table, self.pair.direction, self.pair.compat)
        return score, None if i < 0 else i * columns + j


def frames(
    pairs: Iterable[PairScores], layers: Iterable[LayerInfo]
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Return the frames `(scores, models, layers)` of a result.

    Rows are ordered by metric (as first given) and by model (as listed in `layers`), not as the
    pairs arrived: a run that was interrupted or spread over workers makes the same frames.

    :raises StudyError: if a pair names a model without layers, has another shape than its models'
        layers, or is given twice.
    """
    layers_frame = pl.DataFrame([asdict(layer) for layer in layers], schema=LAYERS_SCHEMA)
    listed = layers_frame.unique(["model", "layer"], keep="first", maintain_order=True)
    rows_of: dict[str, list[int]] = {}
    for row, model in enumerate(listed["model"]):
        rows_of.setdefault(model, []).append(row)

    pairs = list(pairs)
    _refuse_twice(pairs)
    metrics = list(dict.fromkeys(pair.metric for pair in pairs))
    models = {model: place for place, model in enumerate(rows_of)}
    last = len(models)
    pairs.sort(key=lambda p: (metrics.index(p.metric), models.get(p.x, last), models.get(p.y, last)))
    cells = [_cells(pair, rows_of) for pair in pairs]
    return _scores_frame(cells, listed), _models_frame(cells, listed), layers_frame


def _refuse_twice(pairs: Sequence[PairScores]) -> None:
    seen = set()
    for pair in pairs:
        names = tuple(sorted((pair.x, pair.y))) if pair.symmetric else (pair.x, pair.y)
        if (pair.metric, names) in seen:
            raise StudyError(f"The pair {pair.x} – {pair.y} is given twice for {pair.metric}.")
        seen.add((pair.metric, names))


def _cells(pair: PairScores, rows_of: dict[str, list[int]]) -> _Cells:
    """Check one pair against the listed layers and flatten it."""
    for model in (pair.x, pair.y):
        if model not in rows_of:
            raise StudyError(f"{pair.metric} is given for {model!r}, for which no layers are listed.")
    rows_x, rows_y = rows_of[pair.x], rows_of[pair.y]
    scores = np.array(pair.scores, dtype=np.float64)
    if scores.shape != (len(rows_x), len(rows_y)):
        raise StudyError(
            f"The {pair.metric} scores of {pair.x} – {pair.y} have the shape {scores.shape}; "
            f"their layers make it {(len(rows_x), len(rows_y))}."
        )
    # One bit pattern for NaN and for zero, so that equal results are saved as equal bytes.
    scores = np.where(np.isnan(scores), np.nan, scores + 0.0).ravel()
    status: list[str | None]
    if pair.status is None:
        status = [None] * scores.size
    else:
        given = np.empty(scores.shape, dtype=object)
        reasons = np.asarray(pair.status, dtype=object)
        if reasons.size != scores.size:
            raise StudyError(
                f"The status of {pair.x} – {pair.y} has {reasons.size} cells, its scores {scores.size}."
            )
        given[:] = reasons.ravel()
        status = [str(reason) if reason else None for reason in given]
    for at in np.flatnonzero(np.isnan(scores)):
        status[at] = status[at] or _UNEXPLAINED
    return _Cells(
        pair=pair,
        scores=scores,
        status=status,
        rows_x=np.repeat(np.array(rows_x, dtype=np.int64), len(rows_y)),
        rows_y=np.tile(np.array(rows_y, dtype=np.int64), len(rows_x)),
    )


def _scores_frame(cells: Sequence[_Cells], listed: pl.DataFrame) -> pl.DataFrame:
    empty = np.zeros(0, dtype=np.int64)
    x = np.concatenate([cell.rows_x for cell in cells] or [empty])
    y = np.concatenate([cell.rows_y for cell in cells] or [empty])
    which = np.repeat(np.arange(len(cells)), [cell.scores.size for cell in cells])
    metrics = pl.Series([cell.pair.metric for cell in cells], dtype=pl.String)
    columns = {
        "metric": metrics.gather(which),
        **_labels(x, y, listed),
        "score": np.concatenate([cell.scores for cell in cells] or [empty.astype(np.float64)]),
        "status": pl.Series([reason for cell in cells for reason in cell.status], dtype=pl.String),
    }
    return pl.DataFrame(columns).select(*SCORES_SCHEMA).cast(SCORES_SCHEMA)


def _models_frame(cells: Sequence[_Cells], listed: pl.DataFrame) -> pl.DataFrame:
    reduced = [cell.best() for cell in cells]
    places = [place for _, place in reduced]
    # An undefined pair still takes its models' names from its first layers; they are blanked below.
    at = [0 if place is None else place for place in places]
    x = np.array([cell.rows_x[place] for cell, place in zip(cells, at, strict=True)], dtype=np.int64)
    y = np.array([cell.rows_y[place] for cell, place in zip(cells, at, strict=True)], dtype=np.int64)
    defined = pl.Series([place is not None for place in places], dtype=pl.Boolean)
    columns = {
        "metric": [cell.pair.metric for cell in cells],
        **_labels(x, y, listed),
        "score": [score for score, _ in reduced],
        "selection_score": [cell.pair.chosen and cell.pair.chosen.score for cell in cells],
        "n": [cell.pair.n for cell in cells],
        "k": [cell.pair.k for cell in cells],
        "chance": [cell.pair.chance for cell in cells],
        **_significance([cell.pair for cell in cells]),
        **_intervals([cell.pair for cell in cells]),
        "symmetric": [cell.pair.symmetric for cell in cells],
        "direction": [cell.pair.direction for cell in cells],
        "status": [_why(cell, place) for cell, place in zip(cells, places, strict=True)],
    }
    frame = pl.DataFrame(columns, schema_overrides=_MAY_BE_NULL)
    blank = ["layer_x", "layer_y", "layer_x_name", "layer_y_name"]
    blanked = frame.with_columns(pl.when(defined).then(pl.col(name)).alias(name) for name in blank)
    return blanked.select(*MODELS_SCHEMA).cast(MODELS_SCHEMA)


def _significance(pairs: Sequence[PairScores]) -> dict[str, pl.Series]:
    """Return the columns that a null gives; q over all pairs of different models of a metric."""
    from platonic_ray.statistics import benjamini_hochberg

    nulls = [pair.null for pair in pairs]
    q: list[float | None] = [None] * len(pairs)
    for metric in dict.fromkeys(pair.metric for pair in pairs):
        rows = [at for at, pair in enumerate(pairs) if pair.metric == metric and pair.x != pair.y]
        known = [(at, null.p) for at in rows if (null := nulls[at]) is not None]
        for (at, _), value in zip(known, benjamini_hochberg([p for _, p in known]), strict=True):
            q[at] = float(value)
    columns = {
        "null_threshold": [None if null is None else null.threshold for null in nulls],
        "calibrated": [None if null is None else null.calibrated for null in nulls],
        "p": [None if null is None else null.p for null in nulls],
        "q": q,
    }
    return {name: pl.Series(values, dtype=pl.Float64) for name, values in columns.items()}


def _intervals(pairs: Sequence[PairScores]) -> dict[str, pl.Series]:
    """Return the columns of the intervals, null where there are none."""
    given = [pair.interval for pair in pairs]
    numbers = {name: [None if i is None else getattr(i, name) for i in given] for name in ("low", "high")}
    texts = {
        f"interval_{name}": [None if i is None else getattr(i, name) for i in given]
        for name in ("target", "method")
    }
    return {
        **{name: pl.Series(values, dtype=pl.Float64) for name, values in numbers.items()},
        **{name: pl.Series(values, dtype=pl.String) for name, values in texts.items()},
        "interval_halves": pl.Series(
            [None if i is None or not i.halves else list(i.halves) for i in given],
            dtype=pl.List(pl.Float64),
        ),
    }


def _labels(x: npt.NDArray[np.int64], y: npt.NDArray[np.int64], listed: pl.DataFrame) -> dict[str, pl.Series]:
    return {
        "model_x": listed["model"].gather(x),
        "model_y": listed["model"].gather(y),
        "layer_x": listed["layer"].gather(x),
        "layer_y": listed["layer"].gather(y),
        "layer_x_name": listed["layer_name"].gather(x),
        "layer_y_name": listed["layer_name"].gather(y),
    }


def _why(cell: _Cells, place: int | None) -> str | None:
    """Say what there is to know about a pair: its best cell's status, and how much is undefined."""
    from platonic_ray.metrics import NOT_ASKED

    asked = np.array([not (text or "").startswith(NOT_ASKED) for text in cell.status], dtype=bool)
    undefined = np.flatnonzero(np.isnan(cell.scores) & asked)
    said = [] if place is None else [cell.status[place]]
    if place is None and cell.pair.compat:
        said.append("no layer pair above 0, where the reference's maximum starts")
    if undefined.size:
        reasons = list(dict.fromkeys(cell.status[at] for at in undefined if cell.status[at]))
        shown = ", ".join(str(reason) for reason in reasons[:3]) + (", …" if len(reasons) > 3 else "")
        total = int(asked.sum())
        some = f"{undefined.size} of {total} layer pairs undefined: "
        said.append(shown if undefined.size == total else some + shown)
    return "; ".join(text for text in said if text) or None
