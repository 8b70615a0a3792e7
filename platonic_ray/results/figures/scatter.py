"""Points: alignment against capability or size, calibrated against raw scores, models on a plane."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from platonic_ray.errors import StudyError
from platonic_ray.results.figures.style import (
    FAINT,
    INK,
    MARKERS,
    PALETTE,
    canvas,
    direct_labels,
    draw_chance,
    label_axes,
    signed,
)
from platonic_ray.results.groups import inputs_of, with_groups
from platonic_ray.results.order import distances_of
from platonic_ray.results.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = "parameters"
_MOST_NAMED = 30


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's ρ of `count` pairs of numbers with its 95 % interval; NaN where there are too few."""

    rho: float
    low: float
    high: float
    count: int


def rank_correlation(x: npt.ArrayLike, y: npt.ArrayLike) -> RankCorrelation:
    """Return Spearman's ρ and its interval: Fisher's z with the variance of Bonett & Wright (2000).

    >>> rank_correlation([1, 2, 3, 4], [1, 2, 4, 3]).rho.__round__(6)
    0.8
    """
    from scipy.stats import rankdata

    a, b = (rankdata(np.asarray(each, dtype=np.float64)) for each in (x, y))
    n = len(a)
    if n < 3 or a.std() == 0 or b.std() == 0:
        return RankCorrelation(math.nan, math.nan, math.nan, n)
    rho = float(np.clip(np.corrcoef(a, b)[0, 1], -1, 1))
    if n < 5 or abs(rho) == 1:
        return RankCorrelation(rho, math.nan, math.nan, n)
    reach = 1.959964 * math.sqrt((1 + rho**2 / 2) / (n - 3))
    z = math.atanh(rho)
    return RankCorrelation(rho, math.tanh(z - reach), math.tanh(z + reach), n)


def capability(
    result: Result, metric: str | None = None, *, of: str | None = None, against: str | None = None
) -> Figure:
    """Draw alignment against a capability, a point a model, with a linear fit and the rank correlation.

    :param of: the capability; by default the result's first. "parameters" has a logarithmic axis.
    :param against: the model that alignment is with; by default the mean over trained models that read
        something else (over all others, where all read the same).
    :raises StudyError: if the result has no such capability, or for fewer than two models.
    """
    label = result.metric(metric)
    known = result.capability["capability"].unique(maintain_order=True).to_list()
    name = of or next((name for name in known if name != SIZE), None)
    if name is None or name not in known:
        if of == SIZE:
            raise StudyError(
                "This result does not know how large its models are: networks of a study say it, features do not "
                "(capability = { parameters = 1.35e8 } under a model of a study does)."
            )
        asked = f"no capability {of!r}" if of else "no capability"
        how = (
            "capability = { hellaswag = 0.71 } under a model, or bits_per_byte = true, in its study gives one"
        )
        raise StudyError(f"This result has {asked} ({how}); it has: {', '.join(known) or 'none'}.")
    rows = result.capability.filter((pl.col("capability") == name) & pl.col("value").is_not_nan())
    points = [
        (value, score, model)
        for model, value in rows.select("model", "value").rows()
        if model != against and not math.isnan(score := alignment_of(result, label, model, against))
    ]
    if against is not None and against not in (models := set(result.layers["model"])):
        raise StudyError(
            f"There is no model {against!r} in this result; it has: {', '.join(sorted(models))}."
        )
    if len(points) < 2:
        raise StudyError(f"A picture of {label} against {name} needs at least two models that have both.")
    figure, axes = canvas()
    x, y = (np.array([point[at] for point in points]) for at in (0, 1))
    log = name == SIZE
    if log:
        axes.set_xscale("log")
    floors = np.isin([point[2] for point in points], result.provenance.get("floors") or [])
    for some, fill, kind in ((~floors, PALETTE[0], "trained models"), (floors, "none", "floors")):
        if some.any():
            axes.scatter(
                x[some], y[some], s=34, facecolors=fill, edgecolors=PALETTE[0], linewidths=1.2, zorder=3,
                label=kind if floors.any() else None,
            )  # fmt: skip
    place = np.log(x) if log else x
    if len(points) > 2 and place.std() > 0:
        slope, start = np.polyfit(place, y, 1)
        ends = np.array([place.min(), place.max()])
        axes.plot(
            np.exp(ends) if log else ends,
            start + slope * ends,
            color=PALETTE[1],
            linewidth=1.5,
            label="linear fit",
        )
    found = rank_correlation(x, y)
    interval = "" if math.isnan(found.low) else f", 95 % [{signed(found.low)}, {signed(found.high)}]"
    draw_chance(axes, result.pairs(label)["chance"].to_list())
    title = f"Alignment against {name}"
    if not math.isnan(found.rho):
        title += f". Spearman’s ρ = {signed(found.rho)}{interval}, {found.count} models"
    with_what = against or "models that read something else"
    label_axes(axes, result, label, _unit(name), f"{label} with {with_what}", title)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7.5, frameon=False)
    direct_labels(axes, points[:_MOST_NAMED])
    return figure


def calibrated(result: Result, metric: str | None = None) -> Figure:
    """Draw calibrated against raw scores, a point a pair of models: what is left beyond permuted samples.

    :raises StudyError: if no null was made.
    """
    label = result.metric(metric)
    pairs = with_groups(result, label).filter(
        pl.col("calibrated").is_not_null() & pl.col("score").is_not_nan()
    )
    if pairs.is_empty():
        raise StudyError(
            f"{label} has no calibrated scores in this result: no null was made ([null] in a study)."
        )
    figure, axes = canvas()
    groups = pairs["group"].unique().sort().to_list()
    for at, group in enumerate(groups):
        for floor, fill in ((False, PALETTE[at % len(PALETTE)]), (True, "none")):
            some = pairs.filter((pl.col("group") == group) & (pl.col("floor") == floor))
            if some.is_empty():
                continue
            axes.scatter(
                some["score"], some["calibrated"], s=30, marker=MARKERS[at % len(MARKERS)], facecolors=fill,
                edgecolors=PALETTE[at % len(PALETTE)], linewidths=1.2, zorder=3,
                label=f"{group}, with a floor" if floor else group,
            )  # fmt: skip
    thresholds = pairs["null_threshold"].to_numpy()
    axes.axvspan(
        float(thresholds.min()),
        float(thresholds.max()),
        color=FAINT,
        alpha=0.35,
        label="thresholds of the null",
    )
    axes.legend(fontsize=7.5, frameon=False)
    label_axes(
        axes,
        result,
        label,
        f"{label}, raw",
        "calibrated (0: the null’s threshold)",
        "Calibrated against raw scores",
    )
    return figure


def plane(result: Result, metric: str | None = None) -> Figure:
    """Draw models on a plane, near where they are alike: classical scaling (Torgerson 1952).

    Of a similarity, the distance is the best score of any pair minus the score.

    :raises StudyError: for a cross table, or fewer than three models.
    """
    label = result.metric(metric)
    apart, names = distances_of(result, label), result.layout(label).rows
    if len(names) < 3:
        raise StudyError("A plane of models needs at least three.")
    where, kept = scaled(apart)
    figure, axes = canvas(6.4, 5.2)
    inputs, floors = inputs_of(result), set(result.provenance.get("floors") or ())
    for at, kind in enumerate(sorted(set(inputs.values()))):
        for floor in (False, True):
            some = [i for i, name in enumerate(names) if inputs[name] == kind and (name in floors) == floor]
            if some:
                axes.scatter(
                    where[some, 0], where[some, 1], s=46, marker=MARKERS[at % len(MARKERS)],
                    facecolors="none" if floor else PALETTE[at % len(PALETTE)], linewidths=1.4,
                    edgecolors=PALETTE[at % len(PALETTE)], label=f"{kind}, floor" if floor else kind, zorder=3,
                )  # fmt: skip
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend(fontsize=7.5, frameon=False)
    note = (
        f"Models on a plane; two of the dimensions hold {100 * kept:.0f} % of the squared distances’ spread"
    )
    label_axes(axes, result, label, "first dimension", "second dimension", note)
    axes.tick_params(color=INK)
    if len(names) <= _MOST_NAMED:
        direct_labels(axes, [(where[i, 0], where[i, 1], name) for i, name in enumerate(names)])
    return figure


def scaled(apart: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """Return places `[n, 2]` whose distances come near to `apart` `[n, n]`, and their share of the spread.

    The two leading eigenvectors of the doubly centered matrix of −½ squared distances.
    """
    squared = -0.5 * apart**2
    centered = squared - squared.mean(0) - squared.mean(1)[:, None] + squared.mean()
    values, vectors = np.linalg.eigh(centered)
    top = values[::-1][:2].clip(min=0)
    # An eigenvector's sign is the library's choice: fix it.
    leading = vectors[:, ::-1][:, :2]
    leading = leading * np.where(leading[np.abs(leading).argmax(0), [0, 1]] < 0, -1, 1)
    total = values.clip(min=0).sum()
    return leading * np.sqrt(top), float(top.sum() / total) if total > 0 else 0.0


def alignment_of(result: Result, label: str, model: str, against: str | None = None) -> float:
    """Return a model's alignment with another, or its mean with trained ones that read something else.

    With all other trained ones, where all read the same; NaN where there is no score.
    """
    matrix, inputs = result.matrix(label), inputs_of(result)
    rows, columns = matrix.rows, matrix.columns
    floors = set(result.provenance.get("floors") or ())
    if against is not None:
        others = [against]
    else:
        trained = [name for name in dict.fromkeys((*rows, *columns)) if name != model and name not in floors]
        others = [name for name in trained if inputs[name] != inputs[model]] or trained
    scores = [
        matrix.at(x, y)
        for other in others
        for x, y in ((model, other), (other, model))
        if x in rows and y in columns
    ]
    finite = [score for score in scores if not math.isnan(score)]
    return float(np.mean(finite)) if finite else math.nan


def _unit(name: str) -> str:
    if name == SIZE:
        return "parameters (log scale)"
    return f"{name.replace('_', ' ')} (smaller is better)" if name.startswith("bits_per_byte") else name
