"""What several tests ask of a study that has run: its bytes, its features, its log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from platonic_ray.engine.prepare import prepare
from platonic_ray.results import Result
from platonic_ray.store import Store, feature_array
from platonic_ray.study import Study


def changed(study: Study, **run: Any) -> Study:
    """The same study, run elsewhere or otherwise."""
    return study.replace(run=study.run.model_dump() | run)


def score_bytes(result: Result) -> bytes:
    """Every score and its place, as Arrow bytes: two results are equal if these are."""
    sink = pa.BufferOutputStream()
    for frame in (result.scores, result.models, result.layers):
        table = frame.to_arrow()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()


def dense_features(study: Study) -> dict[str, list[np.ndarray]]:
    """The features of a study that has run, read from its store: `[N, D_l]` a layer."""
    store = Store(study.run.store)
    plan = prepare(study, store).context.plan
    features = {}
    for model in plan.models:
        shards = []
        for key in model.shard_keys:
            manifest = store.manifest("features", key)
            shards.append([feature_array(store.read(manifest, part)) for part in sorted(manifest.parts)])
        features[model.name] = [np.concatenate(layer) for layer in zip(*shards, strict=True)]
    return features


def events_of(study: Study, run: int = -1) -> list[dict[str, Any]]:
    """The events of a run of a study, by default the last."""
    store = Store(study.run.store)
    return store.events(store.runs()[run])


def committed(study: Study, kind: str) -> set[str]:
    """The keys of the artifacts of a kind that exist."""
    return {path.parent.name for path in (Path(study.run.store) / kind).rglob("manifest.json")}
