"""Two results beside each other: by how much every pair of models differs, and how sure that is.

A frame, a row a metric and model pair that both results have:
    metric, model_x, model_y        String
    score, other                    Float64  of the first result and of the second
    difference                      Float64  score − other
    low, high                       Float64  its interval; null where one of the two has none
    paired                          Boolean  whether both were made on the same samples
    method                          String   how the interval was made, or why there is none
    layers                          Boolean  whether both have their best score in the same layers

The interval is made from those of the two scores (square-and-add, Zou & Donner 2008, "Construction of
confidence intervals about effect measures"): exact in its level for samples drawn independently. On the same
samples scores go up and down together, so that it is then too wide rather than too narrow; what would make
it narrower, the scores of both results on the same parts of the samples, no result holds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import polars as pl

from platonic_ray.errors import StudyError

if TYPE_CHECKING:
    from platonic_ray.results.result import Result

COMPARE_SCHEMA = pl.Schema(
    {
        "metric": pl.String,
        "model_x": pl.String,
        "model_y": pl.String,
        "score": pl.Float64,
        "other": pl.Float64,
        "difference": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "paired": pl.Boolean,
        "method": pl.String,
        "layers": pl.Boolean,
    }
)


def compare(result: Result, other: Result) -> pl.DataFrame:
    """Return the differences of two results, in the order of the first.

    :raises StudyError: if they have no metric and pair of different models in common.
    """
    theirs = {key: row for row in other.models.iter_rows(named=True) for key in _keys(row)}
    same = _same_samples(result, other)
    rows = [
        _row(row, theirs[key], same)
        for row in result.models.iter_rows(named=True)
        if row["model_x"] != row["model_y"] and (key := _keys(row)[0]) in theirs
    ]
    if not rows:
        raise StudyError(
            f"The two results have no metric and pair of models in common: {_has(result)}; {_has(other)}."
        )
    return pl.DataFrame(rows, schema=COMPARE_SCHEMA)


def _keys(row: dict[str, Any]) -> list[tuple[str, str, str]]:
    there = (row["metric"], row["model_x"], row["model_y"])
    return [there, (there[0], there[2], there[1])] if row["symmetric"] else [there]


def _same_samples(result: Result, other: Result) -> bool:
    """Whether both are of the same samples: told by the fingerprint of their content."""
    prints = [(each.provenance.get("dataset") or {}).get("fingerprint") for each in (result, other)]
    return prints[0] is not None and prints[0] == prints[1]


def _row(mine: dict[str, Any], theirs: dict[str, Any], same: bool) -> dict[str, Any]:
    difference = mine["score"] - theirs["score"]
    low, high, method = _interval(mine, theirs, difference, same)
    turned = (mine["model_x"], mine["model_y"]) != (theirs["model_x"], theirs["model_y"])
    first, second = ("layer_y_name", "layer_x_name") if turned else ("layer_x_name", "layer_y_name")
    return {
        **{name: mine[name] for name in ("metric", "model_x", "model_y", "score")},
        **{"other": theirs["score"], "difference": difference, "low": low, "high": high},
        **{"paired": same, "method": method},
        "layers": (mine["layer_x_name"], mine["layer_y_name"]) == (theirs[first], theirs[second]),
    }


def _interval(
    mine: dict[str, Any], theirs: dict[str, Any], difference: float, same: bool
) -> tuple[float | None, float | None, str]:
    """Return low, high and method of a difference (Zou & Donner 2008, eq. 2)."""
    for row, which in ((mine, "first"), (theirs, "second")):
        if row["low"] is None:
            return None, None, f"the {which} result has no interval ([intervals] in its study makes one)"
        if math.isnan(row["low"]):
            return None, None, f"the interval of the {which} result is undefined"
    if mine["interval_target"] != theirs["interval_target"]:
        return (
            None,
            None,
            f"intervals for the {mine['interval_target']} and for the {theirs['interval_target']}",
        )
    down = math.hypot(mine["score"] - mine["low"], theirs["high"] - theirs["score"])
    up = math.hypot(mine["high"] - mine["score"], theirs["score"] - theirs["low"])
    kept = "; the same samples, so rather too wide" if same else ""
    return difference - down, difference + up, f"square and add, for the {mine['interval_target']}{kept}"


def _has(result: Result) -> str:
    models = result.layers["model"].unique(maintain_order=True).to_list()
    return f"{', '.join(result.metrics) or 'no metric'} of {', '.join(models[:6])}{', …' if len(models) > 6 else ''}"
