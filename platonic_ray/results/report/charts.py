"""The charts of a report: Bokeh figures without data, which the page's script fills for what is looked at.

Their sources go by name. Colors are set by the page, which has two themes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from platonic_ray.errors import StudyError

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812

_SPAN = 0.1  # of an axis of scores, where all of them are the same


def bokeh_script() -> str:
    """Return Bokeh's JavaScript, to be inlined.

    :raises StudyError: if Bokeh is not installed.
    """
    try:
        import bokeh
    except ImportError:
        raise StudyError(
            "A report draws with Bokeh, which is not installed: pip install 'bokeh>=3.9'."
        ) from None
    script = Path(bokeh.__file__).parent / "server" / "static" / "js" / "bokeh.min.js"
    lines = script.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("//# sourceMappingURL"))


def chart_items() -> dict[str, Any]:
    """Return every chart as what Bokeh's script embeds, by name."""
    from bokeh.embed import json_item

    charts = {"strip": _strip(), "map": _layer_map(), "growth": _growth(), "capability": _capability()}
    return {name: json_item(chart, f"chart-{name}") for name, chart in charts.items()}


def _figure(height: int, hover: str, renderers: str, **options: Any) -> Figure:
    from bokeh.models import HoverTool, TapTool
    from bokeh.plotting import figure

    chart = figure(
        height=height, sizing_mode="stretch_width", toolbar_location=None, tools=[], name="chart", **options
    )
    chart.add_tools(HoverTool(tooltips=hover, name=renderers, point_policy="follow_mouse"), TapTool())
    return chart


def _source(name: str, *columns: str) -> Any:
    from bokeh.models import ColumnDataSource

    return ColumnDataSource({column: [] for column in columns}, name=name)


def _strip() -> Figure:
    """Every pair of models as a mark, by what the two read: where scores lie, and where chance does."""
    from bokeh.models import FactorRange, Span

    chart = _figure(
        280,
        "<b>@pair</b><br>@score{0.0000} @kind",
        "marks",
        x_range=FactorRange(factors=["a"], name="groups"),
        y_axis_label="score",
    )
    columns = ("x", "score", "pair", "kind", "row")
    floor = chart.scatter(
        "x",
        "score",
        source=_source("floors", *columns),
        marker="triangle",
        size=7,
        fill_alpha=0,
        name="floor",
    )
    trained = chart.scatter(
        "x",
        "score",
        source=_source("trained", *columns),
        marker="circle",
        size=7,
        fill_alpha=0.55,
        name="trained",
    )
    ring = _source("chosen", "x", "score")
    chart.scatter(
        "x", "score", source=ring, marker="circle", size=15, fill_alpha=0, line_width=2.5, name="ring"
    )
    chart.add_layout(Span(dimension="width", line_dash="dashed", line_width=1.5, name="chance"))
    chart.hover[0].renderers = [floor, trained]
    chart.xgrid.grid_line_color = None
    chart.y_range.default_span = _SPAN
    return chart


def _layer_map() -> Figure:
    """The scores of every layer pair of two models: the first model's layers down, the second's across."""
    from bokeh.models import ColorBar, FactorRange, LinearColorMapper

    chart = _figure(
        320,
        "@row_name × @column_name<br><b>@score{0.0000}</b>",
        "cells",
        x_range=FactorRange(factors=["a"], name="across"),
        y_range=FactorRange(factors=["a"], name="down"),
    )
    mapper = LinearColorMapper(palette=["#ffffff", "#000000"], low=0, high=1, name="ramp")
    cells = chart.rect(
        "column",
        "row",
        width=1,
        height=1,
        source=_source("cells", "row", "column", "row_name", "column_name", "score"),
        fill_color={"field": "score", "transform": mapper},
        line_width=1,
        name="cells",
    )
    best = _source("best", "row", "column")
    chart.rect("column", "row", width=1, height=1, source=best, fill_alpha=0, line_width=3, name="ring")
    chart.add_layout(ColorBar(color_mapper=mapper, width=10, name="bar", background_fill_alpha=0), "right")
    chart.hover[0].renderers = [cells]
    chart.xaxis.major_label_orientation = 0.9
    chart.grid.grid_line_color = None
    return chart


def _growth() -> Figure:
    """Scores at several numbers of samples: the chosen pair with its errors, the others faint behind it."""
    from bokeh.models import FixedTicker

    chart = _figure(
        320,
        "<b>@pair</b><br>n = @n{0,0}: @score{0.0000} ± @error{0.0000}",
        "points",
        x_axis_type="log",
        x_axis_label="samples (log scale)",
        y_axis_label="score",
    )
    chart.multi_line("n", "score", source=_source("others", "n", "score"), line_alpha=0.35, name="others")
    columns = ("n", "score", "low", "high", "error", "pair", "chance")
    one = _source("one", *columns)
    chart.line("n", "chance", source=one, line_dash="dashed", line_width=1.5, name="chance-line")
    chart.segment("n", "low", "n", "high", source=one, line_width=2, name="errors")
    chart.line("n", "score", source=one, line_width=2.5, name="curve")
    points = chart.scatter("n", "score", source=one, size=8, name="points")
    chart.hover[0].renderers = [points]
    chart.xaxis.ticker = FixedTicker(ticks=[], name="sizes")
    return chart


def _capability() -> Figure:
    """How good models are at something, against how alike they are to others."""
    from bokeh.models import DataRange1d

    chart = _figure(
        300,
        "<b>@model</b><br>@value{0.000}, alignment @alignment{0.0000}",
        "able",
        x_axis_label="capability",
        x_range=DataRange1d(range_padding=0.25),  # names stand to the right of their marks
        y_axis_label="alignment",
    )
    points = _source("able", "value", "alignment", "model")
    marks = chart.scatter("value", "alignment", source=points, size=9, fill_alpha=0.6, name="able")
    chart.text("value", "alignment", text="model", source=points, x_offset=8, y_offset=4, name="able-names")
    chart.hover[0].renderers = [marks]
    chart.y_range.default_span = _SPAN
    return chart
