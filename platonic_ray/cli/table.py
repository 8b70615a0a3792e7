"""`table`: compare features that lie in files, with no study."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from platonic_ray.cli.common import Commands, add_command, add_json, add_out
from platonic_ray.errors import StudyError
from platonic_ray.study import Recipe


def add(commands: Commands) -> None:
    table = add_command(
        commands,
        "table",
        _table,
        summary="compare features in files",
        examples=[
            "platonic-ray table bert.npy vit.safetensors --metric cka",
            "platonic-ray table a.npy b.npy c.npy --metric mutual_knn --metric cka --k 20 --json",
            "platonic-ray table a.npy b.npy c.npy --out alike && platonic-ray figure alike --kind layers",
        ],
    )
    table.add_argument(
        "files", type=Path, nargs="+", help=".npy [N, D] or [N, L, D], .safetensors, .parquet, .arrow, .pt"
    )
    table.add_argument("--metric", action="append", help="may be given several times (default: mutual_knn)")
    table.add_argument("--k", type=int, default=10, help="neighbors (default: 10)")
    table.add_argument(
        "--recipe", default="l2", choices=[*get_args(Recipe)], help="preparation of rows (default: l2)"
    )
    table.add_argument(
        "--compat", choices=["platonic-rep"], help="score in the arithmetic of that code (Huh et al. 2024)"
    )
    table.add_argument(
        "--intervals",
        default="none",
        choices=["none", "queries", "population"],
        help="of every best score at 95 %%, for other queries or for other samples (default: none)",
    )
    add_out(table, "folder that the result is saved in, for report, figure and compare (default: none)")
    add_json(table)


def _table(given: argparse.Namespace) -> None:
    from platonic_ray.api import table
    from platonic_ray.cli.show import print_result
    from platonic_ray.models.arrays import read_features
    from platonic_ray.results.report import save_report

    stems = [path.stem for path in given.files]
    names = [path.stem if stems.count(path.stem) == 1 else str(path) for path in given.files]
    if len(names) < 2 or len(set(names)) < len(names):
        raise StudyError("table needs at least two different files.")
    features = {name: read_features(path) for name, path in zip(names, given.files, strict=True)}
    result = table(
        features,
        metric=given.metric or "mutual_knn",
        k=given.k,
        recipe=given.recipe,
        compat=given.compat,
        intervals=given.intervals,
    )
    print_result(result, None, as_json=given.json)
    if given.out is not None:
        report = save_report(result, result.save(given.out) / "report.html")
        print(f"Result: {given.out}. Report: {report}", file=sys.stderr)
