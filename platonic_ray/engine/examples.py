"""Examples for a result: what a few samples are near to, in the layers that came out best.

Read from the store's blocks of neighbors, never computed; bounded whatever the study's size.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch

from platonic_ray.datasets import Dataset, decode_image
from platonic_ray.digest import digest
from platonic_ray.engine.expanded import owners_of
from platonic_ray.engine.prepare import Prepared
from platonic_ray.errors import DataError
from platonic_ray.kernels import nearest_owners, tie_keys
from platonic_ray.results import Result, examples_frame, samples_frame
from platonic_ray.store import table_arrays

_MOST_SAMPLES, _FEWEST_SAMPLES = 12, 3
_MOST_LISTS = 12_000  # samples × layers
_MOST_BLOCKS = 2  # that are read of a model
_MOST_NEIGHBORS = 20
_MOST_LETTERS = 160
_THUMBNAIL = (64, 64)
_MOST_THUMBNAIL_BYTES = 2_000_000


def examples_of(prepared: Prepared, result: Result) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the frames `examples` and `samples` of a result that has its scores.

    :raises CorruptArtifactError: if a block of neighbors was damaged since.
    """
    plan = prepared.context.plan
    if plan.k is None:
        return examples_frame(), samples_frame()
    layers = best_layers(result)
    count = max(_FEWEST_SAMPLES, min(_MOST_SAMPLES, _MOST_LISTS // max(1, sum(map(len, layers.values())))))
    chosen = choose_samples(plan.n, count, plan.block_rows, prepared.study.seed)
    rows = [row for model, some in layers.items() for row in _lists(prepared, result, model, some, chosen)]
    rows.sort(key=lambda row: chosen.index(row["sample"]))
    shown = dict.fromkeys([*chosen, *(near for row in rows for near in row["neighbors"])])
    return examples_frame(rows), samples_frame(
        _described(prepared.dataset, prepared.context.views, list(shown))
    )


def best_layers(result: Result) -> dict[str, list[int]]:
    """Return, for every model, the layers where a metric has its best score with a different model."""
    pairs = result.models.filter((pl.col("model_x") != pl.col("model_y")) & pl.col("layer_x").is_not_null())
    found: dict[str, set[int]] = {
        model: set() for model in result.layers["model"].unique(maintain_order=True)
    }
    for side in "xy":
        for model, layer in pairs.select(f"model_{side}", f"layer_{side}").rows():
            found[model].add(layer)
    return {model: sorted(layers) for model, layers in found.items() if layers}


def choose_samples(n: int, count: int, block_rows: int, seed: int) -> list[int]:
    """Return a seeded draw of samples that lie in few blocks.

    >>> choose_samples(5, 9, 256, seed=0) == choose_samples(5, 9, 256, seed=0)
    True
    """
    order = tie_keys(digest(["examples", seed]), torch.arange(n)).argsort(stable=True).tolist()
    blocks = list(dict.fromkeys(row // block_rows for row in order))[:_MOST_BLOCKS]
    return [row for row in order if row // block_rows in blocks][:count]


def _lists(
    prepared: Prepared, result: Result, model: str, layers: Sequence[int], chosen: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of the frame of one model."""
    plan, store = prepared.context.plan, prepared.context.store
    place = [planned.name for planned in plan.models].index(model)
    listed = result.layers.filter(pl.col("model") == model).unique("layer", keep="first", maintain_order=True)
    positions = {layer: at for at, layer in enumerate(listed["layer"])}
    k = min(prepared.context.k or 0, _MOST_NEIGHBORS)
    owners = None if prepared.context.owners is None else owners_of(prepared.context.owners)
    blocks: dict[int, dict[str, np.ndarray[Any, Any]]] = {}
    for sample in chosen:
        a, row = divmod(sample, plan.block_rows)
        if a not in blocks:
            manifest = store.manifest("neighbors", plan.neighbors_key(place, a))
            if manifest is None:  # another process emptied the store: the scores are still good
                return
            blocks[a] = table_arrays(store.read(manifest, "topk"))
        for layer in layers:
            at = positions[layer]
            ids, values = (blocks[a][name][at, row] for name in ("ids", "values"))
            if owners is not None:
                near = torch.from_numpy(ids[None, : plan.k].copy())
                places = nearest_owners(near, owners[sample][None], owners, k)[0].numpy()
                ids, values = ids[places], values[places]
            yield {
                **{"sample": sample, "model": model, "layer": layer, "layer_name": listed["layer_name"][at]},
                "neighbors": ids[:k].tolist(),
                "similarities": values[:k].astype(float).tolist(),
            }


def _described(dataset: Dataset, views: Sequence[str], samples: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the frame of samples: texts cut short, images made small."""
    room = _MOST_THUMBNAIL_BYTES
    for sample in samples:
        for view in views:
            kind = dataset.kind(view)
            row: dict[str, Any] = {"sample": sample, "id": dataset.ids[sample], "view": view, "kind": kind}
            text, thumbnail = None, None
            if kind == "text":
                text = " / ".join(map(str, _items(dataset, view, sample)))[:_MOST_LETTERS]
            elif kind == "image" and room > 0:
                thumbnail = _thumbnail(dataset, view, sample)
                room -= len(thumbnail or b"")
            yield row | {"text": text, "thumbnail": thumbnail}


def _items(dataset: Dataset, view: str, sample: int) -> Sequence[Any]:
    """Return what a sample holds in a view: one item, or all that are averaged."""
    (found,) = dataset.read(view, sample, sample + 1)
    return found if dataset.several(view) else [found]


def _thumbnail(dataset: Dataset, view: str, sample: int) -> bytes | None:
    """Return a small WebP of an image; None where a model of row numbers never needed it to be one."""
    try:
        image = decode_image(_items(dataset, view, sample)[0])
    except DataError:
        return None
    image.thumbnail(_THUMBNAIL)
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=75, method=4)
    return stream.getvalue()
