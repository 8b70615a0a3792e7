"""A result on a terminal and for other programs: a table in plain text, and JSON."""

from __future__ import annotations

import json
import math
import shutil
from typing import Any

import polars as pl

from platonic_ray.results.files import SCHEMA_VERSION
from platonic_ray.results.result import Result
from platonic_ray.results.summary import dataset_of, interval_text
from platonic_ray.results.text import grid, safe

_NOTED = 5
_NOT_SIGNIFICANT = "·"
_CALIBRATED = (
    "calibrated scores: 0 at or below what permuted samples reach, 1 the best there can be\n"
    "(of a metric without a best: how far beyond what permuted samples reach)"
)
# What is worth carrying along with the scores; the whole study is in result.json.
_BRIEF = (
    "study_key",
    "dataset",
    "compat",
    "seed",
    "versions",
    "engine",
    "device",
    "started",
    "finished",
    "notes",
)


def render_table(result: Result, metric: str | None = None, width: int | None = None) -> str:
    """Return the model × model table of a metric as plain text.

    A cell is the best score and the layers where it is reached, `0.312 (3,11)`: the row's layer,
    then the column's. Of a symmetric square table the lower triangle is shown, without the models'
    scores with themselves. A dot marks what is not significant among all pairs. Where there is a
    null, the calibrated scores follow in a table like it. `width` is in terminal columns; by default
    the terminal's, or 100.

    :raises StudyError: if the metric is not in the result.
    """
    label = result.metric(metric)
    width = width or shutil.get_terminal_size((100, 24)).columns
    layout = result.layout(label)
    pairs = result.pairs(label).to_dicts()
    triangle = layout.symmetric and len(layout.rows) > 1
    cells: list[list[tuple[str, str]]] = [[("", "") for _ in layout.columns] for _ in layout.rows]
    calibrated = [["" for _ in layout.columns] for _ in layout.rows]
    undefined = []
    for i, row in enumerate(layout.rows):
        for j, column in enumerate(layout.columns):
            at = layout.index[i, j]
            if at < 0 or (triangle and j >= i):
                continue
            cells[i][j] = _cell(pairs[at], flipped=bool(layout.flipped[i, j]), alpha=result.alpha)
            calibrated[i][j] = _calibrated(pairs[at])
            if math.isnan(pairs[at]["score"]):
                undefined.append(f"{safe(row)} – {safe(column)}: {safe(pairs[at]['status'] or 'undefined')}")
    rows, columns = layout.rows, layout.columns
    if triangle:
        # The first model has nothing to its left, the last nothing below it.
        rows, columns, cells = rows[1:], columns[:-1], [row[:-1] for row in cells[1:]]
        calibrated = [row[:-1] for row in calibrated[1:]]

    heading = " · ".join(
        part for part in (safe(label), safe(dataset_of(result)), result.facts(label)) if part
    )
    best = "smallest distance" if result.direction(label) == "distance" else "best score"
    legend = f"{best} over layers (layer of the row's model, layer of the column's)"
    if any(layers.endswith(_NOT_SIGNIFICANT) for row in cells for _, layers in row):
        legend += f"\n{_NOT_SIGNIFICANT} not significant: q > {result.alpha:g}"
    legend += _best_interval(result, label)
    blocks = [heading, grid(rows, columns, _aligned(cells), width=width, leave_out_blank=triangle), legend]
    if any(cell for row in calibrated for cell in row):
        blocks += [_CALIBRATED, grid(rows, columns, calibrated, width=width, leave_out_blank=triangle)]
    if undefined:
        more = [f"… and {len(undefined) - _NOTED} more"] if len(undefined) > _NOTED else []
        blocks.append("\n".join(["undefined:", *("  " + line for line in [*undefined[:_NOTED], *more])]))
    return "\n\n".join(blocks)


def _best_interval(result: Result, label: str) -> str:
    """Return a line on the most alike of different models and its interval; nothing where there is none."""
    rows = result.pairs(label).filter(pl.col("low").is_not_nan()).sort("score", maintain_order=True)
    if rows.is_empty():
        return ""
    distance = result.direction(label) == "distance"
    row = rows.row(0 if distance else -1, named=True)
    names = f"{safe(row['model_x'])} – {safe(row['model_y'])}"
    word = "lowest" if distance else "highest"
    return f"\n{word}: {row['score']:.3f}{interval_text(row)}  {names}; {row['interval_method']}"


def render_json(result: Result, metric: str | None = None) -> str:
    """Return the model pairs as JSON text, of one metric or of all; NaN becomes null.

    Keys: `schema`, `models` (a list of objects with the columns of `Result.models`), `provenance`
    (without the study itself).

    :raises StudyError: if the metric is not in the result.
    """
    frame = result.models if metric is None else result.pairs(metric)
    rows = [{key: _null_if_nan(value) for key, value in row.items()} for row in frame.to_dicts()]
    brief = {key: result.provenance[key] for key in _BRIEF if key in result.provenance}
    document = {"schema": SCHEMA_VERSION, "models": rows, "provenance": brief}
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)


def _cell(pair: dict[str, Any], *, flipped: bool, alpha: float) -> tuple[str, str]:
    """Return a cell's score and its layers as text, with a mark where it is not significant."""
    if math.isnan(pair["score"]):
        return "undef.", ""
    first, second = ("layer_y", "layer_x") if flipped else ("layer_x", "layer_y")
    mark = _NOT_SIGNIFICANT if pair["q"] is not None and pair["q"] > alpha else ""
    return f"{pair['score']:.3f}", f"({pair[first]},{pair[second]}){mark}"


def _calibrated(pair: dict[str, Any]) -> str:
    value = pair["calibrated"]
    return "" if value is None else "undef." if math.isnan(value) else f"{value:.3f}"


def _aligned(cells: list[list[tuple[str, str]]]) -> list[list[str]]:
    """Join scores and layers so that the scores of a column stand under each other."""
    widths = [max(len(layers) for _, layers in column) for column in zip(*cells, strict=True)]
    return [
        [
            f"{score} {layers:<{width}}" if score else ""
            for (score, layers), width in zip(row, widths, strict=True)
        ]
        for row in cells
    ]


def _null_if_nan(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
