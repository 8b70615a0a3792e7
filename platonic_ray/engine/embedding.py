"""Features out: one model in one process that embeds shards into the store (`features` reads them back).

The bytes of a feature depend on the model, the samples of its shard and the batches the study
fixes, not on who computes it: a model runs on a fixed number of threads, one shard at a time.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import math
import platform
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from platonic_ray.datasets import Shard
from platonic_ray.engine.context import Context
from platonic_ray.engine.features import read_parts
from platonic_ray.engine.narrow import narrowed, neighbors_lost
from platonic_ray.errors import DataError
from platonic_ray.models import Features, Model, load, rows_of
from platonic_ray.models.allocator import keep_freed_memory
from platonic_ray.plan import Span, features_key
from platonic_ray.store import feature_table

_WRITERS = 8  # layers of a shard that are written at a time


class ModelRunner:
    """One model in one process: loads it once, embeds shards, commits before it yields."""

    def __init__(self, context: Context, model: int) -> None:
        self._context = context
        self._model = model
        self._loaded: Model | None = None
        self._wide: Model | None = None
        self._device = "cuda" if torch.cuda.is_available() else "cpu"

    def load(self) -> int:
        """Load the model and open its samples; return the number of its layers.

        :raises PlatonicRayError: if weights or samples cannot be had.
        """
        torch.set_num_threads(self._context.run.threads)
        if self._device == "cpu":
            keep_freed_memory()
        spec = self._context.specs[self._model].in_smaller_batches(self._context.pieces)
        self._dataset = self._context.open_dataset()
        view = self._context.plan.models[self._model].view
        self._rows = rows_of(spec, self._dataset, view) if spec.by_row else ()
        corpus = list(self._dataset.shard(view, 0, len(self._dataset)).items) if spec.fits else None
        if corpus is not None and self._dataset.several(view):
            corpus = list(itertools.chain.from_iterable(corpus))
        self._corpus_digest = self._dataset.fingerprint([view]) if spec.fits else None
        self._loaded = load(spec, corpus=corpus, device=self._device)
        return len(self._loaded.layers)

    def embed(self, shard: int) -> Iterator[pa.Table | dict[str, Any]]:
        """Yield a table of features `[n, D]` for every layer, each durable already, then a report.

        The manifest is written after the last layer and before the report: only then does the
        shard exist. Layers are written several at a time: a disk's flush or a bucket's answer is
        waited for once, not once a layer.

        :raises DataError: naming model, layer and sample of a feature that is NaN or infinite.
        """
        assert self._loaded is not None, "load the model first"
        context, layers = self._context, self._loaded.layers
        span = context.plan.shards[shard]
        there = self._from_store(shard)
        if there is not None:
            yield from there
            size = sum(table.nbytes for table in there)
            found = {"found": True, "bytes_out": 0, "bytes_found": size}
            yield {**found, "rows": len(span), "layers": len(layers)}
            return
        features = self.compute(shard)
        draft = context.store.draft("features", context.plan.models[self._model].shard_keys[shard])
        narrow = self._narrowed(features.layers, shard) if context.features == "float16" else None
        kept: Sequence[NDArray[Any]] = features.layers if narrow is None else narrow
        tables = [feature_table(rows) for rows in kept]
        names = [f"layer.{layer.index:04d}" for layer in layers]
        with ThreadPoolExecutor(_WRITERS) as writers:
            for table, _ in zip(tables, writers.map(draft.add, names, tables), strict=True):
                yield table
        smaller = {"smaller_batches": context.pieces} if context.pieces else {}
        draft.commit(
            {
                **smaller,
                "layers": [vars(layer) for layer in layers],
                "rows": len(span),
                "truncated": features.truncated,
                "fell_back": "float32" if features.fell_back else None,
                "likelihood": None if features.likelihood is None else asdict(features.likelihood),
                "zero_rows": [int((~rows.any(axis=1)).sum()) for rows in kept],
                "neighbors_lost": None
                if narrow is None
                else [neighbors_lost(*both) for both in zip(features.layers, narrow, strict=True)],
                "made_by": made_by(self._device, context.run.threads),
            }
        )
        size = sum(table.nbytes for table in tables)
        yield {"bytes_out": size, "rows": len(span), "layers": len(features.layers)}

    def _from_store(self, shard: int) -> list[pa.Table] | None:
        """Return a shard that another process has made since it was planned; None where none has."""
        store, key = self._context.store, self._context.plan.models[self._model].shard_keys[shard]
        manifest = store.manifest("features", key)
        return None if manifest is None else read_parts(self._context, manifest)

    def embed_alone(self, shard: int) -> Iterator[str]:
        """Yield the id of every sample of a shard, and then embed that one; keep nothing.

        Where the process ends in this, the last id is that of the sample that ended it.
        """
        span, spec = self._context.plan.shards[shard], self._context.specs[self._model]
        view = self._context.plan.models[self._model].view
        for row in range(span.start, span.stop):
            yield str(self._dataset.ids[row])
            if spec.by_row:
                self._run(self._rows[row : row + 1])
                continue
            items: Sequence[Any] = self._dataset.read(view, row, row + 1)
            several = self._dataset.several(view)
            self._run(list(itertools.chain.from_iterable(items)) if several else items)

    def compute(self, shard: int) -> Features:
        """Return the features of a shard; nothing is written.

        :raises DataError: if its samples are no longer those that were planned for, or naming model,
            layer and sample of a feature that is NaN or infinite.
        """
        assert self._loaded is not None, "load the model first"
        context, planned = self._context, self._context.plan.models[self._model]
        span = context.plan.shards[shard]
        torch.set_num_threads(context.run.threads)
        spec = context.specs[self._model]
        read = (
            Shard(self._rows[span.start : span.stop])
            if spec.by_row
            else self._dataset.shard(planned.view, span.start, span.stop)
        )
        items = read.items
        other = spec.likelihood_view
        predicted = None if other is None else self._dataset.shard(other, span.start, span.stop)
        of_texts = None if predicted is None else predicted.digest()
        key = features_key(spec.key, read.digest(), self._corpus_digest, context.features, of_texts)
        if key != planned.shard_keys[shard]:
            raise DataError(
                f"Samples {span.start} to {span.stop - 1} of {self._dataset.name} changed while the study ran. "
                "Run again: what did not change is kept."
            )
        if self._dataset.several(planned.view) and not spec.by_row:
            features = averaged(self._run(list(itertools.chain.from_iterable(items))), items)
        else:
            features = self._run(items)
        if read.counts is not None:
            layers = [np.repeat(rows, read.counts, axis=0) for rows in features.layers]
            features = dataclasses.replace(features, layers=layers)
        if other is not None and predicted is not None:
            texts = list(predicted.items)
            if self._dataset.several(other):
                texts = list(itertools.chain.from_iterable(texts))
            features = dataclasses.replace(features, likelihood=self._loaded.likelihood(texts))  # type: ignore[attr-defined]
        for layer, rows in zip(self._loaded.layers, features.layers, strict=True):
            self._refuse_nan(rows, planned.name, layer.name, span.start)
        self._refuse_no_likelihood(features, planned.name, span)
        return features

    def _run(self, items: Sequence[Any]) -> Features:
        """Return the features of items, made again in float32 where that is asked for and has to be."""
        assert self._loaded is not None
        features = self._loaded.embed(items)
        wide = self._context.specs[self._model].in_smaller_batches(self._context.pieces).in_float32()
        if wide is None or _is_finite(features):
            return features
        if self._wide is None:
            self._wide = load(wide, device=self._device)
        return dataclasses.replace(self._wide.embed(items), fell_back=True)

    def _narrowed(self, layers: Sequence[NDArray[np.float32]], shard: int) -> list[NDArray[np.float16]]:
        assert self._loaded is not None
        span, name = self._context.plan.shards[shard], self._context.plan.models[self._model].name
        ids = self._dataset.ids[span.start : span.stop]
        named = zip(layers, self._loaded.layers, strict=True)
        return [narrowed(rows, name, layer.name, ids) for rows, layer in named]

    def _refuse_no_likelihood(self, features: Features, model: str, span: Span) -> None:
        if features.likelihood is not None and not math.isfinite(features.likelihood.bits):
            raise DataError(
                f"Model {model!r}: the bits per byte of samples {span.start} to {span.stop - 1} are NaN or infinite. "
                "Run the model in float32."
            )

    def _refuse_nan(self, rows: NDArray[np.float32], model: str, layer: str, first: int) -> None:
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if bad.size:
            ids = ", ".join(repr(self._dataset.ids[first + row]) for row in bad[:20])
            raise DataError(
                f"Model {model!r}, layer {layer!r}: {bad.size} features are NaN or infinite, of sample {ids}"
                f"{', …' if bad.size > 20 else ''}. Leave these samples out, or run the model in float32 "
                '(on_nan = "float32" does where it has to).'
            )


def _is_finite(features: Features) -> bool:
    bits = 0.0 if features.likelihood is None else features.likelihood.bits
    return math.isfinite(bits) and all(np.isfinite(rows).all() for rows in features.layers)


def averaged(features: Features, groups: Sequence[Sequence[Any]]) -> Features:
    """Return the mean of the features of each group's items, in float64, rounded once.

    :param features: `[items, D_l]` a layer: those of all groups, one after another; no group is empty.
    """
    counts = np.array([len(group) for group in groups])
    starts = np.concatenate([[0], counts.cumsum()[:-1]])
    layers = [
        (np.add.reduceat(rows, starts, axis=0, dtype=np.float64) / counts[:, None]).astype(np.float32)
        for rows in features.layers
    ]
    return dataclasses.replace(features, layers=layers)


def made_by(device: str, threads: int) -> dict[str, Any]:
    """Return what the bytes of a feature may depend on beside its key."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    return {
        "device": device,
        "device_name": name,
        "threads": threads,
        "torch": torch.__version__,
        "transformers": _version("transformers"),
    }


@cache
def _version(package: str) -> str:
    """Return the version of a package; to read it takes milliseconds, and each shard states it."""
    return importlib.metadata.version(package)
