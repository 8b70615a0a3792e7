"""The frames of examples: what some samples are near to, in the layers where models are most alike.

`examples.parquet`, a row a sample, model and layer. A seeded draw of a few samples; of every model the
layers where some metric has its best score with a different model:
    sample                          Int64    its row among the study's samples
    model, layer, layer_name                 as in `layers.parquet`
    neighbors                       List(Int64)    its nearest other samples, nearest first, at most 20
    similarities                    List(Float64)  of the prepared rows, in the same order

`samples.parquet`, a row a sample of the above (the neighbors too) and view:
    sample                          Int64
    id                              String   its id in the dataset
    view                            String   a view that a model of the study reads
    kind                            String   "text", "image", "audio" or "video"
    text                            String   of a text, its first 160 characters; else null
    thumbnail                       Binary   of an image, WebP of at most 64 × 64 pixels; null where it is
                                             none, or all of them together would be larger than 2 MB

Both are empty where no metric of the study needs neighbors, and for features in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from platonic_ray.errors import StudyError

_EXAMPLES: Mapping[str, Any] = {
    "sample": pl.Int64,
    "model": pl.String,
    "layer": pl.Int64,
    "layer_name": pl.String,
    "neighbors": pl.List(pl.Int64),
    "similarities": pl.List(pl.Float64),
}
EXAMPLES_SCHEMA = pl.Schema(_EXAMPLES)
SAMPLES_SCHEMA = pl.Schema(
    {
        "sample": pl.Int64,
        "id": pl.String,
        "view": pl.String,
        "kind": pl.String,
        "text": pl.String,
        "thumbnail": pl.Binary,
    }
)


def examples_frame(rows: Iterable[Mapping[str, Any]] = ()) -> pl.DataFrame:
    """Return rows that have the columns of `examples.parquet` as a frame."""
    return pl.DataFrame([dict(row) for row in rows], schema=EXAMPLES_SCHEMA)


def samples_frame(rows: Iterable[Mapping[str, Any]] = ()) -> pl.DataFrame:
    """Return rows that have the columns of `samples.parquet` as a frame."""
    return pl.DataFrame([dict(row) for row in rows], schema=SAMPLES_SCHEMA)


def neighbors_of(examples: pl.DataFrame, samples: pl.DataFrame, sample: int | str) -> pl.DataFrame:
    """Return the rows of `examples` of one sample, named by its row or its id, with `ids` of the neighbors.

    :raises StudyError: if it is not among the examples; the error lists those that are.
    """
    names = dict(samples.select("sample", "id").unique("sample", maintain_order=True).rows())
    row = (
        sample if isinstance(sample, int) else next((at for at, name in names.items() if name == sample), -1)
    )
    found = examples.filter(pl.col("sample") == row)
    if found.is_empty():
        there = examples["sample"].unique(maintain_order=True).to_list()
        listed = ", ".join(f"{at} ({names.get(at, '?')})" for at in there) or "none"
        raise StudyError(f"The neighbors of sample {sample!r} are not in this result; those of: {listed}.")
    ids = [[names.get(at, str(at)) for at in near] for near in found["neighbors"].to_list()]
    return found.with_columns(pl.Series("ids", ids, pl.List(pl.String)))
