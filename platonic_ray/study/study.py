"""The whole of a study: its tables together, validated, from Python or from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from platonic_ray import presets
from platonic_ray.errors import StudyError
from platonic_ray.study.files import absolute, as_toml, read_toml, sample_path
from platonic_ray.study.inputs import DatasetEntry, ModelEntry
from platonic_ray.study.questions import GrowthEntry, IntervalsEntry, MetricEntry, NullEntry
from platonic_ray.study.running import RunEntry
from platonic_ray.study.tables import Frozen, explain

Recipe = Literal["l2", "none", "huh2024", "huh2024-approx"]
"""How features become rows: normalized; as they are; clamped at the 0.95 quantile of |feature| of their
model, then normalized, as the published figures of Huh et al. (2024) were made, with the exact quantile
or the mean of the samples' own."""


class Study(Frozen):
    """A dataset, models, metrics and options: everything that determines a result.

    `compat = "platonic-rep"` scores in the arithmetic of the code of Huh et al. (2024) instead of the
    metrics' clean definitions. `features = "float16"` keeps features in half the bytes: they are rounded, and
    the result says which share of neighbors that changes. `choose_layers = "held-out"` chooses the
    layers of every pair of models on one random half of the samples, and reports everything on the other.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "study"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    recipe: Recipe = "l2"
    compat: Literal["platonic-rep"] | None = None
    choose_layers: Literal["all", "held-out"] = "all"
    shard_rows: Annotated[int, Field(ge=1)] = 256
    features: Literal["float32", "float16"] = "float32"
    dataset: DatasetEntry = DatasetEntry()
    models: Annotated[tuple[ModelEntry, ...], Field(min_length=1)]
    metrics: Annotated[tuple[MetricEntry, ...], Field(min_length=1)] = (MetricEntry(name="mutual_knn"),)
    null: NullEntry = NullEntry()
    growth: GrowthEntry | None = None
    intervals: IntervalsEntry = IntervalsEntry()
    run: RunEntry = RunEntry()

    @field_validator("models", mode="before")
    @classmethod
    def _presets_are_their_models(cls, given: Any) -> Any:
        return presets.expand(given)

    @field_validator("models")
    @classmethod
    def _names_differ(cls, models: tuple[ModelEntry, ...]) -> tuple[ModelEntry, ...]:
        names = [model.name for model in models]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"model names must differ; given more than once: {', '.join(twice)}")
        return models

    @classmethod
    def from_dict(cls, given: dict[str, Any], *, where: str = "the study") -> Study:
        """Validate a dictionary of the TOML's shape.

        :raises StudyError: naming each key that is wrong and what was expected there.
        """
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise StudyError(explain(error, where)) from None

    @classmethod
    def from_toml(cls, path: str | Path) -> Study:
        """Read and validate a study file. Relative paths in it are relative to the file.

        :raises StudyError: if the file is missing, is not TOML, or does not describe a study.
        """
        path = Path(path).expanduser()
        study = cls.from_dict(read_toml(path), where=str(path))
        return study._with_paths_from(path.parent)

    def to_toml(self) -> str:
        """Return a study file of this study, without what stands at its default."""
        given = self.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
        metrics = [{"name": metric.name, **metric.options} for metric in self.metrics]
        return "".join(f"{key} = {as_toml(value)}\n" for key, value in {**given, "metrics": metrics}.items())

    def replace(self, **changes: Any) -> Study:
        """Return a validated copy with some fields changed.

        :raises StudyError: as `from_dict`.
        """
        return type(self).from_dict({**self.model_dump(), **changes})

    def _with_paths_from(self, folder: Path) -> Study:
        """Resolve relative paths of dataset, weights and store against the study file's folder."""
        dataset, run = self.dataset, self.run
        dataset = dataset.model_copy(
            update={
                "source": sample_path(dataset.source, folder),
                "join": tuple(sample_path(source, folder) for source in dataset.join),
            }
        )
        if run.store is not None and "://" not in run.store:
            run = run.model_copy(update={"store": absolute(run.store, folder)})
        models = tuple(
            model.model_copy(update={"weights": absolute(model.weights_path, folder)})
            if model.weights_path is not None
            else model
            for model in self.models
        )
        return self.model_copy(update={"dataset": dataset, "run": run, "models": models})
