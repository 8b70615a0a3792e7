"""What a store tells of the runs in it: how far they are, and what came out. It reads, and needs no cluster.

A run is followed by its event log alone, so from any machine that can read the store.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from platonic_ray.engine.answers import answer_of
from platonic_ray.engine.events import ALIVE_S
from platonic_ray.engine.run import read_result
from platonic_ray.errors import StoreError
from platonic_ray.results import Result
from platonic_ray.store import Store


@dataclass(frozen=True)
class RunStatus:
    """How far a run is. `todo` counts the tasks of each kind that it set out to do, `done` those it did.

    `state` is "running", "finished", "stopped" (it said so: interrupted, or an error, named by `error`)
    or "silent" (no sign of life: killed, or cut off from its store). `lost` counts attempts that were
    lost and made again; `seconds` is how long it has run, `silent_s` since when it has said nothing.
    """

    run: str
    study: str
    key: str
    state: str
    error: str | None
    todo: Mapping[str, int]
    done: Mapping[str, int]
    reused: int
    lost: int
    seconds: float
    silent_s: float
    nodes: int

    def facts(self) -> dict[str, Any]:
        """Return what is known as JSON values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Say it in a few lines of a terminal."""
        state = self.state if self.error is None else f"{self.state} ({self.error})"
        lines = [f"{self.run}  {self.study}: {state}, {self.seconds:,.0f} s"]
        for kind, total in self.todo.items():
            lines.append(f"  {_WORDS.get(kind, kind):<20} {self.done.get(kind, 0):>8,} of {total:,}")
        lines.append(
            f"  reused from the store {self.reused:,}; lost and made again {self.lost:,}; nodes {self.nodes}"
        )
        if self.state in ("stopped", "silent"):
            lines.append("  What was finished is kept: run the same study with this store to go on.")
        return lines


_WORDS = {
    "Embed": "shards of features",
    "NeighborTile": "neighbor tiles",
    "NeighborBlock": "neighbor blocks",
    "KernelTile": "kernel tiles",
    "KernelProducts": "ranges of products",
    "PermutedKernel": "permuted kernels",
    "RowState": "states",
    "Score": "pairs of models",
}


def run_status(store: Store, run: str | None = None, *, study: str | None = None) -> RunStatus:
    """Return how far a run is, by default the last that was started, of all or of the study of that name.

    :raises StoreError: if the store has no such run.
    """
    runs = store.runs()
    if not runs:
        raise StoreError(f"The store {store.uri} holds no run. Is it the store that the study was given?")
    if run is not None and run not in runs:
        raise StoreError(f"The store {store.uri} holds no run {run!r}. Its last: {', '.join(runs[-5:])}.")
    name = run or (runs[-1] if study is None else _last_of(store, runs, study))
    events = store.events(name)
    if not events:
        raise StoreError(f"The run {name} has said nothing yet: it has just begun, or was killed at once.")
    first, last = events[0], events[-1]
    done = Counter("Embed" if event["event"] == "shard" else event["event"] for event in events)
    # By the clock of the store: the driver's may be minutes off.
    silent = max(0.0, time.time() - store.last_written(name))
    ended = {"finished": "finished", "stopped": "stopped"}.get(last["event"])
    return RunStatus(
        run=name,
        study=first.get("study", ""),
        key=first.get("key", ""),
        state=ended or ("running" if silent < 3 * ALIVE_S else "silent"),
        error=last.get("error") if ended == "stopped" else None,
        todo=first.get("todo", {}),
        done={kind: done[kind] for kind in first.get("todo", {})},
        reused=sum(first.get("found", {}).values()),
        lost=done["lost"],
        seconds=last["time"] - first["time"],
        silent_s=silent,
        nodes=len({event["node"] for event in events if "node" in event}),
    )


def _last_of(store: Store, runs: list[str], study: str) -> str:
    for name in reversed(runs):
        said = store.events(name, segments=1)
        if said and said[0].get("study") == study:
            return name
    raise StoreError(f"The store {store.uri} holds no run of a study {study!r}. `--all` shows what it holds.")


def fetch_result(
    store: Store, run: str | None = None, *, study: str | None = None, job: str | None = None
) -> Result:
    """Return the result of a run, named as for `run_status`, or the one that a submitted job came to.

    :raises StoreError: if there is no such run or job, or if it has no result yet.
    """
    if job is not None:
        key = answer_of(store, job)
        answer = None if key is None else read_result(store, key)
        if answer is None:
            raise StoreError(
                f"The job {job!r} has come to no result in {store.uri}: it runs, failed, or was given another store."
            )
        return answer
    status = run_status(store, run, study=study)
    result = read_result(store, status.key)
    if result is None:
        raise StoreError(
            f"The run {status.run} of {status.study!r} is {status.state} and has no result yet: see "
            f"`platonic-ray status {store.uri}`."
        )
    return result
