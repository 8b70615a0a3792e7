"""`figure`: one picture of a result."""

from __future__ import annotations

import argparse
from pathlib import Path

from platonic_ray.cli.common import Commands, add_command, add_json, add_out, print_json

_ORDERS = ("study", "family", "clustering")


def add(commands: Commands) -> None:
    figure = add_command(
        commands,
        "figure",
        _figure,
        summary="draw one picture of a result, as SVG, PDF or PNG",
        examples=[
            "platonic-ray figure platonic-ray-demo --kind heatmap --order clustering --out alike.pdf",
            "platonic-ray figure platonic-ray-demo --kind layers --pair MiniLM EffNet-lite1",
            "platonic-ray figure result --kind capability --of bits_per_byte --against dino --out fig3.svg",
        ],
    )
    figure.add_argument("result", type=Path, help="the folder of a result")
    kinds = "heatmap, layers, growth, k-sweep, capability, size, calibrated, metrics, plane or neighbors"
    figure.add_argument("--kind", default="heatmap", help=f"{kinds} (default: heatmap)")
    figure.add_argument("--metric", help="the metric (default: the first)")
    figure.add_argument("--pair", nargs=2, metavar=("X", "Y"), help="two models (default: the most alike)")
    figure.add_argument("--order", choices=_ORDERS, default="study", help="of the heat map (default: study)")
    figure.add_argument("--of", metavar="CAPABILITY", help="the capability (default: the first)")
    figure.add_argument(
        "--against", metavar="MODEL", help="the model that alignment is with (default: a mean)"
    )
    add_out(figure, "the file: .svg, .pdf or .png (default: <kind>.svg in the result's folder)")
    add_json(figure)


def _figure(given: argparse.Namespace) -> None:
    from platonic_ray.results import draw, load_result, save_figure

    pair = (given.pair[0], given.pair[1]) if given.pair else None
    made = draw(
        load_result(given.result),
        given.kind,
        given.metric,
        pair=pair,
        order=given.order,
        of=given.of,
        against=given.against,
    )
    path = save_figure(made, given.out or given.result / f"{given.kind}.svg")
    if given.json:
        print_json({"figure": str(path), "kind": given.kind})
    else:
        print(f"Figure: {path}")
