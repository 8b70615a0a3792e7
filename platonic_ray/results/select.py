"""A part of a result: some of its models, some of its metrics. Nothing is computed anew."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from platonic_ray.errors import StudyError

if TYPE_CHECKING:
    from platonic_ray.results.result import Result


def select(
    result: Result,
    models: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    without: Collection[str] = (),
) -> Result:
    """Return the rows of some models and metrics, in the order of the result.

    What was adjusted for all pairs (q) stays adjusted for all of them: choosing pairs afterwards makes
    none of them more significant. A note says so.

    :raises StudyError: if a name is not in the result, or nothing is left.
    """
    known = result.layers["model"].unique(maintain_order=True).to_list()
    for name in (*(models or ()), *without):
        _refuse_unknown(name, known, "model")
    for label in metrics or ():
        _refuse_unknown(label, result.metrics, "metric")
    kept = [name for name in known if name not in without and (models is None or name in models)]
    labels = [label for label in result.metrics if metrics is None or label in metrics]
    of_models = pl.col("model_x").is_in(kept) & pl.col("model_y").is_in(kept)
    pairs = result.models.filter(of_models & pl.col("metric").is_in(labels))
    if pairs.is_empty():
        raise StudyError("The selection is empty: no pair of the models named was scored with these metrics.")
    examples = result.examples.filter(pl.col("model").is_in(kept))
    notes = list(result.provenance.get("notes") or [])
    if len(kept) < len(known):
        notes.append(
            f"a selection of {len(kept)} of {len(known)} models; q is over all pairs of the whole result"
        )
    return replace(
        result,
        scores=result.scores.filter(of_models & pl.col("metric").is_in(labels)),
        models=pairs,
        layers=result.layers.filter(pl.col("model").is_in(kept)),
        growth=result.growth.filter(of_models & pl.col("metric").is_in(labels)),
        examples=examples,
        capability=result.capability.filter(pl.col("model").is_in(kept)),
        provenance=result.provenance | {"notes": notes},
    )


def _refuse_unknown(name: str, known: Sequence[str], what: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise StudyError(f"There is no {what} {name!r} in this result.{hint} It has: {', '.join(known)}.")
