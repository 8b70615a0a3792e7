"""The frame of capability: how good models are at something else, to set alignment against.

A row a model and capability:
    model                           String
    capability                      String   its name; measured are the two below, others were given
    view                            String   what it was measured on; null where it was given
    value                           Float64
    samples                         Int64    how many it was measured on; null where it was given
    status                          String   null, or what to know about it

Measured, of causal language models with `bits_per_byte = true`, on the pass that gave their features:
"bits_per_byte", the negative log-likelihood of all texts in bits over all their bytes of UTF-8 (every
token weighs the same), and "bits_per_byte_per_text", the mean over texts of each one's own ratio, as
the code of Huh et al. (2024) has it. The smaller, the better. Given are the scores of a study's
`capability = { hellaswag = 0.71 }` under a model. "parameters" counts the numbers in a network's weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

CAPABILITY_SCHEMA = pl.Schema(
    {
        "model": pl.String,
        "capability": pl.String,
        "view": pl.String,
        "value": pl.Float64,
        "samples": pl.Int64,
        "status": pl.String,
    }
)


def capability_frame(rows: Iterable[Mapping[str, Any]] = ()) -> pl.DataFrame:
    """Return rows that have some of these columns as a frame; what a row lacks is null."""
    return pl.DataFrame([dict(row) for row in rows], schema=CAPABILITY_SCHEMA)
