"""`report`: a result as one HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path

from platonic_ray.cli.common import Commands, add_command, add_json, add_out, print_json


def add(commands: Commands) -> None:
    report = add_command(
        commands,
        "report",
        _report,
        summary="write a result as one HTML file that needs no network",
        examples=["platonic-ray report platonic-ray-demo", "platonic-ray report result --out alike.html"],
    )
    report.add_argument("result", type=Path, help="the folder of a result")
    add_out(report, "the file (default: report.html in the result's folder)")
    add_json(report)


def _report(given: argparse.Namespace) -> None:
    from platonic_ray.results import load_result
    from platonic_ray.results.report import save_report

    path = save_report(load_result(given.result), given.out or given.result / "report.html")
    if given.json:
        print_json({"report": str(path), "bytes": path.stat().st_size})
    else:
        print(f"Report: {path} ({path.stat().st_size / 1e6:.1f} MB)")
