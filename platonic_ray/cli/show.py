"""`show`: a saved result on the terminal."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from platonic_ray.cli.common import Commands, add_command, add_json

if TYPE_CHECKING:
    from platonic_ray.results import Result

_UNSEEN = ("scores", "growth", "examples", "samples")  # frames that are not printed


def add(commands: Commands) -> None:
    show = add_command(
        commands,
        "show",
        _show,
        summary="print a saved result",
        examples=[
            "platonic-ray show platonic-ray-demo",
            "platonic-ray show platonic-ray-demo --metric cka --json",
        ],
    )
    show.add_argument("result", type=Path, help="the folder of a result")
    show.add_argument("--metric", help="one metric (default: all)")
    add_json(show)


def _show(given: argparse.Namespace) -> None:
    from platonic_ray.results import load_result

    print_result(load_result(given.result, leave_out=_UNSEEN), given.metric, as_json=given.json)


def print_result(result: Result, metric: str | None, *, as_json: bool) -> None:
    """Print the tables of a result: of one metric, or of all."""
    from platonic_ray.results import render_json, render_table

    if as_json:
        print(render_json(result, metric))
        return
    print("\n\n\n".join(render_table(result, label) for label in ([metric] if metric else result.metrics)))
