"""`pull`: what another store has of a study."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from platonic_ray.cli.common import Commands, add_command, add_json, print_json
from platonic_ray.study import Study


def add(commands: Commands) -> None:
    pull = add_command(
        commands,
        "pull",
        _pull,
        summary="take from another store what a study needs of it",
        examples=[
            "platonic-ray pull study.toml --from s3://bucket/store",
            "platonic-ray pull study.toml --from /mnt/colleague/store --store store",
        ],
    )
    pull.add_argument("study", type=Path, help="a study file (TOML)")
    pull.add_argument(
        "--from", dest="source", required=True, metavar="STORE", help="the other store; only read"
    )
    pull.add_argument("--store", help="the store to copy to (default: the study's, else ~/.cache)")
    add_json(pull)


def _pull(given: argparse.Namespace) -> None:
    from platonic_ray.engine.pull import pull_study

    study = Study.from_toml(given.study)
    if given.store is not None:
        study = study.replace(run={**study.run.model_dump(), "store": given.store})
    pulled = pull_study(study, given.source)
    if given.json:
        print_json(asdict(pulled))
        return
    copied = ", ".join(f"{count} of {kind}" for kind, count in pulled.copied.items()) or "nothing"
    size = f"{pulled.size_bytes / 1e6:,.1f} MB"
    print(f"Copied {copied} ({size}); {pulled.here} were here, {pulled.missing} are to be computed.")
