"""What Ray itself takes on this machine: to start, for a task, of the cores, and until a worker is as fast as it gets.

For the planner's calibration, and for benchmarks that print what the processors did for whom.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_DISPATCHED = 300
_WATCHED = 12  # a core and time
_TIMES = 4
_WORKS_S = 0.05
_TABLE_BYTES = 2 * 2**20
_TABLES = 32
_POLL_S = 0.25
_ROWS = 4096  # of the search that loads what is compiled; a few go another way

Processes = dict[int, tuple[str, float]]


@dataclass(frozen=True)
class RayCosts:
    """Seconds until Ray has started; of the driver's processor for a task that does nothing; of a core for a task that
    takes and gives tables, beside its work; and what a first search takes a process more than a second one.
    """

    start_s: float
    dispatch_s: float
    control_s: float
    warm_s: float


def ray_costs() -> RayCosts:
    """Measure them, on the Ray that is connected or on one that is started for it."""
    import ray

    from platonic_ray.engine import cluster

    start = time.perf_counter()
    started = cluster.connect()
    try:
        nothing = ray.remote(max_retries=0)(_nothing).options(num_cpus=cluster.HALF_CORE)
        ray.get(nothing.remote())
        ready = time.perf_counter() - start
        warm = ray.get(ray.remote(max_retries=0)(_more_of_the_first).options(num_cpus=1).remote())
        return RayCosts(ready, _dispatch_s(nothing), _control_s(), warm)
    finally:
        if started:
            ray.shutdown()


def _dispatch_s(nothing: Any) -> float:
    import ray

    cpu = time.process_time()
    waiting: list[Any] = []
    for _ in range(_DISPATCHED):
        waiting.append(nothing.remote())
        if len(waiting) > 8:
            done, waiting = ray.wait(waiting, fetch_local=False)
            ray.get(done)
    ray.get(waiting)
    return (time.process_time() - cpu) / _DISPATCHED


def _control_s() -> float:
    """Seconds of a core that a task with tables takes beside its own work, while all cores are busy.

    Its driver, which polls, Ray's processes, and waiting: until the next task and its tables have come.
    """
    import ray

    from platonic_ray.engine import cluster

    workers = max(1, int(cluster.resources().least_cpus))
    task: Any = ray.remote(max_retries=0, num_returns=2)(_passes).options(num_cpus=1)
    tables = [ray.put(np.ones(_TABLE_BYTES // _TABLES, np.uint8)) for _ in range(_TABLES)]
    # So long that each worker has started, and been at it.
    ray.get([task.remote(10 * _WORKS_S, *tables)[0] for _ in range(2 * workers)])
    # The least of some times: what else the machine does only ever adds.
    return min(_beside_work_s(task, tables, workers) for _ in range(_TIMES))


def _beside_work_s(task: Any, tables: Sequence[Any], workers: int) -> float:
    """Seconds of a core that each of some tasks takes beside its work, on all workers."""
    import ray

    start = time.perf_counter()
    left = _WATCHED * workers
    waiting: list[Any] = []
    while left or waiting:
        while left and len(waiting) < 3 * workers:
            # As tiles do, each takes other tables than the last: Ray keeps a worker for tasks that take the same.
            left -= 1
            turn = left % len(tables)
            waiting.append(task.remote(_WORKS_S, *tables[turn:], *tables[:turn])[0])
        done, waiting = ray.wait(waiting, timeout=_POLL_S, fetch_local=False)
        ray.get(done)
    return max(0.0, (time.perf_counter() - start) / _WATCHED - _WORKS_S)


def _nothing() -> None:
    """A task that does nothing."""


def _passes(works_s: float, *tables: np.ndarray) -> tuple[dict[str, int], np.ndarray]:
    """A task as those on tiles are: it takes tables, works for a while, gives a report and a table."""
    until = time.process_time() + works_s
    while time.process_time() < until:
        pass
    return {"bytes": sum(table.nbytes for table in tables)}, np.ones(_TABLE_BYTES, np.uint8)


def _more_of_the_first() -> float:
    """Return the seconds of the processor that a first search takes more than a second."""
    import torch

    from platonic_ray.kernels import exact_neighbors

    rows = torch.nn.functional.normalize(torch.randn(_ROWS, 64, generator=torch.Generator().manual_seed(0)))
    taken = []
    for _ in range(2):
        start = time.process_time()
        exact_neighbors(rows, 10, "0" * 64)
        taken.append(time.process_time() - start)
    return max(0.0, taken[0] - taken[1])


def processes() -> Processes:
    """Return the name and the seconds of the processor of this process and all that came of it, by pid.

    Empty where the system has no /proc.
    """
    found: dict[int, tuple[int, str, float]] = {}
    root = Path("/proc")
    tick = os.sysconf("SC_CLK_TCK")
    for entry in filter(str.isdigit, os.listdir(root) if root.is_dir() else ()):
        try:
            stat = (root / entry / "stat").read_text().rpartition(")")[2].split()
            name = (root / entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # it ended meanwhile
        found[int(entry)] = (int(stat[1]), name, (int(stat[11]) + int(stat[12])) / tick)
    mine = {os.getpid()} & found.keys()
    while grown := {pid for pid, (parent, *_) in found.items() if parent in mine} - mine:
        mine |= grown
    return {pid: found[pid][1:] for pid in mine}


def spent_by(before: Processes, after: Processes) -> dict[str, float]:
    """Return seconds of the processor between two looks, by what the processes are for."""
    spent = dict.fromkeys(("driver", "raylet", "gcs", "workers", "others"), 0.0)
    for pid, (name, seconds) in after.items():
        if pid == os.getpid():
            kind = "driver"
        elif "raylet/raylet" in name:
            kind = "raylet"
        elif "gcs_server" in name:
            kind = "gcs"
        else:
            kind = "workers" if name.startswith("ray::") else "others"
        spent[kind] += seconds - before.get(pid, ("", 0.0))[1]
    return spent
