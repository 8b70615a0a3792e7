"""The models × models table of a metric as a heat map, cells, names and scale measured to fit."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from platonic_ray.results.figures.style import (
    COLORS,
    FAINT,
    INK,
    installed_fonts,
    missing_letters_are_boxes,
    number_text,
    readable_on,
    rgba,
)
from platonic_ray.results.matrix import Layout
from platonic_ray.results.order import Order, order_of
from platonic_ray.results.result import Result
from platonic_ray.results.summary import dataset_of
from platonic_ray.results.text import safe, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure
    from matplotlib.text import Text

_SELF, _UNDEFINED = "#ececec", "#ffffff"
_WITH_LAYERS, _WITH_VALUES = 12, 20  # most models a side whose cells hold layers, and values
_LONGEST_NAME = 30


@dataclass(frozen=True)
class _Sizes:
    """Inches a cell, and points of text, for a number of models a side."""

    cell: float
    label: float
    value: float | None
    layers: float | None

    @classmethod
    def of(cls, models: int) -> _Sizes:
        if models <= _WITH_LAYERS:
            return cls(cell=0.62, label=9, value=8.5, layers=6)
        if models <= _WITH_VALUES:
            return cls(cell=0.45, label=8.5, value=7, layers=None)
        return cls(
            cell=max(0.12, min(0.22, 10 / models)), label=7 if models <= 48 else 5.5, value=None, layers=None
        )


def heatmap(
    result: Result,
    metric: str | None = None,
    *,
    floors: Collection[str] | None = None,
    order: Order = "study",
) -> Figure:
    """Draw the models × models table of a metric.

    A cell holds the best score over layers and, where there is room, those layers in small type:
    the row's, then the column's. Grey cells are a model with itself, hatched cells undefined, and
    empty cells were not computed; a dot in the corner marks what is not significant. Models in
    `floors` (by default those the provenance names) are labelled in grey italics and set apart by a
    gap. `order` is the study's, "family" or "clustering" (`order_of`).

    :raises StudyError: if the metric is not in the result, or for an order that is not one.

    >>> from platonic_ray.results import LayerInfo, PairScores
    >>> layers = [LayerInfo(model, 0, "last", width=8) for model in ("a", "b")]
    >>> figure = heatmap(Result.from_pairs([PairScores("cka", "a", "b", [[0.5]], n=100)], layers))
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    label = result.metric(metric)
    layout = _ordered(result.layout(label), order_of(result, label, order))
    pairs = result.pairs(label)
    values = np.append(pairs["score"].to_numpy(), np.nan)[layout.index]
    itself = np.array([[row == column for column in layout.columns] for row in layout.rows])
    low, high = _limits(np.where(itself & (values.size > 1), np.nan, values))
    distance = result.direction(label) == "distance"
    # Dark is alike, whichever end of the scale that is.
    norm, colors = Normalize(low, high, clip=True), colormaps[COLORS + "_r" if distance else COLORS]
    known = floors if floors is not None else result.provenance.get("floors") or ()
    apart = {name for name in (*layout.rows, *layout.columns) if name in known}

    sizes = _Sizes.of(max(len(layout.rows), len(layout.columns)))
    fonts = installed_fonts()
    figure = Figure(figsize=(4, 4), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    axes, scale = figure.add_subplot(), figure.add_axes((0.0, 0.0, 0.1, 0.1))
    _draw_cells(axes, layout, values, itself, norm, colors)
    _label_axes(axes, layout, sizes, apart, fonts)
    _write_cells(axes, layout, pairs, values, itself, sizes, norm, colors)
    dotted = _draw_dots(axes, layout, pairs, values, result.alpha, sizes.cell, norm, colors)
    _draw_gaps(axes, layout, apart, width=min(4.0, 0.2 * 72 * sizes.cell))
    _draw_scale(figure, scale, norm, colors, _chance(pairs, low, high), few=len(layout.rows) < 5)
    notes = [
        ("smallest distance" if distance else "best score")
        + " over layers"
        + ("; small: the row’s layer, the column’s" if sizes.layers else "")
    ]
    notes += ["italic: floors"] if apart else []
    notes += [f"dot: not significant, q > {result.alpha:g}"] if dotted else []
    title = _write_title(figure, result, label, fonts, notes)
    with missing_letters_are_boxes():
        _arrange(
            figure, axes, scale, title, (len(layout.columns) * sizes.cell, len(layout.rows) * sizes.cell)
        )
    return figure


def _ordered(layout: Layout, order: list[str]) -> Layout:
    rows, columns = (
        [names.index(name) for name in order if name in names] for names in (layout.rows, layout.columns)
    )
    return Layout(
        tuple(layout.rows[at] for at in rows),
        tuple(layout.columns[at] for at in columns),
        layout.index[np.ix_(rows, columns)],
        layout.flipped[np.ix_(rows, columns)],
    )


def _limits(shown: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends of the colour scale: from 0 (or the lowest score, if negative) to the highest.

    The scale starts at 0 so that small differences between small scores do not look large.
    """
    finite = shown[np.isfinite(shown)]
    low = min(0.0, float(finite.min())) if finite.size else 0.0
    high = float(finite.max()) if finite.size else 1.0
    return low, high if high > low else low + 1.0


def _chance(pairs: pl.DataFrame, low: float, high: float) -> float | None:
    """Return the chance level, if all pairs share one and it lies on the scale."""
    levels = pairs["chance"].drop_nulls().unique().to_list()
    return levels[0] if len(levels) == 1 and low <= levels[0] <= high else None


def _arrange(figure: Figure, axes: Axes, scale: Axes, title: list[Text], cells: tuple[float, float]) -> None:
    """Size the figure and place its parts, in inches, so that cells are `cells` wide and high in all.

    Everything else is measured, because names are of any length and script.
    """
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    wide, high = cells
    pad, gap, bar = 0.08, 0.16, 0.14

    def size(text: Text) -> tuple[float, float]:
        box = text.get_window_extent(renderer)
        return box.width / figure.dpi, box.height / figure.dpi

    # A slanted name under the first column reaches further left than the column itself.
    pitch = wide / max(1, len(axes.get_xticklabels()))
    slanted = [
        size(text)[0] - (at + 0.5) * pitch if text.get_rotation() != 90 else 0.0
        for at, text in enumerate(axes.get_xticklabels())
    ]
    left = pad + max([size(text)[0] + 0.08 for text in axes.get_yticklabels()] + slanted)
    below = pad + max(size(text)[1] for text in axes.get_xticklabels()) + 0.08
    right = max(size(text)[0] for text in scale.get_yticklabels()) + 0.1 + pad
    lines = [size(text) for text in title]
    above = sum(height for _, height in lines) + 0.05 * len(lines) + 0.1 + pad
    width = max(left + wide + gap + bar + right, max(line for line, _ in lines) + 2 * pad)
    height = above + high + below

    figure.set_size_inches(width, height)
    axes.set_position((left / width, below / height, wide / width, high / height))
    scale.set_position(((left + wide + gap) / width, below / height, bar / width, high / height))
    # Over the cells where the lines fit there, else from the figure's edge.
    start = left if left + max(line for line, _ in lines) + pad <= width else pad
    top = height - pad
    for text, (_, line) in zip(title, lines, strict=True):
        text.set_position((start / width, top / height))
        top -= line + 0.05


def _draw_cells(
    axes: Axes,
    layout: Layout,
    values: npt.NDArray[np.float64],
    itself: npt.NDArray[np.bool_],
    norm: Normalize,
    colors: Colormap,
) -> None:
    from matplotlib.patches import Rectangle

    image = colors(norm(np.nan_to_num(values)))  # an infinite score becomes a very large one
    image[np.isnan(values)] = (1, 1, 1, 1)
    if values.size > 1:
        axes.imshow(np.where(itself[..., None], rgba(_SELF), image), aspect="equal", interpolation="nearest")
    else:
        axes.imshow(image, aspect="equal", interpolation="nearest")
    for i, j in np.argwhere(np.isnan(values) & (layout.index >= 0)):
        hatched = Rectangle(
            (j - 0.5, i - 0.5), 1, 1, facecolor=_UNDEFINED, edgecolor="#b5b5b5", hatch="////", linewidth=0
        )
        axes.add_patch(hatched)
    # White lines between cells: each reads as a value of its own, and no two colours touch.
    axes.set_xticks(np.arange(1, len(layout.columns)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(layout.rows)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.0 if max(values.shape) <= _WITH_VALUES else 0.5)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _label_axes(axes: Axes, layout: Layout, sizes: _Sizes, apart: set[str], fonts: list[str]) -> None:
    axes.set_xticks(
        np.arange(len(layout.columns)), [shorten(safe(name), _LONGEST_NAME) for name in layout.columns]
    )
    axes.set_yticks(np.arange(len(layout.rows)), [shorten(safe(name), _LONGEST_NAME) for name in layout.rows])
    for texts, names in ((axes.get_xticklabels(), layout.columns), (axes.get_yticklabels(), layout.rows)):
        for text, name in zip(texts, names, strict=True):
            text.set(fontfamily=fonts, fontsize=sizes.label, color=INK)
            text.set_parse_math(False)  # a name may hold dollar signs
            if name in apart:
                text.set(fontstyle="italic", color=FAINT)
    dense = sizes.value is None
    for text in axes.get_xticklabels():
        text.set(
            rotation=90 if dense else 40, ha="right", va="center" if dense else "top", rotation_mode="anchor"
        )


def _write_cells(
    axes: Axes,
    layout: Layout,
    pairs: pl.DataFrame,
    values: npt.NDArray[np.float64],
    itself: npt.NDArray[np.bool_],
    sizes: _Sizes,
    norm: Normalize,
    colors: Colormap,
) -> None:
    if sizes.value is None:
        return
    layers = pairs.select("layer_x", "layer_y").rows()
    for i, j in np.argwhere(layout.index >= 0):
        value = float(values[i, j])
        if itself[i, j] and values.size > 1:
            axes.text(
                j, i, number_text(value), ha="center", va="center", fontsize=sizes.value - 1.5, color=FAINT
            )
            continue
        if math.isnan(value):
            axes.text(
                j, i, "undef.", ha="center", va="center", fontsize=sizes.value - 2, color=FAINT,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )  # fmt: skip
            continue
        ink = readable_on(colors(norm(np.nan_to_num(value))))
        raised = 0.10 if sizes.layers else 0.0
        axes.text(
            j, i - raised, number_text(value), ha="center", va="center", fontsize=sizes.value, color=ink
        )
        if sizes.layers:
            x, y = layers[layout.index[i, j]]
            pair = f"{y}, {x}" if layout.flipped[i, j] else f"{x}, {y}"
            axes.text(j, i + 0.25, pair, ha="center", va="center", fontsize=sizes.layers, color=ink)


def _draw_dots(
    axes: Axes,
    layout: Layout,
    pairs: pl.DataFrame,
    values: npt.NDArray[np.float64],
    alpha: float,
    cell: float,
    norm: Normalize,
    colors: Colormap,
) -> bool:
    """Put a dot in the upper right corner of cells whose q is above alpha; say whether there are any."""
    q = np.append(pairs["q"].to_numpy(), np.nan)[layout.index]
    for i, j in np.argwhere(q > alpha):
        ink = readable_on(colors(norm(np.nan_to_num(values[i, j]))))
        axes.plot(j + 0.36, i - 0.36, marker="o", markersize=5 * cell, color=ink, markeredgewidth=0)
    return bool((q > alpha).any())


def _draw_gaps(axes: Axes, layout: Layout, apart: set[str], *, width: float) -> None:
    """Leave a wider white line (`width` in points) wherever floors and other models meet."""
    for names, line in ((layout.columns, axes.axvline), (layout.rows, axes.axhline)):
        for at in range(1, len(names)):
            if (names[at - 1] in apart) != (names[at] in apart):
                line(at - 0.5, color="white", linewidth=width)


def _draw_scale(
    figure: Figure, scale: Axes, norm: Normalize, colors: Colormap, chance: float | None, *, few: bool
) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.ticker import MaxNLocator

    low, high = float(norm.vmin or 0.0), float(norm.vmax or 0.0)
    bar = figure.colorbar(ScalarMappable(norm, colors), cax=scale)
    ticks = MaxNLocator(4 if few else 6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    labels = {float(tick): f"{tick:.3g}" for tick in ticks if low <= tick <= high}
    if chance is not None:
        near = (high - low) * (0.15 if few else 0.05)
        labels = {tick: text for tick, text in labels.items() if abs(tick - chance) > near}
        labels[chance] = f"{chance:.2g} chance"
        # White beside the ink: the mark shows on every colour of the scale, and in grey.
        scale.axhline(chance, color="white", linewidth=3.2)
        scale.axhline(chance, color=INK, linewidth=1.4)
    places = sorted(labels)
    bar.set_ticks(places, labels=[labels[place] for place in places])
    scale.tick_params(labelsize=7.5, length=2, color=FAINT, labelcolor=INK)
    for spine in scale.spines.values():
        spine.set_visible(False)


def _write_title(
    figure: Figure, result: Result, metric: str, fonts: list[str], notes: list[str]
) -> list[Text]:
    """Return the lines of the title, top first; `_arrange` places them."""
    facts = [safe(dataset)] if (dataset := dataset_of(result)) else []
    lines: tuple[tuple[str, dict[str, Any]], ...] = (
        (safe(metric), {"fontsize": 10, "fontweight": "bold", "color": INK}),
        (" · ".join([*facts, result.facts(metric)]), {"fontsize": 8, "color": INK}),
        (" · ".join(notes), {"fontsize": 7, "color": FAINT}),
    )
    return [
        figure.text(0, 1, text, ha="left", va="top", fontfamily=fonts, parse_math=False, **style)
        for text, style in lines
    ]
