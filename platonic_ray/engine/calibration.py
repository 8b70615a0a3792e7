"""What this machine does in a second, measured in some seconds and kept in the user's cache.

A worker here is a core. Beside plain rates (matrix products, memory, store, Ray's dispatch) the tasks of a
plan are calibrated by doing them: small studies of features run in this process on one thread, and what
each kind of task took is fitted by non-negative least squares to the work that `plan.costs` says it does.
So an estimate follows the kernels as they are, on the processor as it is. Tasks are timed by the
processor's clock, so that what else the machine does at the time is not taken for theirs.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from scipy.optimize import nnls

from platonic_ray.ahead import cores
from platonic_ray.digest import digest
from platonic_ray.engine.events import EventLog
from platonic_ray.engine.local import LocalRunner
from platonic_ray.engine.overheads import ray_costs
from platonic_ray.engine.prepare import prepare
from platonic_ray.engine.progress import ProgressDisplay
from platonic_ray.plan import TaskGraph
from platonic_ray.plan.costs import groups_of
from platonic_ray.plan.machines import Machine, Speed
from platonic_ray.plan.workload import ModelShape, Workload
from platonic_ray.store import Store, feature_table
from platonic_ray.study import Study

_VERSION = 4
_TERMS = ("flops", "cells", "entries")


@dataclass(frozen=True)
class _Small:
    """A small study: n samples, two models of some layers, blocks of rows, k, permutations."""

    n: int
    width: int
    layers: int
    block_rows: int
    k: int
    permutations: int


_SMALL = (
    _Small(512, 32, 4, 256, 20, 0),  # the first is run to warm up, and does not count
    _Small(1024, 64, 1, 512, 10, 10),
    _Small(2048, 512, 1, 1024, 10, 0),
    _Small(2048, 64, 2, 1024, 50, 20),
    _Small(1024, 512, 2, 256, 10, 10),
    _Small(1536, 128, 1, 512, 10, 0),
    _Small(512, 32, 4, 256, 20, 20),
    # Of so many rows neighbors go by tiles within a task's, and linear kernels by products.
    _Small(8192, 64, 2, 4096, 50, 0),
    _Small(16384, 128, 1, 4096, 10, 0),
    _Small(16384, 384, 1, 8192, 10, 0),
)


@dataclass(frozen=True)
class Calibration:
    """The measured figures: rates of one core, and seconds a unit of work of each kind of task."""

    version: int
    machine: str
    cores: int
    memory_bytes: int
    float32_flops: float
    float64_flops: float
    network_flops: float
    memory_bytes_s: float
    store_write_bytes_s: float
    store_read_bytes_s: float
    dispatch_s: float
    ray_start_s: float
    control_s: float
    warm_s: float
    speeds: dict[str, dict[str, float]]
    seconds: float

    def as_machine(self) -> Machine:
        """Return this machine as a node of the planner: a worker is a core."""
        return Machine(
            name="this machine",
            workers=self.cores,
            memory_bytes=self.memory_bytes // self.cores,
            host_bytes=self.memory_bytes,
            default=Speed(1 / self.float32_flops, task_s=1e-3),
            speeds={kind: Speed(**terms) for kind, terms in self.speeds.items()},
            store_bytes_s=1e15,  # what tasks read and write is in what they were measured to take
            local_bytes_s=self.memory_bytes_s,
            dispatch_s=self.dispatch_s,
            warm_s=self.warm_s,
            control_s=self.control_s,
            overlaps=False,
            measured=True,
            assumptions=(
                f"measured on this machine ({self.machine}, {self.cores} cores): a core multiplies matrices at "
                f"{self.float32_flops / 1e9:,.0f} GFLOP/s in float32 and {self.float64_flops / 1e9:,.0f} in float64, "
                f"runs networks at {self.network_flops / 1e9:,.0f}, copies {self.memory_bytes_s / 1e9:,.1f} GB/s",
                f"a store on this disk takes {self.store_write_bytes_s / 1e9:,.2f} GB/s and gives "
                f"{self.store_read_bytes_s / 1e9:,.2f}, checksums included",
                f"Ray starts in {self.ray_start_s:.1f} s; a task costs its driver {self.dispatch_s * 1e3:.2f} ms, and "
                f"a core that is busy {self.control_s * 1e3:.1f} ms: Ray's processes, and the wait for the next task",
                f"a process loads what is compiled in {self.warm_s:.1f} s",
                "cores do not slow each other down",
            ),
        )


def without_ray(machine: Machine) -> Machine:
    """Return a calibrated machine as one process in it finds it."""
    return replace(machine, control_s=0.0)


def calibrate(*, again: bool = False) -> Calibration:
    """Return this machine's calibration: from the cache, or measured now and kept.

    Another processor, another number of cores or another version of torch is another machine.
    """
    path = _cache() / f"machine-{_identity()[:16]}.json"
    if not again:
        try:
            return Calibration(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            pass
    found = _measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(asdict(found), indent=1))
    draft.replace(path)
    return found


def _measure() -> Calibration:
    start = time.perf_counter()
    with _one_thread(), tempfile.TemporaryDirectory(prefix="platonic-ray-calibration-") as folder:
        write, read = _store_rates(Path(folder))
        speeds = _task_speeds(Path(folder))
        network = _network_rate()
        speeds["Embed"] = {**speeds.get("Embed", {}), "flop_s": 1 / network}
        rates = {dtype: _product_rate(dtype) for dtype in (torch.float32, torch.float64)}
        memory = _memory_rate()
    ray = ray_costs()
    return Calibration(
        version=_VERSION,
        machine=_processor(),
        cores=cores(),
        memory_bytes=_memory_bytes(),
        float32_flops=rates[torch.float32],
        float64_flops=rates[torch.float64],
        network_flops=network,
        memory_bytes_s=memory,
        store_write_bytes_s=write,
        store_read_bytes_s=read,
        dispatch_s=ray.dispatch_s,
        ray_start_s=ray.start_s,
        control_s=ray.control_s,
        warm_s=ray.warm_s,
        speeds=speeds,
        seconds=time.perf_counter() - start,
    )


def _best_of(action: Callable[[], Any], times: int = 3) -> float:
    """Return the least seconds that an action took: noise only ever adds."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        action()
        taken.append(time.perf_counter() - start)
    return min(taken)


def _product_rate(dtype: torch.dtype, size: int = 768) -> float:
    x = torch.ones(size, size, dtype=dtype)
    return 2.0 * size**3 / _best_of(lambda: x @ x)


def _network_rate() -> float:
    """FLOP/s of a block of a network: two products with an activation between them."""
    rows, inner = torch.ones(512, 512), torch.ones(512, 2048)
    return 4.0 * 512 * 512 * 2048 / _best_of(lambda: torch.nn.functional.gelu(rows @ inner) @ inner.T)


def _memory_rate(size: int = 128 * 2**20) -> float:
    x, y = np.zeros(size, np.uint8), np.ones(size, np.uint8)
    return 2 * size / _best_of(lambda: np.copyto(x, y))


def _store_rates(folder: Path, rows: int = 16_384, width: int = 512) -> tuple[float, float]:
    """Bytes a second that a store in a folder takes and gives."""
    store = Store.open(str(folder / "rates"))
    table = feature_table(np.ones((rows, width), np.float32))
    write = _best_of(lambda: store.put("checks", "0" * 64, {"x": table}))
    manifest = store.manifest("checks", "0" * 64)
    assert manifest is not None
    return table.nbytes / write, table.nbytes / _best_of(lambda: store.read(manifest, "x"))


def _task_speeds(folder: Path) -> dict[str, dict[str, float]]:
    """Return seconds a unit of work of each kind of task, from small studies."""
    seen: dict[str, list[tuple[list[float], float]]] = defaultdict(list)
    for at, small in enumerate(_SMALL):
        taken, counts, workload = run_small(small, folder / f"small-{at}")
        if at == 0:
            continue
        work: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(_TERMS))
        paces = {}
        for group in groups_of(workload):
            paces[group.kind] = group.pace
            terms = [group.total(term) for term in _TERMS]
            work[group.kind] = [sum(pair) for pair in zip(work[group.kind], terms, strict=True)]
        for kind, seconds in taken.items():
            seen[paces[kind]].append(([*work[kind], float(counts[kind])], seconds))
    return {kind: _fit(rows) for kind, rows in seen.items()}


def _fit(rows: Sequence[tuple[list[float], float]]) -> dict[str, float]:
    """Fit seconds to work, so that relative errors are least."""
    terms = np.array([row for row, _ in rows])
    seconds = np.array([taken for _, taken in rows])
    scale = np.where(terms.max(axis=0) > 0, terms.max(axis=0), 1.0)
    found, _ = nnls(terms / scale / seconds[:, None], np.ones(len(rows)))
    return dict(zip(("flop_s", "cell_s", "entry_s", "task_s"), (found / scale).tolist(), strict=True))


def run_small(small: _Small, folder: Path) -> tuple[dict[str, float], dict[str, int], Workload]:
    """Run a small study in this process; return seconds and tasks by kind, and its workload."""
    study = write_study(folder, small.n, [[small.width] * small.layers] * 2, small.k, small.permutations)
    study = study.replace(
        run={"engine": "local", "store": str(folder / "store"), "block_rows": small.block_rows}
    )
    store = Store.open(str(folder / "store"))
    prepared = prepare(study, store)
    plan = prepared.context.plan
    events = EventLog(store, "calibration")
    with ProgressDisplay(quiet=True) as progress:
        LocalRunner(prepared.context, TaskGraph(plan.prerequisites, done=[]), events, progress).run()
    events.flush()
    taken: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for event in store.events("calibration"):
        if "start" in event and "task" in event:
            kind = "Embed" if event["event"] == "shard" else event["event"]
            taken[kind] += max(event["cpu_s"], 1e-6)
            counts[kind] += 1
    shapes = [ModelShape(model.name, (small.width,) * small.layers) for model in plan.models]
    workload = Workload.of(plan, shapes, neighbor_metrics=1, permutations=small.permutations)
    return taken, counts, workload


def write_study(
    folder: Path, n: int, stacks: Sequence[Sequence[int]], k: int = 10, permutations: int = 0, seed: int = 0
) -> Study:
    """Write features of n samples, of models with layers of some widths, and return a study of them.

    The features have a low-rank part, noise and an offset that all rows share, as those of networks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pl.DataFrame({"id": [f"s{row}" for row in range(n)], "text": ["x"] * n}).write_parquet(
        folder / "samples.parquet"
    )
    latent = rng.standard_normal((n, 16)).astype(np.float32)
    models = []
    for at, widths in enumerate(stacks):
        layers = {}
        for layer, width in enumerate(widths):
            rows = latent @ rng.standard_normal((16, width)).astype(np.float32)
            rows += rng.standard_normal((n, width), dtype=np.float32) + 2 * rng.standard_normal(width).astype(
                np.float32
            )
            layers[f"layer {layer:03d}"] = torch.from_numpy(rows)
        name = f"model-{at}.safetensors"
        _save(layers, folder / name)
        models.append(
            {"name": f"model {at}", "kind": "features", "weights": str(folder), "file": name, "view": "text"}
        )
    return Study.from_dict(
        {
            "name": "planned",
            "seed": seed,
            "dataset": {"source": str(folder / "samples.parquet")},
            "models": models,
            "metrics": [{"name": "mutual_knn", "k": k}, {"name": "cka"}],
            "null": {"permutations": permutations},
        }
    )


def _save(layers: dict[str, torch.Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(layers, path)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _cache() -> Path:
    return Path(os.environ.get("PLATONIC_RAY_CACHE") or "~/.cache/platonic-ray").expanduser()


def _identity() -> str:
    versions = [importlib.metadata.version(name) for name in ("platonic-ray", "torch", "ray")]
    return digest([_VERSION, platform.node(), _processor(), os.cpu_count(), versions])


def _processor() -> str:
    """Return the processor's name, as the system states it."""
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _memory_bytes() -> int:
    """Return the memory that this machine, or the container that this process is in, has."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return physical
    return min(physical, int(limit)) if limit.isdigit() else physical
