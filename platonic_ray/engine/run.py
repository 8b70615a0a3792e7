"""A study from its text to its result: prepare, look into the store, run what is left, assemble.

The result is an artifact too, so a finished study that is run again reads it and computes nothing.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import pyarrow as pa

from platonic_ray.engine.assemble import asked, assemble, choices_of
from platonic_ray.engine.events import EventLog
from platonic_ray.engine.examples import examples_of
from platonic_ray.engine.prepare import Prepared, prepare
from platonic_ray.engine.progress import ProgressDisplay
from platonic_ray.engine.reuse import Reuse
from platonic_ray.engine.scores import kept_scores
from platonic_ray.plan import (
    Embed,
    KernelTile,
    NeighborTile,
    PermutedKernel,
    Plan,
    RowState,
    Score,
    Task,
    TaskGraph,
    found,
    needed,
)
from platonic_ray.results import Result
from platonic_ray.store import CorruptArtifactError, Store
from platonic_ray.study import Study


def default_store() -> str:
    """Return the store of a study that names none: `$PLATONIC_RAY_CACHE/store`, else in `~/.cache`."""
    cache = os.environ.get("PLATONIC_RAY_CACHE") or "~/.cache/platonic-ray"
    return str(Path(cache).expanduser() / "store")


def run_study(study: Study, *, quiet: bool = False) -> Result:
    """Run a study, or read its result if it was run before. Interrupted runs go on where they were.

    :raises PlatonicRayError: as `prepare`, and for what goes wrong while running.
    """
    started = time.time()
    store = Store.open(default_store() if study.run.store is None else study.run.store)
    with ProgressDisplay(quiet=quiet) as progress:
        prepared = prepare(study, store)
        finished = _stored_result(store, prepared)
        if finished is not None:
            progress.say(f"Everything was in the store ({store.uri}): nothing was computed.")
            return finished
        if prepared.choosing is not None:
            progress.say(f"Layers are chosen on {prepared.choosing.context.plan.n} of the samples.")
            choosing = _Run.of(prepared.choosing, progress)
            prepared = prepared.with_choices(choices_of(prepared.choosing, choosing.scores))
            choosing.end(progress)
            progress.say(f"The other {prepared.context.plan.n} samples are scored.")
        run = _Run.of(prepared, progress)
        result = assemble(prepared, run.scores, run.engine, started, run.nodes)
        examples, samples = examples_of(prepared, result)
        result = replace(result, examples=examples, samples=samples)
        _keep_result(store, prepared.key, result)
        run.end(progress)
    return result


@dataclass(frozen=True, eq=False)
class _Run:
    """A plan that was run: its score tables, by what engine on how many nodes, its log, what was there before."""

    scores: dict[Score, pa.Table]
    engine: str
    nodes: int
    events: EventLog
    there: frozenset[Task]
    started: float

    @classmethod
    def of(cls, prepared: Prepared, progress: ProgressDisplay) -> _Run:
        """Run what is not in the store."""
        started, store, plan = time.time(), prepared.context.store, prepared.context.plan
        there = found(plan, lambda kind, key: store.manifest(kind, key) is not None)
        kept = _kept_scores(prepared, there)
        there = frozenset(task for task in there if not isinstance(task, Score) or task in kept)
        wanted = needed(plan, there)
        graph = TaskGraph(
            plan.prerequisites, done=[task for task in plan.prerequisites if task not in wanted]
        )
        events = _log(prepared, started, wanted, there)
        scores, engine, nodes = _logged(prepared, graph, events, progress, wanted, there)
        return cls({**kept, **scores}, engine, nodes, events, there, started)

    def end(self, progress: ProgressDisplay) -> None:
        """Say in the log and to the user that all is done."""
        seconds, events = time.time() - self.started, self.events
        events.add("finished", seconds=seconds, counts=dict(events.counts), totals=dict(events.totals))
        events.flush()
        progress.say(_summary(events, self.there, seconds))


def embed_study(study: Study, *, quiet: bool = False) -> None:
    """Embed what a study's models have not embedded yet, and compute nothing else.

    A run of the study, or of any that shares models and samples with it, finds the features.

    :raises PlatonicRayError: as `run_study`.
    """
    started = time.time()
    store = Store.open(default_store() if study.run.store is None else study.run.store)
    with ProgressDisplay(quiet=quiet) as progress:
        made = reused = 0
        for prepared in prepare(study, store).parts:
            plan, begun = prepared.context.plan, time.time()
            embeds = frozenset(task for task in plan.prerequisites if isinstance(task, Embed))
            there = embeds & found(plan, lambda kind, key: store.manifest(kind, key) is not None)
            made, reused = made + len(embeds - there), reused + len(there)
            if there < embeds:
                events = _log(prepared, begun, embeds - there, there)
                graph = TaskGraph({task: () for task in plan.prerequisites if task in embeds}, done=there)
                _logged(prepared, graph, events, progress, embeds - there, there)
                seconds = time.time() - begun
                events.add(
                    "finished", seconds=seconds, counts=dict(events.counts), totals=dict(events.totals)
                )
                events.flush()
        progress.say(
            f"Embedded {made} shards of {len(study.models)} models in {time.time() - started:.0f} s; "
            f"{reused} were in the store ({store.uri})."
        )


def _log(prepared: Prepared, started: float, wanted: frozenset[Task], there: frozenset[Task]) -> EventLog:
    """Begin the log of a run that was started then."""
    # With milliseconds, so that names order two runs that begin in one second.
    moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime(started)) + f".{int(started % 1 * 1000):03d}"
    name = f"{moment}-{uuid.uuid4().hex[:6]}"
    events = EventLog(prepared.context.store, run=name)
    events.add(
        "started",
        study=prepared.study.name,
        key=prepared.key,
        todo=_counts(wanted),
        found=_counts(there),
    )
    events.flush()
    return events


def _logged(
    prepared: Prepared,
    graph: TaskGraph,
    events: EventLog,
    progress: ProgressDisplay,
    wanted: frozenset[Task],
    there: frozenset[Task],
) -> tuple[dict[Score, pa.Table], str, int]:
    """Run the graph; the log says if it is stopped."""
    reuse = Reuse.of(prepared.context.plan, there)
    events.add("reuse", **reuse.facts())
    _announce(progress, prepared.context.plan, wanted)
    for line in reuse.lines():
        progress.say(line)
    try:
        return _execute(prepared, graph, events, progress)
    except BaseException as error:
        events.add("stopped", error=type(error).__name__)
        raise
    finally:
        events.flush()


def _execute(
    prepared: Prepared, graph: TaskGraph, events: EventLog, progress: ProgressDisplay
) -> tuple[dict[Score, pa.Table], str, int]:
    """Run the graph on the engine that the study names; return scores, its name, and the nodes at its end."""
    run = prepared.study.run
    if run.engine == "local":
        from platonic_ray.engine.local import LocalRunner

        return LocalRunner(prepared.context, graph, events, progress).run(), "local", 1

    import ray

    from platonic_ray.engine import cluster
    from platonic_ray.engine.planning import relative_costs
    from platonic_ray.engine.scheduler import Scheduler
    from platonic_ray.engine.sharing import Sharing, local_paths

    started_here = cluster.connect()
    try:
        _end_on_sigterm()  # after connecting: Ray replaces handlers
        sharing = Sharing(prepared.context.store, local_paths(prepared.study.dataset, prepared.study.models))
        sharing.check()
        scheduler = Scheduler(prepared.context, graph, events, progress, sharing, relative_costs(prepared))
        scores = scheduler.run()
        events.add("driver", fetched_bytes=scheduler.fetched_bytes)
        return scores, f"ray {ray.__version__}", sum(node["Alive"] for node in ray.nodes())
    finally:
        if started_here:
            ray.shutdown()


def _end_on_sigterm() -> None:
    """Let SIGTERM (a job that is stopped, a machine that is taken back) end the run like Ctrl-C."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)


def _counts(tasks: frozenset[Task]) -> dict[str, int]:
    return dict(Counter(type(task).__name__ for task in tasks))


def _kept_scores(prepared: Prepared, there: frozenset[Task]) -> dict[Score, pa.Table]:
    """Return the scores of pairs that are in the store whole."""
    read = {task: kept_scores(prepared.context, task) for task in there if isinstance(task, Score)}
    return {task: table for task, table in read.items() if table is not None}


def _announce(progress: ProgressDisplay, plan: Plan, wanted: frozenset[Task]) -> None:
    embeds = [task for task in wanted if isinstance(task, Embed)]
    progress.expect("models loaded", len({task.model for task in embeds}))
    progress.expect("samples embedded", sum(len(plan.shards[task.shard]) for task in embeds))
    progress.expect("tiles", sum(isinstance(task, _TILES) for task in wanted))
    progress.expect("pairs", sum(isinstance(task, Score) for task in wanted))


def _summary(events: EventLog, there: frozenset[Task], seconds: float) -> str:
    counts = events.counts
    lost = f", {counts['lost']} lost and done again" if counts["lost"] else ""
    objects, stored = (events.totals[f"bytes_from_{source}"] / 1e6 for source in ("objects", "store"))
    return (
        f"Computed {counts['shard']} shards, {sum(counts[kind.__name__] for kind in _TILES)} tiles and "
        f"{counts['Score']} pairs in {seconds:.0f} s; reused {len(there)} from the store{lost}. "
        f"Tiles read {objects:,.0f} MB from objects, {stored:,.0f} MB from the store. Log: run {events.run}."
    )


def _keep_result(store: Store, key: str, result: Result) -> None:
    frames = {name: getattr(result, name).to_arrow(compat_level=pl.CompatLevel.oldest()) for name in _FRAMES}
    store.put("results", key, frames, result.provenance)


def _stored_result(store: Store, prepared: Prepared) -> Result | None:
    result = read_result(store, prepared.key)
    return None if result is None else replace(result, provenance={**result.provenance, **asked(prepared)})


def read_result(store: Store, key: str) -> Result | None:
    """Return a result that is in a store, as its own run described it; None if it is not there, whole."""
    manifest = store.manifest("results", key)
    if manifest is None:
        return None
    try:
        frames = {name: pl.DataFrame(store.read(manifest, name)) for name in _FRAMES}
    except CorruptArtifactError:
        store.discard("results", key)
        return None
    return Result(**frames, provenance=dict(manifest.meta))


_TILES = (NeighborTile, KernelTile, PermutedKernel, RowState)
_FRAMES = ("scores", "models", "layers", "growth", "examples", "samples", "capability")
