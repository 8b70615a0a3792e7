"""The result of a study: an immutable table over polars frames, with where it came from.

Schema, version 5. A saved result is a folder; `pl.read_parquet` alone is enough to use it.

`scores.parquet`, a row a metric and layer pair:
    metric, model_x, model_y        String   the metric's label ("mutual_knn", or "mutual_knn[k=5]")
    layer_x, layer_y                Int64    depth, 0 first
    layer_x_name, layer_y_name      String
    score                           Float64  NaN where undefined
    status                          String   null, or why it is undefined or what to know about it

`models.parquet`, a row a metric and model pair (its alignment):
    metric, model_x, model_y        String
    score                           Float64  best over layer pairs, of a distance the smallest (or of the
                                             layers that other samples chose); NaN if undefined
    layer_x, layer_y                Int64    where it is reached; the first (x, y) of equal ones
    layer_x_name, layer_y_name      String   these four are null if all are undefined
    selection_score                 Float64  of the samples that chose the layers; null if these did
    n                               Int64    samples
    k                               Int64    neighbors; null for metrics without
    chance                          Float64  expected of two unrelated layers; null if unknown
    null_threshold                  Float64  what the score has to pass at the study's level alpha
    calibrated                      Float64  0 at or below the threshold, 1 for the best score there can be
    p                               Float64  how often permuted samples score as well, itself counted
    q                               Float64  p adjusted for all pairs of different models of the metric
    low, high                       Float64  confidence interval of the score of these layers
    interval_target                 String   "population" or "queries": what the interval is for
    interval_method                 String   how it was made, its level, and how the layers were chosen
    interval_halves                 List(Float64)  scores of both halves of every cut of the samples, one cut
                                             after another, which it was made from; null if from none
    symmetric                       Boolean  whether (y, x) has the same score
    direction                       String   "similarity", or "distance": the smaller, the more alike
    status                          String   as above

The four columns of the null (`platonic_ray.statistics`) are null for a model with itself, where no
permutations were drawn, and for metrics without a null: those of whole representations that are not
named for one, and kernel metrics of more than 8,192 samples. Where the score is undefined they are NaN.
The null is that of the same best score over all layer pairs, under permutations of the samples that all
pairs of models share; `provenance["null"]` says how many for each metric, and within which groups.

The five columns of the interval (`platonic_ray.statistics.intervals`) are null for a model with itself
and where none was asked for; its ends are NaN where the score, or that of a half of the samples, is
undefined. Target "population": E[score] over samples drawn anew, as many as these. Target "queries": the
mean over queries drawn anew, against these samples as the gallery; it says nothing of another gallery,
and is the shorter. Both are intervals for a fixed pair of layers: where the layers were chosen on the
same samples because they score best there, as `interval_method` then says, they do not correct for it.

`layers.parquet`, a row a layer (and k), models and layers in the study's order:
    model, layer, layer_name                 as above
    width                           Int64    columns of its features
    zero_rows                       Int64    rows that are all zero
    k                               Int64    null if no neighbors were computed
    tied_share                      Float64  share of rows with a tie at rank k; null likewise

`growth.parquet`, a row a metric, pair and number of samples, where a study asks for growth: see
`platonic_ray.results.growth`.

`examples.parquet` and `samples.parquet`, what some samples are near to: see `platonic_ray.results.examples`.

`capability.parquet`, a row a model and capability, where some were measured or given: see
`platonic_ray.results.capability`.

`result.json`: `schema` (this version), `files` (rows and sha256 of each of the above), `provenance`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from platonic_ray.errors import StudyError
from platonic_ray.results import files
from platonic_ray.results.capability import CAPABILITY_SCHEMA, capability_frame
from platonic_ray.results.compare import compare, difference
from platonic_ray.results.examples import (
    EXAMPLES_SCHEMA,
    SAMPLES_SCHEMA,
    examples_frame,
    neighbors_of,
    samples_frame,
)
from platonic_ray.results.growth import GROWTH_SCHEMA, growth_frame
from platonic_ray.results.matrix import Layout, Matrix, lay_out
from platonic_ray.results.pairs import (
    LAYERS_SCHEMA,
    MODELS_SCHEMA,
    SCORES_SCHEMA,
    LayerInfo,
    PairScores,
    frames,
)
from platonic_ray.results.select import select
from platonic_ray.results.summary import facts_of, html_of, summary_of

_SCHEMAS = {
    "scores": SCORES_SCHEMA,
    "models": MODELS_SCHEMA,
    "layers": LAYERS_SCHEMA,
    "growth": GROWTH_SCHEMA,
    "examples": EXAMPLES_SCHEMA,
    "samples": SAMPLES_SCHEMA,
    "capability": CAPABILITY_SCHEMA,
}


@dataclass(frozen=True, eq=False)
class Result:
    """How alike models see samples: every layer pair, every model pair, and where they came from.

    The frames `scores`, `models`, `layers`, `growth`, `examples`, `samples` and `capability` are described at
    the head of this module. `provenance` is a dictionary that JSON can hold. What is read here, all of it
    optional: `study` and `study_key`; `dataset` with `name`, `fingerprint`, `n` and `dropped` (a list); `versions`,
    `seed`, `started`, `finished`, `engine`, `device`; `floors` (names of models without training);
    `compat` ("platonic-rep" where scores are in the arithmetic of that code);
    `null` (`count`, `alpha` and `seed` of its permutations); `notes` (a list of texts that a reader
    should see).

    >>> layers = [LayerInfo(model, 0, "last", width=8) for model in ("a", "b")]
    >>> scored = (("a", "a", 1), ("a", "b", 0.25), ("b", "b", 1))
    >>> pairs = [PairScores("cka", x, y, [[score]], n=100) for x, y, score in scored]
    >>> result = Result.from_pairs(pairs, layers)
    >>> result.matrix("cka").at("b", "a")
    0.25
    """

    scores: pl.DataFrame
    models: pl.DataFrame
    layers: pl.DataFrame
    provenance: dict[str, Any] = field(default_factory=dict)
    growth: pl.DataFrame = field(default_factory=growth_frame)
    examples: pl.DataFrame = field(default_factory=examples_frame)
    samples: pl.DataFrame = field(default_factory=samples_frame)
    capability: pl.DataFrame = field(default_factory=capability_frame)

    def __post_init__(self) -> None:
        for name, schema in _SCHEMAS.items():
            frame = getattr(self, name)
            if frame.schema != schema:
                raise StudyError(
                    f"The frame {name!r} has the columns {frame.columns}; expected: {[*schema]}."
                )
        object.__setattr__(self, "provenance", _plain(self.provenance))

    @classmethod
    def from_pairs(
        cls,
        pairs: Iterable[PairScores],
        layers: Iterable[LayerInfo],
        provenance: Mapping[str, Any] | None = None,
        growth: pl.DataFrame | None = None,
        capability: pl.DataFrame | None = None,
    ) -> Result:
        """Make a result from scored pairs, in any order, and the layers of their models, in the study's.

        For a square table give each unordered pair once, and each model with itself; where a metric
        is not symmetric give both orders. For a cross table give every x with every y.

        :raises StudyError: if pairs and layers do not fit together, or a pair is given twice.
        """
        curves = growth_frame() if growth is None else growth
        abilities = capability_frame() if capability is None else capability
        return cls(
            *frames(pairs, layers), provenance=dict(provenance or {}), growth=curves, capability=abilities
        )

    @property
    def alpha(self) -> float:
        """The level above which a q is not significant: that of the null, by default 0.05."""
        return float((self.provenance.get("null") or {}).get("alpha", 0.05))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The labels of the metrics, in the study's order."""
        return tuple(self.models["metric"].unique(maintain_order=True))

    def metric(self, label: str | None = None) -> str:
        """Return a metric's label: the one given, or the result's first.

        :raises StudyError: if it was not computed; the error lists those that were.
        """
        if not self.metrics:
            raise StudyError("This result is empty: it has no scores.")
        if label is not None and label not in self.metrics:
            raise StudyError(f"{label!r} is not in this result; it has: {', '.join(self.metrics)}.")
        return self.metrics[0] if label is None else label

    def pairs(self, metric: str | None = None) -> pl.DataFrame:
        """Return the rows of `models` that belong to one metric (by default the first).

        :raises StudyError: as `metric`.
        """
        return self.models.filter(pl.col("metric") == self.metric(metric))

    def layout(self, metric: str | None = None) -> Layout:
        """Return where each row of `pairs(metric)` stands in the table of that metric.

        :raises StudyError: as `metric`.
        """
        return lay_out(self.pairs(metric), self.layers["model"].unique(maintain_order=True).to_list())

    def matrix(self, metric: str | None = None) -> Matrix:
        """Return the models × models table of a metric (by default the first), `[x, y]` float64.

        Both triangles are filled where the metric is symmetric; otherwise rows are the first model.

        :raises StudyError: as `metric`.
        """
        label = self.metric(metric)
        layout = self.layout(label)
        scores = np.append(self.pairs(label)["score"].to_numpy(), np.nan)  # index −1 reads the NaN
        return Matrix(label, layout.rows, layout.columns, scores[layout.index])

    def layers_matrix(self, x: str, y: str, metric: str | None = None) -> Matrix:
        """Return the layers × layers table of a pair, the layers of `x` down, `[Lx, Ly]` float64.

        A symmetric metric answers for `(y, x)` too.

        :raises StudyError: as `metric`, or if the pair was not scored in this order.
        """
        label = self.metric(metric)
        of_metric = self.pairs(label)
        there = (pl.col("model_x") == x) & (pl.col("model_y") == y)
        back = (pl.col("model_x") == y) & (pl.col("model_y") == x)
        if not of_metric.filter(there).is_empty():
            return self._layer_table(label, x, y)
        if not of_metric.filter(back & pl.col("symmetric")).is_empty():
            table = self._layer_table(label, y, x)
            return Matrix(label, table.columns, table.rows, table.values.T)
        if not of_metric.filter(back).is_empty():
            raise StudyError(
                f"{label} is not symmetric, and was computed for ({y}, {x}), not for ({x}, {y})."
            )
        known = sorted({*of_metric["model_x"], *of_metric["model_y"]})
        raise StudyError(
            f"{label} was not computed for ({x}, {y}). It was for models among: {', '.join(known)}."
        )

    def neighbors(self, sample: int | str) -> pl.DataFrame:
        """Return what one of the result's examples is near to: a row a model and layer, with `ids`.

        :param sample: its row among the samples, or its id.
        :raises StudyError: if it is not among the examples; the error lists those that are.
        """
        return neighbors_of(self.examples, self.samples, sample)

    def direction(self, metric: str | None = None) -> str:
        """Return "similarity" or "distance" of a metric: of a distance, the smallest score is the best.

        :raises StudyError: as `metric`.
        """
        return str(self.pairs(metric)["direction"][0])

    def best_layers(self, metric: str | None = None) -> npt.NDArray[np.float64]:
        """Return the layers where each cell of `matrix(metric)` has its score, `[rows, columns, 2]`.

        The layer of the row's model comes first, then that of the column's; NaN where there are none.
        Under `compat = "platonic-rep"` they come the other way round, as that code stores them.

        :raises StudyError: as `metric`.
        """
        layout, pairs = self.layout(metric), self.pairs(metric)
        x, y = (
            np.append(pairs[name].cast(pl.Float64).fill_null(np.nan).to_numpy(), np.nan)[layout.index]
            for name in ("layer_x", "layer_y")
        )
        layers = np.stack([np.where(layout.flipped, y, x), np.where(layout.flipped, x, y)], axis=2)
        return layers[..., ::-1].copy() if self.provenance.get("compat") else layers

    def equals(self, other: Result) -> bool:
        """Whether both have the same rows (NaN equal to NaN) and the same provenance."""
        same = all(getattr(self, name).equals(getattr(other, name)) for name in _SCHEMAS)
        return same and self.provenance == other.provenance

    def save(self, path: str | Path) -> Path:
        """Write the result as a folder, replacing a result that is there; return the folder.

        Equal frames give equal Parquet bytes. Undone by `load_result`.

        :raises StoreError: if it cannot be written.
        """
        return files.write_folder(path, {name: getattr(self, name) for name in _SCHEMAS}, self.provenance)

    def facts(self, metric: str | None = None) -> str:
        """Return in one line what a metric's scores rest on: `n = 1,024 · k = 10 · chance 0.0098`.

        A distance says that it is one, and scores of another's arithmetic whose.

        :raises StudyError: as `metric`.
        """
        return facts_of(self, metric)

    def summary(self) -> str:
        """Return a few lines: what was compared, the extremes of each metric, what to be aware of."""
        return summary_of(self)

    def select(
        self,
        models: Sequence[str] | None = None,
        metrics: Sequence[str] | None = None,
        without: Collection[str] = (),
    ) -> Result:
        """Return the part of the result that some models and metrics make; q stays that of all pairs.

        :param models: names to keep; None keeps all.
        :param metrics: labels to keep; None keeps all.
        :param without: names of models to leave out.
        :raises StudyError: if a name is not in the result, or nothing is left.
        """
        return select(self, models, metrics, without)

    def compare(self, other: Result, same_samples: bool | None = None) -> pl.DataFrame:
        """Return by how much the pairs that both results have differ, with intervals where both have them.

        On the same samples the intervals are paired over them. `platonic_ray.results.compare` documents the
        columns and the intervals.

        :param same_samples: whether both are of the same samples, in the same order; None tells it by the
            fingerprint of their content, which tables of arrays do not have.
        :raises StudyError: if they have nothing in common.
        """
        return compare(self, other, same_samples)

    def difference(self, pair: tuple[str, str], other: tuple[str, str]) -> pl.DataFrame:
        """Return by how much the scores of two pairs of models differ, a row a metric, paired over samples.

        How far a trained model is beyond its floor: `difference(("MiniLM", "pixels"), ("MiniLM random",
        "pixels"))`. The columns are those of `compare`, with `other_x` and `other_y`.

        :raises StudyError: if no metric has both pairs.
        """
        return difference(self, pair, other)

    def to_pandas(self) -> Any:
        """Return `models` as a pandas frame.

        :raises StudyError: if pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise StudyError("pandas is not installed: pip install pandas.") from None
        return pandas.DataFrame({name: self.models[name].to_list() for name in self.models.columns})

    def _repr_html_(self) -> str:
        return html_of(self)

    def __repr__(self) -> str:
        models = self.layers["model"].n_unique()
        metrics = ", ".join(self.metrics) or "no metrics"
        return f"<Result: {models} models, {metrics}, {self.scores.height:,} scores>"

    def _layer_table(self, metric: str, x: str, y: str) -> Matrix:
        cells = self.scores.filter(
            (pl.col("metric") == metric) & (pl.col("model_x") == x) & (pl.col("model_y") == y)
        )
        rows = cells.unique("layer_x", keep="first", maintain_order=True)["layer_x_name"]
        columns = cells.unique("layer_y", keep="first", maintain_order=True)["layer_y_name"]
        values = cells["score"].to_numpy().reshape(len(rows), len(columns))
        return Matrix(metric, tuple(rows), tuple(columns), values)


def load_result(path: str | Path, *, leave_out: Collection[str] = ()) -> Result:
    """Read a result that `Result.save` wrote.

    :param leave_out: names of frames that are not read, nor checked, but left empty: `scores` has
        millions of rows where there are many layers, and not everybody needs them.

    :raises StoreError: if the folder is missing, is not a finished result, was cut short, or was
        written with another schema version.
    """
    frames_read, provenance = files.read_folder(path, _SCHEMAS, leave_out)
    return Result(**frames_read, provenance=provenance)


def _plain(value: Any) -> Any:
    """Return a value as JSON will give it back, so that a saved provenance equals the one in memory.

    A note on a finished run must not stop it from being saved: what JSON has no word for becomes text.
    """
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [
            _plain(item) for item in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)
        ]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
