"""Curves: growth with the number of samples, and the sweep of k."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from platonic_ray.errors import StudyError
from platonic_ray.results.figures.style import FAINT, MARKERS, PALETTE, canvas, name_axes, title_axes
from platonic_ray.results.result import Result
from platonic_ray.results.summary import facts_of_pairs
from platonic_ray.results.text import safe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Pair = tuple[str, str]
_MOST_CURVES = len(PALETTE)


def growth(result: Result, metric: str | None = None, *, pair: Pair | None = None) -> Figure:
    """Draw scores against the number of samples, on a log axis, with two standard errors and chance.

    :param pair: two models; by default the pairs with the highest scores on all samples, at most seven.
    :raises StudyError: if no growth was computed for them.
    """
    label = result.metric(metric)
    rows = result.growth.filter((pl.col("metric") == label) & pl.col("score").is_not_nan())
    if pair is not None:
        rows = rows.filter(_is_pair(pair))
    if rows.is_empty():
        of = f" of {pair[0]} and {pair[1]}" if pair else ""
        raise StudyError(f"The growth of {label}{of} is not in this result; [growth] in a study asks for it.")
    figure, axes = canvas()
    axes.set_xscale("log")
    keys = ["model_x", "model_y", "protocol"]
    best = rows.group_by(keys, maintain_order=True).agg(pl.col("score").last()).sort("score", descending=True)
    for at, (x, y, protocol, _) in enumerate(best.head(_MOST_CURVES).rows()):
        some = rows.filter(
            (pl.col("model_x") == x) & (pl.col("model_y") == y) & (pl.col("protocol") == protocol)
        ).sort("size")
        errors = 2 * some["standard_error"].fill_null(0.0)
        how = "" if protocol == "all" else ", queries"
        axes.errorbar(
            some["size"], some["score"], yerr=errors, capsize=2.5, linewidth=1.6, markersize=4.5,
            **_look(at), label=f"{safe(x)} – {safe(y)}{how}",
        )  # fmt: skip
    chance = rows.filter(pl.col("chance").is_not_null()).unique("size").sort("size")
    if chance.height:
        axes.plot(
            chance["size"], chance["chance"], color=FAINT, linestyle="--", linewidth=1.2, label="chance"
        )
    _finish(axes, label, "samples (log scale)")
    title_axes(axes, result, _grown(rows), "Growth with the number of samples; bars: two standard errors")
    sizes = rows["size"].unique().sort().to_list()
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    return figure


def k_sweep(result: Result, metric: str | None = None, *, pair: Pair | None = None) -> Figure:
    """Draw scores against k, for a metric that a study has at several k, with chance.

    :param metric: one of its labels, or its bare name; by default the first with several k.
    :raises StudyError: if there are fewer than two k.
    """
    known = result.models.filter(pl.col("k").is_not_null()).with_columns(
        pl.col("metric").str.extract(r"^(\w+)").alias("name")
    )
    wanted = re.match(r"\w+", metric)[0] if metric else None  # type: ignore[index]
    counts = known.group_by("name", maintain_order=True).agg(pl.col("k").n_unique())
    several = [name for name, count in counts.rows() if count > 1 and wanted in (None, name)]
    if not several:
        raise StudyError("A k sweep needs a metric that the study names at two or more k.")
    rows = known.filter((pl.col("name") == several[0]) & (pl.col("model_x") != pl.col("model_y")))
    if pair is not None:
        rows = rows.filter(_is_pair(pair))
    if rows.is_empty():
        raise StudyError(f"This result has no score of {several[0]} for {' and '.join(pair or ())}.")
    figure, axes = canvas()
    axes.set_xscale("log")
    best = rows.group_by(["model_x", "model_y"], maintain_order=True).agg(pl.col("score").max())
    for at, (x, y, _) in enumerate(best.sort("score", descending=True).head(_MOST_CURVES).rows()):
        some = rows.filter((pl.col("model_x") == x) & (pl.col("model_y") == y)).sort("k")
        axes.plot(
            some["k"],
            some["score"],
            linewidth=1.6,
            markersize=4.5,
            **_look(at),
            label=f"{safe(x)} – {safe(y)}",
        )
    chance = rows.filter(pl.col("chance").is_not_null()).unique("k").sort("k")
    if chance.height:
        axes.plot(chance["k"], chance["chance"], color=FAINT, linestyle="--", linewidth=1.2, label="chance")
    _finish(axes, several[0], "k (log scale)")
    title_axes(axes, result, facts_of_pairs(result, rows), f"{several[0]} by number of neighbors")
    ks = rows["k"].unique().sort().to_list()
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    return figure


def _look(at: int) -> dict[str, Any]:
    return {"color": PALETTE[at % len(PALETTE)], "marker": MARKERS[at % len(MARKERS)]}


def _is_pair(pair: Sequence[str]) -> pl.Expr:
    x, y = pl.col("model_x"), pl.col("model_y")
    return ((x == pair[0]) & (y == pair[1])) | ((x == pair[1]) & (y == pair[0]))


def _grown(rows: pl.DataFrame) -> str:
    """Return which k the curves have; their n and chance are what is drawn."""
    ks = [str(k) for k in rows["k"].drop_nulls().unique().sort()]
    return f"k = {ks[0] if len(ks) == 1 else f'{ks[0]}–{ks[-1]}'}" if ks else ""


def _finish(axes: Axes, name: str, x: str) -> None:
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    legend = axes.legend(fontsize=7.5, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for text in legend.get_texts():
        text.set_parse_math(False)
    name_axes(axes, x, name)
