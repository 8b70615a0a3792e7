"""Maps: the layers of two models against each other, and metrics against metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from platonic_ray.errors import StudyError
from platonic_ray.results.figures.scatter import rank_correlation
from platonic_ray.results.figures.style import (
    COLORS,
    INK,
    canvas,
    installed_fonts,
    label_axes,
    readable_on,
    title_axes,
)
from platonic_ray.results.result import Result
from platonic_ray.results.text import safe, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_WRITTEN = 14  # rows and columns whose cells hold numbers


def layer_map(result: Result, metric: str | None = None, *, pair: tuple[str, str]) -> Figure:
    """Draw the scores of all layer pairs of two models, the layers of the first down; the best is framed.

    :raises StudyError: if the pair was not scored.
    """
    from matplotlib.patches import Rectangle

    label = result.metric(metric)
    matrix = result.layers_matrix(*pair, label)
    rows, columns = matrix.shape
    figure, axes = canvas(max(5.0, 2.0 + 0.32 * columns), max(3.0, 1.5 + 0.26 * rows))
    distance = result.direction(label) == "distance"
    finite = matrix.values[np.isfinite(matrix.values)]
    low = min(0.0, float(finite.min(initial=0.0)))
    high = float(finite.max(initial=low))
    _cells(
        figure, axes, matrix.values, low, high if high > low else low + 1, reverse=distance, bar=safe(label)
    )
    _names(axes, matrix.rows, matrix.columns)
    if finite.size:
        at = np.nanargmin(matrix.values) if distance else np.nanargmax(matrix.values)
        i, j = np.unravel_index(at, matrix.shape)
        axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="#d55e00", linewidth=2.2))
    label_axes(
        axes, result, label, f"layers of {pair[1]}", f"layers of {pair[0]}", f"{label} of every layer pair"
    )
    return figure


def metric_map(result: Result, metric: str | None = None) -> Figure:
    """Draw how alike metrics order the pairs of models: Spearman's ρ of every two of them.

    :raises StudyError: for fewer than two metrics, or as `metric_correlations`.
    """
    if len(result.metrics) < 2:
        raise StudyError(f"A map of metrics needs at least two; this result has {', '.join(result.metrics)}.")
    rho, count = metric_correlations(result)
    columns = result.metrics
    side = max(4.0, 1.8 + 0.62 * len(columns))
    figure, axes = canvas(side + 0.8, side)
    _cells(figure, axes, rho, min(0.0, float(np.nanmin(rho))), 1.0, reverse=False, bar="Spearman’s ρ")
    _names(axes, list(columns), list(columns))
    title = f"How alike metrics order {count} pairs of models"
    title_axes(axes, result, f"n = {result.models['n'][0]:,}", title)  # k and chance are each metric's own
    return figure


def metric_correlations(result: Result) -> tuple[npt.NDArray[np.float64], int]:
    """Return Spearman's ρ of every two metrics, `[M, M]`, and over how many pairs of different models.

    Distances count with their sign turned, so that agreement is positive. Of a metric that is not symmetric
    the mean of both orders stands for a pair.

    :raises StudyError: for fewer than three pairs that all metrics have.
    """
    columns = [_scores(result, label) for label in result.metrics]
    shared = sorted(set.intersection(*map(set, columns)))
    if len(shared) < 3:
        raise StudyError(
            "A map of metrics needs at least three pairs of models that every metric has a score for."
        )
    values = np.array([[scores[key] for key in shared] for scores in columns])
    return np.array([[rank_correlation(a, b).rho for b in values] for a in values]), len(shared)


def _scores(result: Result, label: str) -> dict[tuple[str, str], float]:
    pairs = result.pairs(label).filter(
        (pl.col("model_x") != pl.col("model_y")) & pl.col("score").is_not_nan()
    )
    sign = -1.0 if result.direction(label) == "distance" else 1.0
    of_pair: dict[tuple[str, str], list[float]] = {}
    for x, y, score in pairs.select("model_x", "model_y", "score").rows():
        of_pair.setdefault((min(x, y), max(x, y)), []).append(sign * score)
    return {pair: float(np.mean(scores)) for pair, scores in of_pair.items()}


def _cells(
    figure: Figure,
    axes: Axes,
    values: npt.NDArray[np.float64],
    low: float,
    high: float,
    *,
    reverse: bool,
    bar: str,
) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    colors, norm = colormaps[COLORS + "_r" if reverse else COLORS], Normalize(low, high)
    colors = colors.with_extremes(bad="#ececec")
    image = axes.imshow(
        np.ma.masked_invalid(values), cmap=colors, norm=norm, aspect="auto", interpolation="nearest"
    )
    axes.grid(visible=False)
    scale = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    scale.ax.tick_params(labelsize=7.5)
    scale.outline.set_visible(False)
    scale.set_label(bar, fontsize=8, color=INK, parse_math=False)
    if max(values.shape) <= _MOST_WRITTEN:
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                text = f"{value:.2f}".replace("-", "−")
                axes.text(
                    j, i, text, ha="center", va="center", fontsize=7, color=readable_on(colors(norm(value)))
                )


def _names(axes: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    for axis, names in ((axes.xaxis, columns), (axes.yaxis, rows)):
        step = max(1, len(names) // 40)
        places = range(0, len(names), step)
        axis.set_ticks(list(places), [shorten(safe(names[at]), 28) for at in places])
    style: dict[str, Any] = {"fontfamily": installed_fonts(), "fontsize": 7.5, "color": INK}
    for text in [*axes.get_xticklabels(), *axes.get_yticklabels()]:
        text.set(**style)
        text.set_parse_math(False)
    for text in axes.get_xticklabels():
        text.set(rotation=45, ha="right", rotation_mode="anchor")
