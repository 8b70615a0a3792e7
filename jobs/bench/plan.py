"""What the planner says beside what happens: one worker and two, and the large scales that nobody ran."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from platonic_ray.engine.calibration import calibrate, without_ray
from platonic_ray.plan.costs import groups_of, seconds_of
from platonic_ray.plan.machines import Cluster, gpu_machine
from platonic_ray.plan.scales import ASSUMPTIONS, corpus, internet
from platonic_ray.plan.simulate import Losses, simulate, total_work_s
from platonic_ray.plan.workload import ModelShape, Workload

_GPUS = (1, 8, 64, 1024)
_LOSSES_A_NODE_HOUR = 0.05
_SEEDS = 40
_STACKS = ((256, 256), (256, 256))
_WAYS = (("local", 1), ("ray", 1), ("ray", 2))


def compare_plan(arguments: Sequence[str]) -> dict[str, Any]:
    """Parse `--sizes`, `--k` and `--repeats`, and compare."""
    parser = argparse.ArgumentParser(prog="benchmark.py plan", description=compare.__doc__)
    parser.add_argument("--sizes", type=int, nargs=2, default=[8192, 16384], help="samples of the runs")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=1)
    given = parser.parse_args(arguments)
    return compare(given.sizes, given.k, given.repeats)


def compare(sizes: Sequence[int], k: int, repeats: int) -> dict[str, Any]:
    """Run studies of features in one process and through Ray, and set their times beside the forecast's.

    Ratios of times are compared, each from the first task to the last: of more samples to fewer, and of
    one process to Ray's workers. All runs of a size must end with the same scores.
    """
    here = calibrate(again=True)
    machine = here.as_machine()
    measured: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="platonic-ray-plan-") as folder:
        for repeat in range(repeats):
            for n in sizes:
                for engine, cores in _WAYS:
                    run = _run(Path(folder) / f"{n}-{repeat}", engine, cores, n, k)
                    measured.setdefault((engine, cores, n), []).append(run)
    report: dict[str, Any] = {"cores": here.cores, "calibration_s": here.seconds, "runs": []}
    spans: dict[tuple[str, int, int], float] = {}
    foretold: dict[tuple[str, int, int], float] = {}
    for (engine, cores, n), runs in measured.items():
        groups = groups_of(_workload(n, k))
        of_engine = machine if engine == "ray" else without_ray(machine)
        cluster = Cluster(replace(of_engine, workers=cores))  # each is pinned to its cores
        at = (engine, cores, n)
        spans[at] = statistics.median(run["span_s"] for run in runs)
        foretold[at] = simulate(groups, cluster).seconds
        last = runs[-1]
        kinds: dict[str, float] = {}
        for group in groups:
            kinds[group.kind] = kinds.get(group.kind, 0.0) + group.count * seconds_of(group, cluster)
        report["runs"].append(
            {
                "engine": engine,
                "cores": cores,
                "samples": n,
                "tasks": last["tasks"],
                "predicted_s": round(foretold[at], 2),
                "measured_s": round(spans[at], 2),
                "cpu_s": {kind: round(seconds, 2) for kind, seconds in last["cpu"].items()},
                "kinds_predicted_s": {kind: round(seconds, 2) for kind, seconds in kinds.items()},
                "kinds_measured_cpu_s": {kind: round(seconds, 2) for kind, seconds in last["kinds"].items()},
            }
        )
    report["scores_equal"] = all(
        len({run["scores"] for (_, _, of), runs in measured.items() if of == n for run in runs}) == 1
        for n in sizes
    )
    few, many = min(sizes), max(sizes)
    asked = {
        f"{engine} {cores}: N {many} / {few}": ((engine, cores, many), (engine, cores, few))
        for engine, cores in _WAYS
    }
    for cores in (1, 2):
        for n in sizes:
            asked[f"one process / Ray {cores} at N {n}"] = (("local", 1, n), ("ray", cores, n))
    report["ratios"] = {
        name: {
            "predicted": round(foretold[above] / foretold[below], 3),
            "measured": round(spans[above] / spans[below], 3),
            "off": round(foretold[above] / foretold[below] / (spans[above] / spans[below]) - 1, 3),
        }
        for name, (above, below) in asked.items()
    }
    return report


def forecast_scales(arguments: Sequence[str]) -> dict[str, Any]:
    """Simulate the corpus and internet rows on 1 to 1,024 H100, extraction included; with losses too."""
    parser = argparse.ArgumentParser(prog="benchmark.py scales", description=forecast_scales.__doc__)
    parser.add_argument("--price", type=float, help="of a node of 8 GPUs and hour: gives costs")
    price = parser.parse_args(arguments).price
    machine = gpu_machine("8xH100")
    report: dict[str, Any] = {"assumptions": [*ASSUMPTIONS, *machine.assumptions], "rows": []}
    for name, work in (("corpus", corpus()), ("internet", internet())):
        groups = groups_of(work)
        for writes in ("while GPUs compute", "between batches"):
            kind = replace(machine, overlaps=writes == "while GPUs compute")
            one = simulate(groups, Cluster(kind, used=1)).seconds
            for gpus in _GPUS:
                cluster = Cluster(kind, 128).of(gpus)
                outcome = simulate(groups, cluster)
                report["rows"].append(
                    {
                        "row": name,
                        "bytes_move": writes,
                        "gpus": gpus,
                        "hours": round(outcome.seconds / 3600, 4),
                        "efficiency": round(one / gpus / outcome.seconds, 3),
                        "bound_hours": round(total_work_s(groups, cluster) / gpus / 3600, 4),
                        "driver_share": round(outcome.dispatch_s / outcome.seconds, 3),
                        "tasks": outcome.tasks,
                    }
                )
    report["losses"] = [_with_losses(gpus, price) for gpus in (8, 64)]
    return report


def _with_losses(gpus: int, price: float | None) -> dict[str, Any]:
    """The corpus row on spot machines, over seeded draws of their losses."""
    groups, cluster = groups_of(corpus()), Cluster(gpu_machine("8xH100"), 128).of(gpus)
    calm = simulate(groups, cluster)
    runs = [simulate(groups, cluster, Losses(_LOSSES_A_NODE_HOUR), seed) for seed in range(_SEEDS)]
    unlucky = max(runs, key=lambda run: run.seconds)
    node_hours = statistics.fmean(run.node_hours for run in runs)
    return {
        "row": "corpus",
        "gpus": gpus,
        "losses_a_node_hour": _LOSSES_A_NODE_HOUR,
        "runs": _SEEDS,
        "hours_without": round(calm.seconds / 3600, 4),
        "mean_hours": round(statistics.fmean(run.seconds for run in runs) / 3600, 4),
        "mean_node_hours": round(node_hours, 3),
        **({} if price is None else {"mean_cost": round(price * node_hours, 2)}),
        "mean_losses": round(statistics.fmean(run.losses for run in runs), 3),
        "mean_repeated_share": round(statistics.fmean(run.repeated_share for run in runs), 5),
        "worst": {
            "hours": round(unlucky.seconds / 3600, 4),
            "losses": unlucky.losses,
            "repeated_share": round(unlucky.repeated_share, 4),
        },
    }


def _workload(n: int, k: int) -> Workload:
    from platonic_ray.kernels import Kernel

    shapes = tuple(ModelShape(f"model {at}", widths) for at, widths in enumerate(_STACKS))
    return Workload(n, 256, 256, shapes, k, neighbor_metrics=1, kernels=(Kernel("linear"),)).at(n)


def _run(folder: Path, engine: str, cores: int, n: int, k: int) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        **{"engine": engine, "cores": cores, "n": n, "k": k},
        **{"folder": str(folder), "stacks": _STACKS},
    }
    command = [sys.executable, "-m", "bench.plan_run", json.dumps(options)]
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", ""))))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report
