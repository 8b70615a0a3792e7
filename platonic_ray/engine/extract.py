"""Features of one model over a dataset, at hand as tensors: of a catalog's model, or of a network in training.

What a study would embed comes from the store, or is committed to it: a study with the same model
finds it there, and the other way around.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from platonic_ray.datasets import (
    Dataset,
    check_samples,
    decode_audio,
    decode_image,
    decode_video,
    open_dataset,
)
from platonic_ray.engine.embedding import ModelRunner
from platonic_ray.engine.features import Blocks
from platonic_ray.engine.prepare import prepare
from platonic_ray.engine.run import default_store
from platonic_ray.errors import DataError, StudyError
from platonic_ray.metrics import as_layers
from platonic_ray.models import resolve
from platonic_ray.plan import Embed
from platonic_ray.store import Store
from platonic_ray.study import DatasetEntry, ModelEntry, Study

EMBEDDED_TEXT = "name.en"  # the view of the emoji that a text model reads where none is named


@dataclass(frozen=True)
class Representations(Sequence[Tensor]):
    """The layers of one model over the samples of a dataset: a sequence of `[N, D_l] float32` tensors.

    `names` are the layers' names, `samples` the digest of the samples' ids in their order: what is
    compared row by row must have the same.
    """

    model: str
    dataset: str
    view: str
    names: tuple[str, ...]
    layers: tuple[Tensor, ...]
    samples: str

    def __len__(self) -> int:
        return len(self.layers)

    @overload
    def __getitem__(self, layer: int) -> Tensor: ...
    @overload
    def __getitem__(self, layer: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, layer: int | slice) -> Tensor | Sequence[Tensor]:
        return self.layers[layer]

    def __repr__(self) -> str:
        shape = f"{len(self)} layers, {self.layers[0].shape[0]} samples"
        return f"Representations({self.model!r}, {self.dataset!r}, view {self.view!r}, {shape})"


_DECODERS: Mapping[str, Callable[[Any], Any]] = {
    "image": decode_image,
    "audio": decode_audio,
    "video": decode_video,
}

Model = str | ModelEntry | Mapping[str, Any]
Source = str | Path | DatasetEntry | Mapping[str, Any]
Function = Callable[[Any, list[Any]], Any]


def extract_model(model: Model, source: Source, seed: int, store: str | None) -> Representations:
    """Return the features of a model of the catalog, or of any that a study could name.

    :raises PlatonicRayError: as a study with that model alone.
    """
    dataset = dataset_entry(source)
    entry = model_entry(model, dataset, seed)
    study = Study.from_dict(
        {
            "seed": seed,
            "dataset": dataset.model_dump(),
            "models": [entry.model_dump()],
            "metrics": ["cka"],  # asks for the fewest samples; nothing is scored
            "null": {"permutations": 0},
        }
    )
    prepared = prepare(study, Store.open(store or default_store()))
    context, plan = prepared.context, prepared.context.plan
    runner: ModelRunner | None = None
    threads = torch.get_num_threads()
    blocks = Blocks(context)
    shards = []
    try:
        for shard in range(len(plan.shards)):
            embed = Embed(0, shard)
            if not blocks.has(embed):
                if runner is None:
                    runner = ModelRunner(context, 0)
                    runner.load()
                for _ in runner.embed(shard):
                    pass  # every layer is durable when it is yielded
                blocks.require([embed])
            shards.append(blocks.shard(embed))
    finally:
        torch.set_num_threads(threads)
    opened = context.open_dataset()
    layers = tuple(torch.from_numpy(np.concatenate(of)) for of in zip(*shards, strict=True))
    names = blocks.names(0)
    return Representations(entry.name, opened.name, entry.view, names, layers, opened.fingerprint([]))


def extract_live(
    network: Any, source: Source, function: Function, view: str | None, seed: int, batch: int
) -> Representations:
    """Return what `function(network, items)` makes of the samples, some at a time, without gradients.

    A torch module is in evaluation mode meanwhile, and as it was afterwards.

    :raises StudyError: for a view that is not there or averages several items a sample, or none named
        where there are several.
    :raises DataError: if what the function returns has other rows than it was given, or not always as
        many layers, or is not finite.
    """
    entry = dataset_entry(source)
    opened = open_dataset(entry, seed)
    if view is None:
        view = _only(opened, "view", list(opened.views))
    if opened.several(view):
        raise StudyError(
            f'View {view!r} averages several items a sample (items = "mean"), and a function is given one item a '
            'sample. Choose an item of each: items = "first", or its number.'
        )
    decode = _DECODERS.get(opened.kind(view), lambda item: item)
    opened, _ = check_samples(opened, (view,), entry.on_bad_sample)
    parts: list[list[Tensor]] = []
    with _evaluating(network), torch.no_grad():
        for start in range(0, len(opened), batch):
            items = opened.read(view, start, start + batch)
            made = function(network, [decode(item) for item in items])
            layers = [
                rows.cpu() for rows in as_layers(made, f"What the function returned of samples {start} on")
            ]
            wrong = [rows.shape[0] for rows in layers if rows.shape[0] != len(items)]
            if wrong or (parts and len(parts[0]) != len(layers)):
                raise DataError(
                    f"The function was given {len(items)} samples and returned {len(layers)} layers of "
                    f"{[rows.shape[0] for rows in layers]} rows; expected a row a sample, and as many layers each time."
                )
            parts.append(layers)
    stacked = tuple(torch.cat(layer) for layer in zip(*parts, strict=True))
    names = tuple(f"layer {index}" for index in range(len(stacked)))
    name = type(network).__name__
    return Representations(name, opened.name, view, names, stacked, opened.fingerprint([]))


class _evaluating:  # noqa: N801 (used as a statement)
    """Puts a network in evaluation mode, and back."""

    def __init__(self, network: Any) -> None:
        self._modules = (
            [(module, module.training) for module in network.modules()]
            if isinstance(network, torch.nn.Module)
            else []
        )

    def __enter__(self) -> None:
        for module, _ in self._modules:
            module.training = False

    def __exit__(self, *_: object) -> None:
        for module, training in self._modules:
            module.training = training


def dataset_entry(source: Source) -> DatasetEntry:
    """Return the entry of a dataset that is named by its source, or by the fields of `[dataset]`.

    :raises StudyError: naming what is wrong.
    """
    if isinstance(source, DatasetEntry):
        return source
    fields = {"source": str(source)} if isinstance(source, str | Path) else dict(source)
    return Study.from_dict(
        {"dataset": fields, "models": [{"name": "none", "view": "none", "use": "pixels"}]},
        where="the dataset",
    ).dataset


def model_entry(model: Model, dataset: DatasetEntry, seed: int) -> ModelEntry:
    """Return the entry of a model that is named by the catalog's name, or by the fields of `[[models]]`.

    A view is found where none is named: the only one of what the model reads, or of the emoji the
    English name.

    :raises StudyError: naming what is wrong, or the views that there are to choose from.
    """
    if isinstance(model, ModelEntry):
        return model
    fields: dict[str, Any] = {"use": model} if isinstance(model, str) else dict(model)
    fields.setdefault("name", fields.get("use") or fields.get("weights") or fields.get("kind"))
    named = "view" in fields
    fields.setdefault("view", "?")
    entry = Study.from_dict({"models": [fields]}, where="the model").models[0]
    if named:
        return entry
    reads = resolve(entry).modality
    opened = open_dataset(dataset, seed)
    views = [view for view, kind in opened.views.items() if reads in (kind, None)]
    if dataset.source == "emoji" and reads == "text":
        views = [EMBEDDED_TEXT]
    return entry.model_copy(update={"view": _only(opened, f"view of {reads} for {entry.name!r}", views)})


def _only(dataset: Dataset, what: str, views: list[str]) -> str:
    if len(views) == 1:
        return views[0]
    listed = ", ".join(views) or "none"
    raise StudyError(
        f"{dataset.name}: which {what}? Name one of: {listed}. (A model is named with its view as "
        '{"use": "minilm-l6", "view": "name.de"}.)'
    )


def ids_of(source: Source, seed: int, views: Sequence[str]) -> tuple[str, str]:
    """Return the digest of a dataset's ids, and that of ids and content in some views."""
    opened = open_dataset(dataset_entry(source), seed)
    return opened.fingerprint([]), opened.fingerprint(views)


def each_of(
    models: Sequence[Model], source: Source, seed: int, store: str | None
) -> Iterator[Representations]:
    """Yield the features of several models over one dataset, whose names must differ.

    :raises StudyError: naming a model that is given twice.
    """
    dataset = dataset_entry(source)
    entries = [model_entry(model, dataset, seed) for model in models]
    names = [entry.name for entry in entries]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise StudyError(f"against: {twice[0]!r} is given twice; give each its own 'name'.")
    for entry in entries:
        yield extract_model(entry, dataset, seed, store)
