"""Panels of neighbors: a sample, and what two models find near to it, as pictures or words."""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from platonic_ray.errors import StudyError
from platonic_ray.results.figures.style import FAINT, INK, PALETTE, installed_fonts
from platonic_ray.results.groups import views_of
from platonic_ray.results.result import Result
from platonic_ray.results.text import safe, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SAMPLES, _NEIGHBORS = 4, 8


def neighbor_panels(result: Result, metric: str | None = None, *, pair: tuple[str, str]) -> Figure:
    """Draw some examples of a result: a sample, then a row of its nearest for each of two models.

    The layers are those where the metric is best. What both models find is framed.

    :raises StudyError: if the result has no examples of these layers.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    label = result.metric(metric)
    best = _best(result, label, pair)
    lists = [
        result.examples.filter((pl.col("model") == model) & (pl.col("layer") == layer))
        for model, layer in best
    ]
    if any(some.is_empty() for some in lists):
        raise StudyError(
            f"This result has no examples of {pair[0]} and {pair[1]} in their best layers: a study with a metric of "
            "neighbors keeps some, a table of features has no samples to show."
        )
    views = [view for model in pair if (view := views_of(result).get(model))]
    samples = lists[0]["sample"].to_list()[:_SAMPLES]
    # The texts of the views that the two models read come first.
    known = result.samples.with_columns(pl.col("view").is_in(views).alias("read")).sort(
        "read", descending=True
    )
    shown = {sample: rows for (sample,), rows in known.group_by(["sample"], maintain_order=True)}
    wide = min(_NEIGHBORS, max(map(len, lists[0]["neighbors"])))
    figure = Figure(figsize=(1.0 + 0.95 * (wide + 1), 2.3 * len(samples) + 0.5), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2 * len(samples), wide + 2, squeeze=False, width_ratios=[1.5, 1.1, *[1] * wide])
    for axes in grid.flat:
        axes.set_axis_off()
    for at, sample in enumerate(samples):
        near = [some.filter(pl.col("sample") == sample)["neighbors"][0].to_list() for some in lists]
        both = set(near[0]) & set(near[1])
        _item(grid[2 * at][1], shown, sample, PALETTE[0])
        for side, (model, _) in enumerate(best):
            row = grid[2 * at + side]
            name = f"{shorten(safe(model), 18)}\n{len(both)} of {len(near[side])} shared"
            row[0].text(1, 0.5, name, ha="right", va="center", fontsize=7, color=INK, **_plain())
            for axes, other in zip(row[2:], near[side], strict=False):
                _item(axes, shown, other, PALETTE[2] if other in both else None)
    title = f"What {safe(pair[0])} and {safe(pair[1])} find near; framed green: near in both ({safe(label)})"
    figure.suptitle(title, x=0.02, ha="left", fontsize=9, color=INK, **_plain())
    figure.subplots_adjust(
        left=0.02, right=0.99, top=1 - 0.45 / figure.get_figheight(), bottom=0.03, hspace=0.45, wspace=0.1
    )
    return figure


def _best(result: Result, label: str, pair: tuple[str, str]) -> list[tuple[str, int | None]]:
    for row in result.pairs(label).iter_rows(named=True):
        for x, y in (("x", "y"), ("y", "x")):
            if (row[f"model_{x}"], row[f"model_{y}"]) == pair:
                return [(pair[0], row[f"layer_{x}"]), (pair[1], row[f"layer_{y}"])]
    raise StudyError(f"{label} was not computed for ({pair[0]}, {pair[1]}).")


def _item(axes: Axes, shown: dict[Any, pl.DataFrame], sample: int, frame: str | None) -> None:
    """Draw a sample: its picture where it has one, and its text below or instead."""
    from PIL import Image

    rows = shown[sample]
    picture = rows["thumbnail"].drop_nulls()
    text = next(iter(rows["text"].drop_nulls()), rows["id"][0])
    if len(picture):
        axes.imshow(np.asarray(Image.open(io.BytesIO(picture[0])).convert("RGB")))
        at, lines, anchor = -0.06, textwrap.wrap(safe(text), 14)[:2], "top"
    else:
        at, lines, anchor = 0.5, textwrap.wrap(safe(text), 14)[:5], "center"
    where: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": anchor}
    axes.text(0.5, at, "\n".join(lines), fontsize=5.5, color=FAINT, **where, **_plain())
    if frame is not None:
        axes.set_axis_on()
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=frame, linewidth=2)


def _plain() -> dict[str, Any]:
    return {"fontfamily": installed_fonts(), "parse_math": False}
