"""A result in a few lines of text, and as the HTML that a notebook shows."""

from __future__ import annotations

import math
from html import escape
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import polars as pl

from platonic_ray.results.text import safe

if TYPE_CHECKING:
    from platonic_ray.results.result import Result

_MOST_SHOWN = 16


def dataset_of(result: Result) -> str:
    """Return what the samples are called: of a file on some machine its name, for nobody else has its folders."""
    name = str((result.provenance.get("dataset") or {}).get("name") or "")
    return PurePath(name).name if PurePath(name).is_absolute() else name


def facts_of(result: Result, metric: str | None) -> str:
    """Return in one line what a metric's scores rest on: `n = 1,024 · k = 10 · chance 0.0098`."""
    return facts_of_pairs(result, result.pairs(metric))


def facts_of_pairs(result: Result, pairs: pl.DataFrame) -> str:
    """Return the same of some rows of `models`, the ends where they differ: `n = 60 · k = 5–50`."""
    said = [
        f"{name}{_range(pairs[column], form)}"
        for name, column, form in (("n = ", "n", ",d"), ("k = ", "k", "d"), ("chance ", "chance", ".2g"))
        if pairs[column].drop_nulls().len()
    ]
    if pairs["direction"][0] == "distance":
        said.append("distance: smaller is more alike")
    if result.provenance.get("compat"):
        said.append(f"arithmetic of {result.provenance['compat']}")
    return " · ".join(said)


def summary_of(result: Result) -> str:
    """Return what was compared, the extremes of each metric, and what to be aware of."""
    dataset = result.provenance.get("dataset") or {}
    counts = f"{result.layers['model'].n_unique()} models, {result.scores.height:,} layer pairs"
    name = dataset_of(result)
    lines = [f"{name}: {counts}" if name else counts]
    for label in result.metrics:
        pairs = result.pairs(label).filter(pl.col("model_x") != pl.col("model_y"))
        defined = pairs.filter(pl.col("score").is_not_nan()).sort("score", maintain_order=True)
        lines.append(f"{label} ({result.facts(label)})")
        if defined.height:
            ends = [("highest", defined.height - 1), ("lowest", 0)]
            if result.direction(label) == "distance":  # the most alike first
                ends.reverse()
            ends = ends[: min(2, defined.height)]
            lines += [f"  {word}: {_pair(defined.row(at, named=True))}" for word, at in ends]
        if defined.height < pairs.height:
            lines.append(f"  undefined: {pairs.height - defined.height} of {pairs.height} model pairs")
    for (name,), rows in result.capability.group_by("capability", maintain_order=True):
        values = ", ".join(f"{row['model']} {row['value']:.4g}" for row in rows.iter_rows(named=True))
        lines.append(f"{name}: {values}")
    if dataset.get("dropped"):
        lines.append(f"dropped samples: {len(dataset['dropped']):,}")
    zero = result.layers.filter(pl.col("zero_rows") > 0)["model"].unique(maintain_order=True)
    if len(zero):
        lines.append(f"models with rows that are all zero: {', '.join(zero)}")
    lines += [f"note: {note}" for note in result.provenance.get("notes") or []]
    return "\n".join(lines)


def html_of(result: Result) -> str:
    """Return the first metric's table and a line on the others, every name escaped."""
    if not result.metrics:
        return f"<p>{escape(repr(result))}</p>"
    label = result.metrics[0]
    matrix = result.matrix(label)
    rows, columns = matrix.rows[:_MOST_SHOWN], matrix.columns[:_MOST_SHOWN]
    head = "".join(f"<th scope='col'>{_name(column)}</th>" for column in columns)
    body = "".join(
        f"<tr><th scope='row'>{_name(row)}</th>"
        + "".join(
            f"<td>{'' if math.isnan(value) else f'{value:.3f}'}</td>" for value in values[: len(columns)]
        )
        + "</tr>"
        for row, values in zip(rows, matrix.values, strict=False)
    )
    left = max(matrix.shape) - _MOST_SHOWN
    more = [f"{left} more models are not shown"] if left > 0 else []
    if len(result.metrics) > 1:
        more.append(f"other metrics: {escape(', '.join(result.metrics[1:]))}")
    return (
        f"<p><b>{escape(label)}</b> · {escape(result.facts(label))}</p>"
        f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
        + (f"<p>{'; '.join(more)}</p>" if more else "")
    )


def interval_text(row: dict[str, Any]) -> str:
    """Return the interval of a model pair as text, with its target; nothing where there is none."""
    if row["low"] is None or math.isnan(row["low"]):
        return ""
    return f" [{row['low']:.4f}, {row['high']:.4f}] ({row['interval_target']})"


def _name(name: str) -> str:
    return f"<bdi>{escape(safe(name))}</bdi>"


def _pair(row: dict[str, Any]) -> str:
    x, y = (f"{row[f'model_{side}']} ({row[f'layer_{side}_name']})" for side in "xy")
    return f"{row['score']:.4f}{interval_text(row)}  {x} – {y}"


def _range(values: pl.Series, form: str) -> str:
    """Format a column that is mostly constant: its value, or its ends."""
    ends: list[Any] = sorted({values.drop_nulls().min(), values.drop_nulls().max()})
    return "–".join(format(end, form) for end in ends)
