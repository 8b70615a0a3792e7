"""What all figures share: ink and colors, fonts, saving, and axes that say what they show.

Figures are made without pyplot: no global state is read or changed, and no window is opened. matplotlib is
imported when a figure is asked for.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from platonic_ray.errors import StoreError, StudyError
from platonic_ray.results.result import Result
from platonic_ray.results.summary import dataset_of
from platonic_ray.results.text import safe, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Light to dark with even steps of lightness: safe for the colour-blind, and reads the same in grey.
COLORS = "YlGnBu"
INK, FAINT, LINE = "#1a1a1a", "#767676", "#d9d9d9"
# Okabe & Ito (2008): told apart by the colour-blind. What they mark differs in shape too.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = ("o", "s", "D", "v", "P", "X", "^")
_LONGEST, _LONGEST_NAME = 48, 30  # letters of an axis' label, and of a name beside a point
# Tried in this order, and only those that are installed: no one font has every script.
_FONTS = (
    *("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans", "Noto Sans Hebrew"),
    *("Noto Sans Arabic", "Hiragino Sans", "Arial Unicode MS", "Microsoft YaHei", "Segoe UI"),
)


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Save a figure in the format of the path's suffix (png, pdf, svg); return the path.

    :raises StudyError: if matplotlib does not write that format.
    :raises StoreError: if the file cannot be written.
    """
    path = Path(path).expanduser()
    kinds = figure.canvas.get_supported_filetypes()
    kind = path.suffix.lstrip(".").lower()
    if kind not in kinds:
        raise StudyError(
            f"A figure cannot be saved as {path.name!r}; end the name in one of: {', '.join(kinds)}."
        )
    # Without a date, saving the same figure twice makes the same file.
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with missing_letters_are_boxes():
            figure.savefig(path, format=kind, dpi=200, metadata=metadata)
    except OSError as error:
        raise StoreError(f"The figure cannot be saved as {path}: {error.strerror or error}.") from None
    return path


@contextmanager
def missing_letters_are_boxes() -> Iterator[None]:
    """Draw a name in a script that no installed font has as boxes: seen, so not warned of for each letter."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def number_text(value: float) -> str:
    return "undef." if math.isnan(value) else f"{value:.3f}".replace("-", "−")


def signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def readable_on(color: Any) -> str:
    """Return black or white, whichever stands out more from a colour: by at least 4.5 to 1 (WCAG 2.1)."""
    background = luminance(color)
    return "black" if (background + 0.05) / 0.05 >= 1.05 / (background + 0.05) else "white"


def luminance(color: Any) -> float:
    """Return the relative luminance of a colour, 0 (black) to 1 (white) (WCAG 2.1)."""
    parts = np.asarray(rgba(color)[:3])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def rgba(color: Any) -> tuple[float, float, float, float]:
    from matplotlib.colors import to_rgba

    return to_rgba(color)


def installed_fonts() -> list[str]:
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return [font for font in _FONTS if font in installed] or ["sans-serif"]


def canvas(width: float = 6.4, height: float = 4.2) -> tuple[Figure, Axes]:
    """Return a figure of so many inches with one pair of axes, without a frame it does not need."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, color=FAINT, labelcolor=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    return figure, axes


def label_axes(axes: Axes, result: Result, metric: str, x: str, y: str, title: str) -> None:
    """Name both axes, and say above them what is shown and what the numbers rest on."""
    name_axes(axes, x, y)
    title_axes(axes, result, result.facts(metric), title)


def name_axes(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(shorten(safe(x), _LONGEST), fontsize=8.5, **plain_text())
    axes.set_ylabel(shorten(safe(y), _LONGEST), fontsize=8.5, **plain_text())


def title_axes(axes: Axes, result: Result, facts: str, title: str) -> None:
    """Write above the axes what is shown, and the dataset and `facts` below it, in as many lines as fit."""
    known = " · ".join(part for part in (safe(dataset_of(result)), facts) if part)
    text = f"{safe(title)}\n{known}" if known else safe(title)
    axes.set_title(text, loc="left", fontsize=9, wrap=True, **plain_text())


def plain_text() -> dict[str, Any]:
    """Return how a name is written: in ink, in fonts that have its letters, and never as TeX."""
    return {"fontfamily": installed_fonts(), "color": INK, "parse_math": False}


def draw_chance(axes: Axes, levels: list[float | None], text: str = "chance, one layer pair") -> None:
    """Draw the chance level as a dashed line, where there is one that all share."""
    known = {level for level in levels if level is not None}
    if len(known) == 1:
        level = known.pop()
        axes.axhline(level, color=FAINT, linewidth=1.2, linestyle="--", label=f"{text} ({level:.2g})")


def direct_labels(axes: Axes, points: list[tuple[float, float, str]]) -> None:
    """Write names beside points where they cover no mark, name or legend; further off, on a thin line.

    To be called when the axes are otherwise finished: places are measured on the figure as it stands.
    """
    from matplotlib.patheffects import withStroke

    figure: Any = axes.figure
    figure.draw_without_rendering()
    renderer, point = figure.canvas.get_renderer(), figure.dpi / 72
    legend, room = axes.get_legend(), axes.get_window_extent()
    marks = [tuple(axes.transData.transform((x, y))) for x, y, _ in points]
    drawn = [axes.transData.transform(some.get_offsets()) for some in axes.collections]
    taken: list[Any] = [
        (x - 4 * point, y - 4 * point, x + 4 * point, y + 4 * point) for some in drawn for x, y in some
    ]
    taken += [legend.get_window_extent(renderer).extents] if legend else []
    for (x, y, full), mark in zip(points, marks, strict=True):
        name = shorten(safe(full), _LONGEST_NAME)
        text = axes.text(x, y, name, fontsize=7, **plain_text())
        box = text.get_window_extent(renderer)
        text.remove()
        size = (box.width / point, box.height / point)
        boxes = {
            place: tuple(
                mark[at % 2] + point * (place[1 + at % 2] + (size[at % 2] if at > 1 else 0))
                for at in range(4)
            )
            for place in _places(*size)
        }
        best = min(boxes, key=lambda place: _covered(boxes[place], taken, room.extents))
        taken.append(boxes[best])
        far = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
        label = axes.annotate(
            name, (x, y), xytext=best[1:], textcoords="offset points", fontsize=7, va="bottom",
            arrowprops=far if best[0] else None, path_effects=[withStroke(linewidth=2, foreground="white")],
            **plain_text(),
        )  # fmt: skip
        label.set_in_layout(False)  # else the axes would move from under what was measured


def _places(wide: float, high: float) -> Iterator[tuple[bool, float, float]]:
    """Yield where a name of this size can stand by a mark, nearest first, in points from the mark to its corner.

    Whether it is so far off that it needs a line comes first.
    """
    for reach in (5.0, 13.0, 22.0, 32.0, 44.0, 58.0, 74.0):
        slant = 0.7 * reach
        for x, y in (
            (1, 0.35),
            (1, -0.35),
            (0, 1),
            (0, -1),
            (-1, 0.35),
            (-1, -0.35),
            (1, 1),
            (1, -1),
            (-1, 1),
        ):
            far = slant if x and y in (1, -1) else reach
            left = far if x == 1 else -far - wide if x == -1 else -wide / 2
            below = -high / 2 + y * reach if y not in (1, -1) else (far if y == 1 else -far - high)
            yield reach > 6, left, below


def _covered(box: Any, taken: list[Any], room: Any) -> float:
    """Return how much of a box lies on others, or outside of `room` (left, bottom, right, top)."""

    def shared(other: Any) -> float:
        wide, high = (min(box[at + 2], other[at + 2]) - max(box[at], other[at]) for at in (0, 1))
        return max(0.0, wide) * max(0.0, high)

    outside = (box[2] - box[0]) * (box[3] - box[1]) - shared(room)
    return round(sum(map(shared, taken)) + 4 * outside, 3)
