"""One run of a study of features, clocked whole: `python -m bench.plan_run '{"engine": "ray", …}'`.

In a process of its own, pinned to the cores it may use and on one thread each. Prints JSON: seconds from the
first task to the last, seconds of tasks by kind, and what the processors did for whom.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any


def main(options: dict[str, Any]) -> dict[str, Any]:
    """Run one study on `cores` cores with an engine; return what it took."""
    os.sched_setaffinity(0, range(options["cores"]))
    import ray
    import torch

    from platonic_ray.digest import digest
    from platonic_ray.engine import cluster
    from platonic_ray.engine.calibration import write_study
    from platonic_ray.engine.overheads import processes, spent_by
    from platonic_ray.engine.run import run_study
    from platonic_ray.store import Store

    torch.set_num_threads(1)
    folder = Path(options["folder"])
    store = str(folder / f"store-{options['engine']}-{options['cores']}")
    study = write_study(folder / "features", options["n"], options["stacks"], options["k"])
    study = study.replace(run={"engine": options["engine"], "store": store})
    if options["engine"] == "ray":
        os.environ |= cluster.SETTINGS
        ray.init(
            address="local", num_cpus=options["cores"], include_dashboard=False, log_to_driver=False,
            logging_level=logging.ERROR,
        )  # fmt: skip
        # Workers are started, and have imported what they need, before the clock starts.
        warm = ray.remote(num_cpus=0.5)(_warm)
        ray.get([warm.remote() for _ in range(2 * options["cores"])])
    before, start = processes(), time.perf_counter()
    result = run_study(study, quiet=True)
    seconds, spent = time.perf_counter() - start, spent_by(before, processes())
    opened = Store(store)
    timed = [event for event in opened.events(opened.runs()[-1]) if "start" in event and "task" in event]
    kinds: Counter[str] = Counter()
    for event in timed:
        kind = "Embed" if event["event"] == "shard" else event["event"]
        kinds[kind] += event.get("cpu_s", event["end"] - event["start"])
    if options["engine"] == "ray":
        ray.shutdown()
    return {
        "seconds": seconds,
        "span_s": max(event["end"] for event in timed) - min(event["start"] for event in timed),
        "task_s": sum(event["end"] - event["start"] for event in timed),
        "store_s": sum(event.get("store_s", 0.0) for event in timed),
        "tasks": len(timed),
        "kinds": dict(kinds),
        "cpu": spent,
        "scores": digest([str(row) for row in sorted(map(str, result.scores.rows()))]),
    }


def _warm() -> None:
    import platonic_ray.engine.work  # noqa: F401

    time.sleep(1)


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
