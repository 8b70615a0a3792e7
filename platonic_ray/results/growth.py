"""The frame of growth: scores of layer pairs at several numbers of samples.

A row a metric, pair and size:
    metric                          String   its name
    model_x, model_y                String   "x", "y" where two representations were given
    layer_x, layer_y                Int64    depth, 0 first
    layers                          String   how they were chosen: "only", "given", "best on all samples"
    protocol                        String   "all" against all; "queries" against a growing gallery
    queries                         Int64    how many; null where all are against all
    size                            Int64    samples; of the gallery, where there are queries
    k                               Int64    neighbors at this size; null for metrics without
    score                           Float64  NaN where undefined
    standard_error                  Float64  null where half of the samples are too few for the metric
    target                          String   what it is an error for: "population" (samples drawn anew, as
                                             many), "queries" (queries drawn anew, this gallery)
    chance                          Float64  expected of two unrelated layers at this size; null if unknown
    status                          String   null, or why it is undefined or what to know about it

Layers that were chosen because they are best on all samples are a little too good on all of them; the
standard error does not count the choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

GROWTH_SCHEMA = pl.Schema(
    {
        "metric": pl.String,
        "model_x": pl.String,
        "model_y": pl.String,
        "layer_x": pl.Int64,
        "layer_y": pl.Int64,
        "layers": pl.String,
        "protocol": pl.String,
        "queries": pl.Int64,
        "size": pl.Int64,
        "k": pl.Int64,
        "score": pl.Float64,
        "standard_error": pl.Float64,
        "target": pl.String,
        "chance": pl.Float64,
        "status": pl.String,
    }
)


def growth_frame(rows: Iterable[Mapping[str, Any]] = ()) -> pl.DataFrame:
    """Return rows that have these columns as a frame."""
    return pl.DataFrame([dict(row) for row in rows], schema=GROWTH_SCHEMA)
