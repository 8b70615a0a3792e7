"""`Scorer`: how alike features are to models that stay, in milliseconds, as often as one asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platonic_ray.engine.extract import Model, Representations, Source, each_of
from platonic_ray.engine.prepare import refuse_twice
from platonic_ray.engine.references import References
from platonic_ray.errors import DataError, StudyError
from platonic_ray.metrics import Against, Metric, get_metric, metrics

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Alignment:
    """The best score of some features and one reference under one metric, and the layers where it is reached.

    `layer` counts the features' layers, `reference_layer` the reference's; −1 where the score is
    undefined (NaN), which `status` then explains.
    """

    metric: str
    model: str
    score: float
    layer: int
    reference_layer: int
    reference_layer_name: str
    status: str | None = None


@dataclass(frozen=True)
class Alignments(Sequence[Alignment]):
    """What `Scorer.score` found: reference by reference, and of each metric by metric.

    >>> found = Alignments((Alignment("mutual_knn", "minilm-l6", 0.25, 0, 6, "block 6"),))
    >>> found["minilm-l6"].score, found.log()
    (0.25, {'alignment/mutual_knn/minilm-l6': 0.25})
    """

    rows: tuple[Alignment, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Alignment]:
        return iter(self.rows)

    def __getitem__(self, which: Any) -> Any:
        """Return a row by its number, or by the reference's name (the first metric's), or (name, metric)."""
        if isinstance(which, int | slice):
            return self.rows[which]
        name, metric = which if isinstance(which, tuple) else (which, None)
        for row in self.rows:
            if row.model == name and metric in (None, row.metric):
                return row
        raise KeyError(which)

    def log(self, prefix: str = "alignment") -> dict[str, float]:
        """Return the scores under names for a logger: `alignment/mutual_knn/minilm-l6`."""
        return {f"{prefix}/{row.metric}/{row.model}": row.score for row in self.rows}

    def frame(self) -> pl.DataFrame:
        """Return the rows as a polars frame."""
        import polars as pl

        return pl.DataFrame([asdict(row) for row in self.rows], infer_schema_length=None)


class Scorer:
    """Scores features against models that stay: a training loop asks it every so many steps.

    What belongs to the references alone (their neighbors, the sums of their kernels, their states) is
    made once. Scores are those of `platonic_ray.score(features, reference)`, to the last bit.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(60, 8))
    >>> scorer = Scorer({"same": x, "other": x[::-1]}, k=5)
    >>> scorer.score(x)["same"].score
    1.0
    """

    def __init__(
        self,
        against: Mapping[str, Any] | Sequence[Model] | str | Path,
        *,
        dataset: Source | None = None,
        metric: str | Sequence[str] | None = None,
        k: int | None = None,
        recipe: str | None = None,
        seed: int = 0,
        store: str | None = None,
        **options: Any,
    ) -> None:
        """Have the references' features at hand, and make what the metrics need of them.

        :param against: names of the catalog, or entries with the fields of `[[models]]`, which are run over
            the dataset unless the store has their features; or features by name, `[N, D]`, `[N, L, D]`
            or a list of `[N, D_l]`; or the path of a file that `save` wrote.
        :param dataset: what the references read, as in `extract` (default: "emoji"). With a file it is
            compared with what the file was made of, with features it says nothing and is refused.
        :param metric: one name, or several (default: "mutual_knn").
        :param k: neighbors, for metrics that have them (default: 10).
        :param recipe: how rows are prepared (default: "l2"). A file knows the metrics, k and recipe of the scorer
            that was saved: they are its defaults.
        :param options: of the metric, where there is one.
        :param seed: of the draw of samples, where the dataset asks for one.
        :raises StudyError: for unknown names and options, or k ≥ N.
        :raises DataError: for features that cannot be compared, or a file that was damaged or is of other
            samples.
        """
        known = References.load(against) if isinstance(against, str | Path) else against
        scored = known.scored if isinstance(known, References) else {}
        if metric is None and scored:
            chosen = _metrics_of(scored, k, options)
        else:
            names = (
                ["mutual_knn"] if metric is None else [metric] if isinstance(metric, str) else list(metric)
            )
            chosen = _metrics(names, 10 if k is None else k, options)
        refuse_twice(chosen)
        self.references = _references(known, dataset, seed, store)
        self._recipe = recipe or scored.get("recipe", "l2")
        self._against = Against(self.references.models, chosen, self._recipe)

    @property
    def n(self) -> int:
        """How many samples the references are of: the rows that features must have."""
        return self._against.n

    @property
    def models(self) -> tuple[str, ...]:
        """The references' names."""
        return tuple(self.references.models)

    def score(self, features: Any) -> Alignments:
        """Score features of the references' samples, in the same order.

        :param features: `[N, D]`, `[N, L, D]`, or a list of `[N, D_l]`: arrays or tensors of any floating
            type, on any device (they are scored on the CPU), or what `extract` returned.
        :raises DataError: if they are not finite, or not of these samples.
        """
        known = self.references.samples
        if isinstance(features, Representations) and known not in (None, features.samples):
            raise DataError(
                f"The features are of other samples than the references ({features.dataset}, "
                f"{features.layers[0].shape[0]} samples; {self.references.dataset}, {self.n})."
            )
        rows = []
        for pair in self._against.score(features):
            score, i, j = pair.best()
            where = (max(i, 0), max(j, 0))
            name = self.references.names[pair.y][j] if j >= 0 else ""
            rows.append(
                Alignment(pair.metric.name, pair.y, score, i, j, name, pair.status[where[0]][where[1]])
            )
        return Alignments(tuple(rows))

    def save(self, path: str | Path) -> Path:
        """Write the references to one safetensors file, for `Scorer(path)` on another machine to score alike.

        :raises DataError: if it cannot be written.
        """
        metrics = [{"name": metric.name, "options": dict(metric.options)} for metric in self._against.metrics]
        return replace(self.references, scored={"metrics": metrics, "recipe": self._recipe}).save(path)

    def __repr__(self) -> str:
        labels = ", ".join(metric.label for metric in self._against.metrics)
        return f"Scorer({labels}; against {', '.join(self.models)}; {self.n} samples)"


def _metrics(names: Sequence[str], k: int, options: Mapping[str, Any]) -> list[Metric]:
    _refuse_options(options, len(names))
    chosen = [get_metric(name, **options) for name in names]
    return [of if of.k is None or "k" in options else of.with_options({"k": k}) for of in chosen]


def _metrics_of(scored: Mapping[str, Any], k: int | None, options: Mapping[str, Any]) -> list[Metric]:
    """Return the metrics of a scorer that was saved; none of one's own, for a file must not say what is imported."""
    entries = scored["metrics"]
    _refuse_options(options, len(entries))
    own = {entry["name"] for entry in entries} - {metric.name for metric in metrics()}
    if own:
        raise StudyError(
            f"The file was saved with {', '.join(sorted(own))}, of one's own: name it as 'metric'."
        )
    saved = [get_metric(entry["name"], **{**entry["options"], **options}) for entry in entries]
    return [of if of.k is None or k is None else of.with_options({"k": k}) for of in saved]


def _refuse_options(options: Mapping[str, Any], count: int) -> None:
    if options and count > 1:
        raise StudyError(f"{', '.join(options)}: options are of one metric; {count} are given.")


def _references(
    against: References | Mapping[str, Any] | Sequence[Model],
    dataset: Source | None,
    seed: int,
    store: str | None,
) -> References:
    if isinstance(against, References):
        if dataset is not None:
            against.require(dataset, seed)
        return against
    if isinstance(against, Mapping):
        if dataset is not None:
            raise StudyError("against: features come without a dataset; leave 'dataset' out.")
        return References.of_features(against)
    source = "emoji" if dataset is None else dataset
    return References.of_representations(list(each_of(against, source, seed, store)), source, seed)
