"""`compare`: by how much the pairs of two results differ."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from platonic_ray.cli.common import Commands, add_command, add_json, print_json

if TYPE_CHECKING:
    import polars as pl


def add(commands: Commands) -> None:
    compare = add_command(
        commands,
        "compare",
        _compare,
        summary="say by how much the pairs of two results differ, the largest difference first",
        examples=[
            "platonic-ray compare before after",
            "platonic-ray compare before after --metric cka --json",
        ],
    )
    compare.add_argument("result", type=Path, help="the folder of a result")
    compare.add_argument("other", type=Path, help="the folder of the result that is subtracted")
    compare.add_argument("--metric", help="one metric (default: all that both have)")
    add_json(compare)


def _compare(given: argparse.Namespace) -> None:
    import polars as pl

    from platonic_ray.results import load_result

    result, other = load_result(given.result), load_result(given.other)
    if given.metric is not None:
        result, other = (each.select(metrics=[given.metric]) for each in (result, other))
    rows = result.compare(other).sort(pl.col("difference").abs(), descending=True, nulls_last=True)
    if given.json:
        print_json(
            [{name: _plain(value) for name, value in row.items()} for row in rows.iter_rows(named=True)]
        )
    else:
        print(_text(rows))


def _text(rows: pl.DataFrame) -> str:
    from platonic_ray.results.text import grid, safe

    blocks = []
    for (metric,), some in rows.group_by(["metric"], maintain_order=True):
        names = [f"{row['model_x']} – {row['model_y']}" for row in some.iter_rows(named=True)]
        cells = [
            [_number(row["score"]), _number(row["other"]), _number(row["difference"], "+"), _interval(row)]
            for row in some.iter_rows(named=True)
        ]
        table = grid(names, ["first", "second", "difference", "interval"], cells, width=100)
        blocks.append(
            "\n\n".join([safe(str(metric)), table, "\n".join(some["method"].unique(maintain_order=True))])
        )
    return "\n\n\n".join(blocks)


def _number(value: float, sign: str = "") -> str:
    return "undef." if math.isnan(value) else f"{value:{sign}.4f}"


def _interval(row: dict[str, float | None]) -> str:
    low, high = row["low"], row["high"]
    return "" if low is None or high is None else f"[{low:+.4f}, {high:+.4f}]"


def _plain(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
