"""Two results beside each other: by how much every pair of models differs, and how sure that is.

A frame, a row a metric and model pair that both results have:
    metric, model_x, model_y        String
    score, other                    Float64  of the first result and of the second
    difference                      Float64  score − other
    low, high                       Float64  its interval; null where one of the two has none
    paired                          Boolean  whether the interval is paired over the samples of both
    method                          String   how the interval was made, or why there is none
    layers                          Boolean  whether both have their best score in the same layers

On the same samples, scores go up and down together. Intervals for the population hold the scores of both
halves of every cut of the samples (`interval_halves`), and the same seed cuts the same samples alike: so the
interval is then that of the differences of those scores, **paired over samples**
(`statistics.intervals.difference_interval`). It holds for every metric, and costs nothing that was not there.

Otherwise it is made from those of the two scores (square-and-add, Zou & Donner 2008, "Construction of confidence
intervals about effect measures"): exact in its level for samples drawn independently, and rather too wide for the
same samples. That is left for intervals for queries, whose samples are one another's neighbors: their differences
would need the neighbors of both results.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import polars as pl

from platonic_ray.errors import StudyError

if TYPE_CHECKING:
    from platonic_ray.results.result import Result

_CUTS = ("target", "level", "splits", "seed")

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


def compare(result: Result, other: Result, same_samples: bool | None = None) -> pl.DataFrame:
    """Return the differences of two results, in the order of the first.

    :param same_samples: as of `Result.compare`.
    :raises StudyError: if they have no metric and pair of different models in common.
    """
    theirs = {key: row for row in other.models.iter_rows(named=True) for key in _keys(row)}
    same = _same_samples(result, other) if same_samples is None else same_samples
    level = _level_of_same_cuts(result, other) if same else None
    rows = [
        _row(row, theirs[key], same, level)
        for row in result.models.iter_rows(named=True)
        if row["model_x"] != row["model_y"] and (key := _keys(row)[0]) in theirs
    ]
    if not rows:
        raise StudyError(
            f"The two results have no metric and pair of models in common: {_has(result)}; {_has(other)}."
        )
    return pl.DataFrame(rows, schema=COMPARE_SCHEMA)


def difference(result: Result, pair: tuple[str, str], other: tuple[str, str]) -> pl.DataFrame:
    """Return the difference of two pairs of one result, a row a metric; see `Result.difference`.

    :raises StudyError: if no metric has both pairs.
    """
    of_pair = {key: row for row in result.models.iter_rows(named=True) for key in _keys(row)}
    level = _level_of_same_cuts(result, result)
    rows = []
    for label in result.metrics:
        mine, theirs = of_pair.get((label, *pair)), of_pair.get((label, *other))
        if mine is not None and theirs is not None:
            named = {"model_x": pair[0], "model_y": pair[1], "other_x": other[0], "other_y": other[1]}
            rows.append(_row(mine, theirs, True, level) | named)
    if not rows:
        raise StudyError(
            f"No metric of this result has both {' – '.join(pair)} and {' – '.join(other)}: {_has(result)}."
        )
    names = [*COMPARE_SCHEMA]
    order = [*names[:3], "other_x", "other_y", *names[3:-1]]  # whether layers are the same means nothing here
    schema = {name: COMPARE_SCHEMA.get(name, pl.String()) for name in order}
    return pl.DataFrame([{name: row[name] for name in order} for row in rows], schema=schema)


def _keys(row: dict[str, Any]) -> list[tuple[str, str, str]]:
    there = (row["metric"], row["model_x"], row["model_y"])
    return [there, (there[0], there[2], there[1])] if row["symmetric"] else [there]


def _same_samples(result: Result, other: Result) -> bool:
    """Whether both are of the same samples: told by the fingerprint of their content."""
    prints = [(each.provenance.get("dataset") or {}).get("fingerprint") for each in (result, other)]
    return prints[0] is not None and prints[0] == prints[1]


def _level_of_same_cuts(result: Result, other: Result) -> float | None:
    """Return the level of the intervals of two results that cut the samples alike; None if they do not.

    Of halves of groups the sizes and the number of groups would have to be known: they are not paired.
    """
    how, theirs = (each.provenance.get("intervals") or {} for each in (result, other))
    if how.get("groups") or theirs.get("groups"):
        return None
    if not how or any(how.get(name) != theirs.get(name) for name in _CUTS):
        return None
    return float(how["level"])


def _row(mine: dict[str, Any], theirs: dict[str, Any], same: bool, level: float | None) -> dict[str, Any]:
    difference = mine["score"] - theirs["score"]
    paired = _paired(mine, theirs, difference, level)
    low, high, method = paired or _interval(mine, theirs, difference, same)
    turned = (mine["model_x"], mine["model_y"]) != (theirs["model_x"], theirs["model_y"])
    first, second = ("layer_y_name", "layer_x_name") if turned else ("layer_x_name", "layer_y_name")
    return {
        **{name: mine[name] for name in ("metric", "model_x", "model_y", "score")},
        **{"other": theirs["score"], "difference": difference, "low": low, "high": high},
        **{"paired": paired is not None, "method": method},
        "layers": (mine["layer_x_name"], mine["layer_y_name"]) == (theirs[first], theirs[second]),
    }


def _paired(
    mine: dict[str, Any], theirs: dict[str, Any], difference: float, level: float | None
) -> tuple[float, float, str] | None:
    """Return low, high and method of a difference on the same samples; None where halves are not those."""
    halves, others = mine["interval_halves"], theirs["interval_halves"]
    if level is None or halves is None or others is None or len(halves) != len(others):
        return None
    if mine["n"] != theirs["n"]:
        return None
    import numpy as np

    from platonic_ray.statistics.intervals import difference_interval

    cuts = (
        np.array(halves, dtype=np.float64).reshape(-1, 2),
        np.array(others, dtype=np.float64).reshape(-1, 2),
    )
    low, high = difference_interval(difference, *cuts, n=mine["n"], level=level)
    if math.isnan(low):
        return None
    return low, high, f"{100 * level:g} %: t over {len(halves) // 2} cuts into halves, paired over samples"


def _interval(
    mine: dict[str, Any], theirs: dict[str, Any], difference: float, same: bool
) -> tuple[float | None, float | None, str]:
    """Return low, high and method of a difference (Zou & Donner 2008, eq. 2)."""
    for row, which in ((mine, "first"), (theirs, "second")):
        if row["low"] is None:
            return (
                None,
                None,
                f"the {which} result has no interval ([intervals] in a study, or intervals of a table, make one)",
            )
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
