"""`init`: a commented study to start from, for the emoji or for the user's own samples."""

from __future__ import annotations

import argparse
from pathlib import Path

from platonic_ray.cli.common import Commands, add_command, add_json, print_json, write_study


def add(commands: Commands) -> None:
    init = add_command(
        commands,
        "init",
        _init,
        summary="write a commented study to start from",
        examples=[
            "platonic-ray init",
            "platonic-ray init captions.toml --dataset captions.parquet",
        ],
    )
    init.add_argument(
        "study", type=Path, nargs="?", default=Path("study.toml"), help="the file (default: study.toml)"
    )
    init.add_argument(
        "--dataset",
        default="emoji",
        metavar="SOURCE",
        help="samples to write it for: a file or folder, whose views are looked up (default: emoji)",
    )
    add_json(init)


def _init(given: argparse.Namespace) -> None:
    from platonic_ray.studies import starting_study

    text, views = starting_study(given.dataset, given.study.resolve().parent)
    write_study(given.study, text)
    if given.json:
        print_json({"study": str(given.study), "views": views})
        return
    print(f"Wrote {given.study}, for the views {', '.join(views)}.")
    print(f"Run it: platonic-ray run {given.study}")
