"""`embed`, `submit`, `status`, `fetch`: runs on clusters, and what a store tells of them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from platonic_ray.cli.common import (
    Commands,
    add_command,
    add_json,
    add_out,
    add_quiet,
    add_where_it_runs,
    changed_run,
    print_json,
)
from platonic_ray.study import Study


def add(commands: Commands) -> None:
    embed = add_command(
        commands,
        "embed",
        _embed,
        summary="embed the samples of a study by its models, and compute nothing else",
        examples=["platonic-ray embed study.toml --store s3://bucket/store"],
    )
    embed.add_argument("study", type=Path, help="a study file (TOML)")
    add_where_it_runs(embed)
    add_quiet(embed)

    submit = add_command(
        commands,
        "submit",
        _submit,
        summary="run a study on a cluster from here: send what it needs, follow its log, fetch its result",
        examples=["platonic-ray submit study.toml --address http://127.0.0.1:8265 --store s3://bucket/store"],
    )
    submit.add_argument("study", type=Path, help="a study file (TOML)")
    submit.add_argument(
        "--address", help="the cluster's Jobs API (default: $RAY_API_SERVER_ADDRESS, $RAY_ADDRESS)"
    )
    submit.add_argument(
        "--store", help="a URI that the cluster and this machine reach (default: the study's)"
    )
    submit.add_argument("--python", default="python", help="the interpreter on the cluster (default: python)")
    add_out(submit, "folder of the result (default: platonic-ray-<study>)")
    add_json(submit)

    status = add_command(
        commands,
        "status",
        _status,
        summary="say how far a run is, from anywhere, by its store alone",
        examples=["platonic-ray status s3://bucket/store", "platonic-ray status store --all"],
    )
    whose = _add_store_and_run(status)
    whose.add_argument("--all", action="store_true", help="every run in the store, oldest first")
    add_json(status)

    fetch = add_command(
        commands,
        "fetch",
        _fetch,
        summary="bring the result of a run from its store",
        examples=[
            "platonic-ray fetch s3://bucket/store --out result",
            "platonic-ray fetch s3://bucket/store --job study-0123456789ab",
        ],
    )
    _add_store_and_run(fetch).add_argument("--job", help="what a job came to that `submit` sent")
    add_out(fetch, "folder of the result (default: platonic-ray-<study>)")
    add_json(fetch)


def _add_store_and_run(command: argparse.ArgumentParser) -> Any:
    """Return the group of options that say whose run is meant."""
    command.add_argument("store", help="a folder or URI")
    whose = command.add_mutually_exclusive_group()
    whose.add_argument("--run", help="one of its runs (default: the last that was started)")
    whose.add_argument("--study", metavar="NAME", help="the last run of the study of that name")
    return whose


def _embed(given: argparse.Namespace) -> None:
    from platonic_ray.engine import embed_study

    embed_study(changed_run(Study.from_toml(given.study), given), quiet=given.quiet)


def _submit(given: argparse.Namespace) -> None:
    from platonic_ray.api import submit
    from platonic_ray.cli.show import print_result

    study = Study.from_toml(given.study)
    if given.store is not None:
        study = study.replace(run=study.run.model_dump() | {"store": given.store})
    result = submit(study, given.address, say=lambda line: print(line, file=sys.stderr), python=given.python)
    folder = result.save(given.out or Path(f"platonic-ray-{study.name}"))
    print_result(result, None, as_json=given.json)
    print(f"Result: {folder}", file=sys.stderr)


def _status(given: argparse.Namespace) -> None:
    from platonic_ray.engine.follow import run_status
    from platonic_ray.store import Store

    store = Store(given.store)
    runs = store.runs() if given.all else [given.run]
    statuses = [run_status(store, run, study=given.study) for run in runs or [None]]
    if given.json:
        print_json([status.facts() for status in statuses] if given.all else statuses[0].facts())
    else:
        print("\n".join(line for status in statuses for line in status.lines()))


def _fetch(given: argparse.Namespace) -> None:
    from platonic_ray.cli.show import print_result
    from platonic_ray.engine.follow import fetch_result
    from platonic_ray.store import Store

    result = fetch_result(Store(given.store), given.run, study=given.study, job=given.job)
    folder = result.save(given.out or Path(f"platonic-ray-{result.provenance['study']['name']}"))
    print_result(result, None, as_json=given.json)
    print(f"Result: {folder}", file=sys.stderr)
