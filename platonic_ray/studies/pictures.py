"""The figures of Huh et al. (2024) as pictures: the numbers of `figures` drawn the way the paper draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from platonic_ray.errors import StudyError
from platonic_ray.results import Result
from platonic_ray.results.figures import metric_map
from platonic_ray.results.figures.scatter import rank_correlation
from platonic_ray.results.figures.style import (
    FAINT,
    MARKERS,
    PALETTE,
    canvas,
    direct_labels,
    draw_chance,
    label_axes,
    name_axes,
    signed,
    title_axes,
)
from platonic_ray.results.summary import facts_of_pairs
from platonic_ray.results.text import safe, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_METRIC = "mutual_knn"
_KNOWN = ("model", "mean", "bits_per_byte")


def lines_over_capability(result: Result, frame: pl.DataFrame, images: Sequence[str]) -> Figure:
    """Draw each vision model's alignment with language models against a capability: points and a fit.

    The capability is the first that was given, else bits per byte; models without it have no point.

    :param frame: of `figures.against_capability`.
    :raises StudyError: if fewer than two models have the capability.
    """
    given = [name for name in frame.columns if name not in (*_KNOWN, *images)]
    name = given[0] if given else "bits_per_byte"
    known = frame.filter(pl.col(name).is_not_null()).sort(name)
    if known.height < 2:
        raise StudyError(f"A picture of alignment against {name} needs two language models that have it.")
    figure, axes = canvas(6.4, 4.4)
    x = known[name].cast(pl.Float64).to_numpy()
    for at, image in enumerate(images):
        y = known[image].to_numpy()
        color = PALETTE[at % len(PALETTE)]
        if len(x) > 2 and x.std() > 0:
            slope, start = np.polyfit(x, y, 1)
            axes.plot(x[[0, -1]], start + slope * x[[0, -1]], color=color, linewidth=1.2, alpha=0.7)
        axes.scatter(x, y, s=26, color=color, marker=MARKERS[at % len(MARKERS)], label=safe(image), zorder=3)
    top = known.select(pl.max_horizontal(images)).to_series()
    axes.margins(x=0.1, y=0.3)
    draw_chance(axes, result.pairs(_METRIC)["chance"].to_list())
    _legend(axes)
    if name == "bits_per_byte":
        axes.invert_xaxis()
    means = known["mean"].to_numpy()
    found = rank_correlation(-x if name == "bits_per_byte" else x, means)
    said = "" if np.isnan(found.rho) else f"; the mean’s Spearman ρ = {signed(found.rho)} over {found.count}"
    better = "bits per byte (better to the right)" if name == "bits_per_byte" else name.replace("_", " ")
    title = f"Language models’ alignment with {'each vision model' if len(images) > 1 else images[0]}{said}"
    label_axes(axes, result, _METRIC, better, f"{_METRIC} with the vision model", title)
    direct_labels(axes, list(zip(x, top, known["model"], strict=True)))
    return figure


def bars_over_density(result: Result, frame: pl.DataFrame) -> Figure:
    """Draw mean alignment, captions from sparse to dense, with the deviation over language models.

    :param frame: of `figures.by_density`.
    """
    figure, axes = canvas(5.6, 4.0)
    places = np.arange(frame.height)
    axes.errorbar(
        places, frame["alignment"], yerr=frame["deviation"].fill_null(0.0), color=PALETTE[0], marker="o",
        capsize=3, linewidth=1.6,
    )  # fmt: skip
    axes.set_xticks(places, [shorten(safe(view), 24) for view in frame["captions"]])
    for text in axes.get_xticklabels():
        text.set_parse_math(False)
    axes.set_xlim(-0.5, frame.height - 0.5)
    axes.set_ylim(bottom=0)
    draw_chance(axes, result.pairs(_METRIC)["chance"].to_list())
    axes.legend(fontsize=7, frameon=False, loc="lower left")
    title = "Alignment with vision models by captions; bars: language models’ deviation"
    label_axes(axes, result, _METRIC, "captions, sparse to dense", f"mean {_METRIC}", title)
    return figure


def lines_over_k(result: Result, frame: pl.DataFrame, images: Sequence[str]) -> Figure:
    """Draw each vision model's mean CKNNA against k, and unbiased CKA where k is all samples.

    :param frame: of `figures.by_k`.
    """
    figure, axes = canvas(6.4, 4.2)
    axes.set_xscale("log")
    sweep = frame.filter(pl.col("k").is_not_null()).sort("k")
    whole = frame.filter(pl.col("k").is_null())
    everything = int(result.models["n"][0]) - 1
    ks = [*sweep["k"].to_list(), *([everything] if whole.height else [])]
    for at, image in enumerate(images):
        color, marker = PALETTE[at % len(PALETTE)], MARKERS[at % len(MARKERS)]
        axes.plot(sweep["k"], sweep[image], color=color, marker=marker, markersize=4.5, label=safe(image))
        if whole.height:
            ends = [sweep[image][-1], whole[image][0]]
            axes.plot([ks[-2], everything], ends, color=color, linestyle=":", linewidth=1.2)
            axes.plot(everything, whole[image][0], color=color, marker=marker, markersize=6, fillstyle="none")
    axes.axhline(0.0, color=FAINT, linewidth=0.8)
    shown = [k for at, k in enumerate(ks) if at + 1 == len(ks) or ks[at + 1] / k > 1.15]
    axes.set_xticks(shown, [f"{k:,}\nCKA" if whole.height and k == everything else f"{k:,}" for k in shown])
    axes.minorticks_off()
    _legend(axes)
    title = "CKNNA with language models by k; open: unbiased CKA, all samples"
    name_axes(axes, "k (log scale)", "mean CKNNA with language models")
    title_axes(axes, result, facts_of_pairs(result, result.models.filter(pl.col("k").is_not_null())), title)
    return figure


def map_of_metrics(result: Result) -> Figure:
    """Draw the rank correlation of every two metrics over pairs of models."""
    return metric_map(result)


def _legend(axes: Axes) -> None:
    legend = axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for text in legend.get_texts():
        text.set_parse_math(False)
