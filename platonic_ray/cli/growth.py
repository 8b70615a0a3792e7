"""`growth`: the score of features in two files at several numbers of samples."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from platonic_ray.cli.common import Commands, add_command, add_json, print_json
from platonic_ray.study import Recipe


def add(commands: Commands) -> None:
    growth = add_command(
        commands,
        "growth",
        _growth,
        summary="score features in two files at several numbers of samples",
        examples=[
            "platonic-ray growth bert.npy vit.npy --sizes 250 500 1000",
            "platonic-ray growth bert.npy vit.npy --protocol queries --queries 500 --json",
        ],
    )
    growth.add_argument("x", type=Path, help=".npy [N, D] or [N, L, D], .safetensors, .parquet, .arrow, .pt")
    growth.add_argument("y", type=Path, help="the same samples, row by row")
    growth.add_argument("--metric", default="mutual_knn", help="(default: mutual_knn)")
    growth.add_argument("--k", type=int, default=10, help="neighbors (default: 10)")
    growth.add_argument(
        "--k-share", type=float, metavar="C", help="let k grow with the number of samples: k = C n"
    )
    growth.add_argument(
        "--recipe", default="l2", choices=[*get_args(Recipe)], help="preparation of rows (default: l2)"
    )
    growth.add_argument(
        "--sizes", type=int, nargs="+", metavar="N", help="ascending (default: all and four halvings)"
    )
    growth.add_argument(
        "--protocol",
        choices=["all", "queries"],
        default="all",
        help="all against all, or fixed queries against a growing gallery (default: all)",
    )
    growth.add_argument(
        "--queries", type=int, metavar="N", help="how many (default: half of the samples, at most 1,024)"
    )
    growth.add_argument(
        "--layers", type=int, nargs=2, metavar=("I", "J"), help="layers of x and y (default: the best)"
    )
    growth.add_argument(
        "--splits", type=int, default=10, metavar="N", help="halvings for standard errors (default: 10)"
    )
    growth.add_argument("--seed", type=int, default=0, help="of the order of samples (default: 0)")
    add_json(growth)


def _growth(given: argparse.Namespace) -> None:
    from platonic_ray.api import growth
    from platonic_ray.models.arrays import read_features

    curve = growth(
        read_features(given.x),
        read_features(given.y),
        metric=given.metric,
        k=given.k,
        recipe=given.recipe,
        sizes=given.sizes,
        protocol=given.protocol,
        k_share=given.k_share,
        queries=given.queries,
        layers=None if given.layers is None else tuple(given.layers),
        splits=given.splits,
        seed=given.seed,
    )
    rows = curve.to_dicts()
    if given.json:
        print_json(rows)
        return
    first = rows[0]
    print(
        f"{first['metric']}, layers {first['layer_x']} and {first['layer_y']} ({first['layers']}); "
        f"standard errors for new {first['target']}"
    )
    print(f"{'size':>8} {'k':>5} {'score':>9} {'± s.e.':>9} {'chance':>9}")
    for row in rows:
        cells = (_number(row[name]) for name in ("score", "standard_error", "chance"))
        k = "" if row["k"] is None else row["k"]
        print(f"{row['size']:>8} {k:>5} " + " ".join(f"{cell:>9}" for cell in cells))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
