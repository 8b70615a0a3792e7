"""What a study asks of its models: the tables `[[metrics]]`, `[null]`, `[intervals]` and `[growth]`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from platonic_ray.errors import StudyError
from platonic_ray.study.tables import Frozen, Name, explain


class MetricEntry(Frozen):
    """`[[metrics]]`: a metric's name; its other keys are the metric's options."""

    name: Name
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _collect_options(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {"name": given}
        if isinstance(given, dict) and "options" not in given:
            return {
                "name": given.get("name"),
                "options": {key: value for key, value in given.items() if key != "name"},
            }
        return given


class NullEntry(Frozen):
    """`[null]`: how scores are set against the same scores with the samples permuted.

    `permutations` is a number, 0 for none; "auto" draws enough for one pair of models alone to be
    significant among all pairs of the study, where a permutation is cheap, and 200 elsewhere. `alpha`
    is the level of thresholds and calibrated scores, and of what tables mark as not significant.
    `groups` names a column of the dataset: samples change places with samples of the same label
    alone. `metrics` are the names of those that are to have a null; None chooses.
    """

    permutations: Literal["auto"] | Annotated[int, Field(ge=0, le=1_000_000)] = "auto"
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    groups: Name | None = None
    metrics: tuple[Name, ...] | None = None

    @classmethod
    def of(cls, **given: Any) -> NullEntry:
        """Validate the fields of the table given one by one.

        :raises StudyError: naming what is wrong.
        """
        try:
            return cls(**given)
        except ValidationError as error:
            raise StudyError(explain(error, "the null")) from None


class IntervalsEntry(Frozen):
    """`[intervals]`: confidence intervals of the best layer pair of every pair of models.

    `target` says what they are for: "population" (samples drawn anew), "queries" (queries drawn anew
    against these samples as the gallery; neighbor metrics alone), or "none". `level` is their coverage;
    `splits` is how many times the samples are cut into halves for the population. `groups` names a column
    of the dataset, where whole groups would be drawn anew (captions of one image, sentences of one
    speaker): halves keep samples of one label together, and queries vary by groups.
    """

    target: Literal["none", "queries", "population"] = "none"
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    splits: Annotated[int, Field(ge=2, le=10_000)] = 40
    groups: Name | None = None

    @model_validator(mode="after")
    def _groups_are_drawn_for_something(self) -> IntervalsEntry:
        if self.groups is not None and self.target == "none":
            raise ValueError("'groups' says what intervals are drawn for; give their 'target' too")
        return self

    @classmethod
    def of(cls, **given: Any) -> IntervalsEntry:
        """Validate the fields of the table given one by one.

        :raises StudyError: naming what is wrong.
        """
        try:
            return cls(**given)
        except ValidationError as error:
            raise StudyError(explain(error, "the intervals")) from None


class GrowthEntry(Frozen):
    """`[growth]`: the score at several numbers of samples, for the best layer pair of every model pair.

    `protocols`: "all" against all on nested random subsets, "queries" against a growing gallery, or
    both. `sizes` are numbers of samples (of the gallery, for queries), by default all there are and
    four halvings; `metrics` names metrics of the study, by default the first that has neighbors. With
    `k_share` k is that share of the size; `queries` is how many, `splits` how often samples are cut
    into halves for the standard error of "all". `groups` names a column of the dataset: standard
    errors are then for whole groups drawn anew, as in `[intervals]`. See `platonic_ray.growth`.
    """

    protocols: Annotated[tuple[Literal["all", "queries"], ...], Field(min_length=1)] = ("all",)
    sizes: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] | None = None
    metrics: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    k_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    queries: Annotated[int, Field(ge=2)] | None = None
    splits: Annotated[int, Field(ge=2, le=10_000)] = 10
    groups: Name | None = None

    @model_validator(mode="after")
    def _queries_have_their_protocol(self) -> GrowthEntry:
        if self.queries is not None and "queries" not in self.protocols:
            raise ValueError("'queries' belongs to protocols that hold \"queries\"")
        if len(set(self.protocols)) < len(self.protocols):
            raise ValueError("a protocol is given twice")
        return self
