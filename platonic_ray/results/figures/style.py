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
_LONGEST = 48  # letters of an axis' label
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


def readable_on(color: Any) -> str:
    """Return the ink, dark or white, that stands out more from a colour (WCAG 2.1 contrast)."""
    background, dark = _luminance(color), _luminance(INK)
    return INK if (background + 0.05) / (dark + 0.05) >= 1.05 / (background + 0.05) else "white"


def _luminance(color: Any) -> float:
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
    fonts = installed_fonts()
    dataset = (result.provenance.get("dataset") or {}).get("name")
    facts = " · ".join(part for part in (safe(str(dataset)) if dataset else "", result.facts(metric)) if part)
    plain: dict[str, Any] = {"fontfamily": fonts, "color": INK, "parse_math": False}
    axes.set_title(f"{safe(title)}\n{facts}", loc="left", fontsize=9, **plain)
    axes.set_xlabel(shorten(safe(x), _LONGEST), fontsize=8.5, **plain)
    axes.set_ylabel(shorten(safe(y), _LONGEST), fontsize=8.5, **plain)


def draw_chance(axes: Axes, levels: list[float | None], text: str = "chance, one layer pair") -> None:
    """Draw the chance level as a dashed line, where there is one that all share."""
    known = {level for level in levels if level is not None}
    if len(known) == 1:
        level = known.pop()
        axes.axhline(level, color=FAINT, linewidth=1.2, linestyle="--", label=f"{text} ({level:.2g})")


def direct_labels(axes: Axes, points: list[tuple[float, float, str]]) -> None:
    """Write names beside points, to the right; below where a point nearby has its name above."""
    spans = [max(1e-12, np.ptp([point[at] for point in points])) if points else 1.0 for at in (0, 1)]
    for at, (x, y, name) in enumerate(points):
        near = any(
            abs(x - other[0]) < 0.15 * spans[0] and abs(y - other[1]) < 0.04 * spans[1]
            for other in points[:at]
        )
        axes.annotate(
            safe(name), (x, y), xytext=(5, -9 if near else 3), textcoords="offset points", fontsize=7, color=INK,
            fontfamily=installed_fonts(), parse_math=False,
        )  # fmt: skip
