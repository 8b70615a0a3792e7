"""`plan`: what a study will take, before anything is spent."""

from __future__ import annotations

import argparse
import textwrap
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platonic_ray.cli.common import Commands, add_command, add_json, print_json
from platonic_ray.errors import StudyError
from platonic_ray.study import Study

if TYPE_CHECKING:
    from platonic_ray.engine.planning import StudyForecast
    from platonic_ray.plan.forecast import Forecast
    from platonic_ray.plan.machines import Cluster


def add(commands: Commands) -> None:
    plan = add_command(
        commands,
        "plan",
        _plan,
        summary="say what a study will take, on this machine or on a cluster, and run nothing",
        examples=[
            "platonic-ray plan study.toml",
            "platonic-ray plan study.toml --samples 1000000",
            "platonic-ray plan study.toml --gpus 8xH100 --nodes 16 --price 40 --spot 0.05",
        ],
    )
    plan.add_argument("study", type=Path, help="a study file (TOML)")
    add_cluster(plan)
    plan.add_argument("--samples", type=int, metavar="N", help="as if the dataset had so many samples")
    plan.add_argument("--store", help="where to look for what is done (default: the study's, else ~/.cache)")
    plan.add_argument("--calibrate", action="store_true", help="measure this machine again first")
    add_json(plan)


def add_cluster(command: argparse.ArgumentParser) -> None:
    """Let the user describe the machines that are planned for (see `cluster_of`)."""
    command.add_argument(
        "--gpus", metavar="NxNAME", help="nodes of such GPUs, as 8xH100 (default: this machine)"
    )
    command.add_argument("--nodes", type=int, default=1, metavar="N", help="how many nodes (default: 1)")
    command.add_argument("--workers", type=int, metavar="N", help="use so many GPUs or cores (default: all)")
    command.add_argument(
        "--price", type=float, metavar="P", help="of a node and hour, in any currency: gives the cost"
    )
    command.add_argument(
        "--spot",
        type=float,
        default=0.0,
        metavar="R",
        help="losses of a node in an hour, as 0.05 (default: none)",
    )


def cluster_of(given: argparse.Namespace, *, calibrate_again: bool = False) -> Cluster:
    """Return the machines that `add_cluster` was told of; this one, calibrated, where it was not.

    :raises StudyError: for machines that there cannot be.
    """
    for name, least in (("nodes", 1), ("workers", 1), ("samples", 2), ("price", 0), ("spot", 0)):
        value = getattr(given, name)
        if value is not None and value < least:
            raise StudyError(f"--{name} must be at least {least} (given: {value:g}).")

    from platonic_ray.engine.calibration import calibrate
    from platonic_ray.plan.machines import Cluster, gpu_machine

    here = given.gpus is None
    machine = calibrate(again=calibrate_again).as_machine() if here else gpu_machine(given.gpus)
    cluster = Cluster(machine, given.nodes)
    if given.workers is None:
        return cluster
    if given.workers > cluster.workers:
        raise StudyError(f"--workers: there are {cluster.workers} (given: {given.workers}).")
    return cluster.of(given.workers)


def print_forecast(told: StudyForecast, *, json: bool) -> None:
    if json:
        print_json(as_json(told))
    else:
        print("\n".join(lines_of(told)))


def _plan(given: argparse.Namespace) -> None:
    study = Study.from_toml(given.study)
    if given.store is not None:
        study = study.replace(run={**study.run.model_dump(), "store": given.store})

    from platonic_ray.engine.planning import forecast_study
    from platonic_ray.plan.simulate import Losses

    cluster = cluster_of(given, calibrate_again=given.calibrate)
    told = forecast_study(study, cluster, given.samples, Losses(given.spot), given.price)
    print_forecast(told, json=given.json)


def as_json(told: StudyForecast) -> dict[str, Any]:
    """Return a forecast as JSON values: seconds, bytes, FLOPs; of a half that chooses layers under "choosing"."""
    choosing = {} if told.choosing is None else {"choosing": _facts(told.choosing)}
    return {
        "study": told.study.name,
        "finished": told.finished,
        **_facts(told.forecast),
        **choosing,
        "assumptions": list(told.assumptions),
    }


def _facts(of: Forecast) -> dict[str, Any]:
    outcome = of.outcome
    return {
        "samples": of.workload.n,
        "models": len(of.workload.models),
        "layers": sum(model.layers for model in of.workload.models),
        "machine": of.cluster.machine.name,
        "nodes": of.cluster.busy_nodes,
        "workers": of.cluster.workers,
        "block_rows": of.workload.block_rows,
        "kinds": [vars(kind) for kind in of.kinds],
        "seconds": outcome.seconds,
        "busy_share": outcome.busy_share,
        "losses": outcome.losses,
        "repeated_s": outcome.repeated_s,
        "dispatch_s": outcome.dispatch_s,
        "longest": dict(zip(("kind", "label", "seconds"), of.longest, strict=True)),
        "flops": sum(kind.flops for kind in of.kinds),
        "read_bytes": sum(kind.read_bytes for kind in of.kinds),
        "written_bytes": sum(kind.written_bytes for kind in of.kinds),
        "feature_bytes": of.feature_bytes,
        "partial_bytes": of.partial_bytes,
        "object_bytes": of.object_bytes,
        "peak_bytes": of.peak_bytes,
        "peak_kind": of.peak_kind,
        "worker_bytes": of.cluster.machine.memory_bytes,
        "fits": of.fits,
        "largest_n": of.largest_n,
        "limit": of.limit or None,
        "cost": of.cost,
    }


def lines_of(told: StudyForecast) -> list[str]:
    """Return what a forecast says, for people."""
    if told.choosing is None:
        lines = _lines(told.study.name, told.forecast, told.finished)
    else:
        runs = {"chooses layers": told.choosing, "reports": told.forecast}
        halves = [
            [*_lines(f"{told.study.name}, the half that {what}", of, told.finished), ""]
            for what, of in runs.items()
        ]
        whole = duration(sum(of.outcome.seconds for of in runs.values()))
        lines = [*chain.from_iterable(halves), f"The halves run one after the other: {whole} in all."]
    lines += ["", "assuming that"]
    for text in told.assumptions:
        lines += textwrap.wrap(text, 110, initial_indent="  - ", subsequent_indent="    ")
    return lines


def _lines(name: str, of: Forecast, finished: bool) -> list[str]:
    outcome, cluster, work = of.outcome, of.cluster, of.workload
    unit = "core" if cluster.machine.measured else "GPU"
    lines = [
        f"{name}: {work.n:,} samples, {len(work.models)} models, "
        f"{sum(model.layers for model in work.models)} layers, {of.feature_bytes / 1e9:,.2f} GB of features",
        f"on {cluster.busy_nodes} × {cluster.machine.name}, {cluster.workers} {unit}s; "
        f"blocks of {work.block_rows:,} rows"
        + (
            f"; linear kernels by D × D products of {work.product_rows:,} rows, less work than N × N cells"
            if work.product_rows
            else ""
        ),
        "",
        f"{'task':<16}{'tasks':>13}{'in store':>13}{'TFLOP':>12}{'read GB':>11}{'written GB':>12}"
        f"{'longest':>11}{'memory GiB':>12}{f'{unit}-hours':>12}",
    ]
    lines += [
        f"{kind.kind:<16}{kind.tasks:>13,}{kind.stored:>13,}{kind.flops / 1e12:>12,.3f}"
        f"{kind.read_bytes / 1e9:>11,.2f}{kind.written_bytes / 1e9:>12,.3f}{duration(kind.longest_s):>11}"
        f"{kind.peak_bytes / 2**30:>12,.2f}{kind.seconds / 3600:>12,.3f}"
        for kind in of.kinds
    ]
    lines.append("")
    if finished:
        lines.append("Its result is in the store: running it computes nothing.")
    else:
        kind, label, seconds = of.longest
        lines.append(
            f"time     about {duration(outcome.seconds)}; longest task {duration(seconds)} ({kind} {label}); "
            f"{unit}s busy {outcome.busy_share:.0%} of it, the driver {_share(outcome.dispatch_s, outcome.seconds)}"
        )
        if outcome.losses:
            lines.append(
                f"losses   {outcome.losses} nodes; {duration(outcome.repeated_s)} of {unit} time done again "
                f"({outcome.repeated_share:.2%})"
            )
    memory = cluster.machine.memory_bytes / 2**30
    lines.append(
        f"memory   the largest task ({of.peak_kind}) takes {of.peak_bytes / 2**30:,.2f} GiB of the {memory:,.1f} that "
        f"a {unit} has"
    )
    if not of.fits:
        lines.append("         IT DOES NOT FIT: fewer workers a node, fewer layers, or fewer samples")
    if of.largest_n is None:
        lines.append(f"         no number of samples fits ({of.limit})")
    elif of.limit:
        lines.append(f"         fits up to about N = {of.largest_n:,}; beyond, {of.limit} does not")
    share = of.partial_bytes / of.feature_bytes if of.feature_bytes else 0.0
    from platonic_ray.plan.forecast import PARTIAL_SHARE

    lines.append(
        f"written  durable partial results {of.partial_bytes / 1e9:,.2f} GB, {share:.0%} of the features"
        + (f": above {PARTIAL_SHARE:.0%}" if share > PARTIAL_SHARE else "")
        + f"; results that live as objects {of.object_bytes / 1e9:,.2f} GB"
    )
    if not cluster.machine.measured:
        lines.append(
            f"machines ask_gpus = {cluster.workers} under [run] has an autoscaler bring them while models are embedded"
        )
    if of.cost is not None:
        lines.append(f"cost     {of.cost:,.2f} for {outcome.node_hours:,.2f} node-hours")
    return lines


def duration(seconds: float) -> str:
    """Return seconds in the unit that people would use.

    >>> duration(0.0031), duration(4.2), duration(600), duration(90_000)
    ('3 ms', '4.2 s', '10 min', '25 h')
    """
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.0f} h"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "0%"
