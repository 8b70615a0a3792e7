"""A study from its text to its result: prepare, look into the store, run what is left, assemble.

The result is an artifact too, so a finished study that is run again reads it and computes nothing.
"""

from __future__ import annotations

import os
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import pyarrow as pa

from platonic_ray.engine.answers import answer_job
from platonic_ray.engine.assemble import asked, assemble, choices_of
from platonic_ray.engine.events import EventLog
from platonic_ray.engine.examples import examples_of
from platonic_ray.engine.footprint import Footprint
from platonic_ray.engine.prepare import Prepared, prepare
from platonic_ray.engine.progress import ProgressDisplay
from platonic_ray.engine.reuse import Reuse
from platonic_ray.engine.scores import kept_scores
from platonic_ray.engine.summary import TILES, Summary, cost_of
from platonic_ray.plan import (
    Embed,
    Plan,
    Score,
    Task,
    TaskGraph,
    found,
    needed,
)
from platonic_ray.results import Result
from platonic_ray.signals import sigterm_interrupts, sigterm_kept
from platonic_ray.store import CorruptArtifactError, Store
from platonic_ray.study import Study


def default_store() -> str:
    """Return the store of a study that names none: `$PLATONIC_RAY_CACHE/store`, else in `~/.cache`."""
    cache = os.environ.get("PLATONIC_RAY_CACHE") or "~/.cache/platonic-ray"
    return str(Path(cache).expanduser() / "store")


def run_study(study: Study, *, quiet: bool = False) -> Result:
    """Run a study, or read its result if it was run before. Interrupted runs go on where they were.

    :raises PlatonicRayError: as `prepare`, and for what goes wrong while running.
    :raises KeyboardInterrupt: on Ctrl-C, and on SIGTERM.
    """
    started = time.time()
    store = Store.open(default_store() if study.run.store is None else study.run.store)
    with (
        sigterm_interrupts(),
        ProgressDisplay(quiet=quiet, as_json=study.run.log == "json") as progress,
    ):
        prepared = prepare(study, store)
        finished = _stored_result(store, prepared)
        if finished is not None:
            answer_job(store, prepared.key)
            progress.say(f"Everything was in the store ({store.uri}): nothing was computed.")
            return finished
        runs = []
        if prepared.choosing is not None:
            progress.say(f"Layers are chosen on {prepared.choosing.context.plan.n} of the samples.")
            choosing = _Run.of(prepared.choosing, progress)
            prepared = prepared.with_choices(choices_of(prepared.choosing, choosing.scores))
            choosing.end(progress)
            runs.append(choosing)
            progress.say(f"The other {prepared.context.plan.n} samples are scored.")
        run = _Run.of(prepared, progress)
        node_s = sum((Counter(of.summary.node_s or {}) for of in [*runs, run]), Counter[str]())
        cost = cost_of(study.run.price_per_hour, node_s)
        result = assemble(prepared, run.scores, run.engine, started, cost)
        examples, samples = examples_of(prepared, result)
        result = replace(result, examples=examples, samples=samples)
        _keep_result(store, prepared.key, result)
        answer_job(store, prepared.key)
        run.end(progress)
    return result


@dataclass(frozen=True, eq=False)
class _Run:
    """A plan that was run: its score tables, by what engine, its log and what that adds up to."""

    scores: dict[Score, pa.Table]
    engine: str
    events: EventLog
    summary: Summary
    prepared: Prepared
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
            plan.prerequisites,
            done=[task for task in plan.prerequisites if task not in wanted],
            length=plan.length,
        )
        events, summary = _log(prepared, started, wanted, there, progress)
        scores, engine = _logged(prepared, graph, events, progress, wanted, there, summary)
        return cls({**kept, **scores}, engine, events, summary, prepared, started)

    def end(self, progress: ProgressDisplay) -> None:
        """Say in the log and to the user that all is done, and where the time went."""
        _finish(self.prepared, self.events, self.summary, self.started, progress)


def embed_study(study: Study, *, quiet: bool = False) -> None:
    """Embed what a study's models have not embedded yet, and compute nothing else.

    A run of the study, or of any that shares models and samples with it, finds the features.

    :raises PlatonicRayError: as `run_study`.
    """
    started = time.time()
    store = Store.open(default_store() if study.run.store is None else study.run.store)
    with (
        sigterm_interrupts(),
        ProgressDisplay(quiet=quiet, as_json=study.run.log == "json") as progress,
    ):
        made = reused = 0
        for prepared in prepare(study, store).parts:
            plan, begun = prepared.context.plan, time.time()
            embeds = frozenset(task for task in plan.prerequisites if isinstance(task, Embed))
            there = embeds & found(plan, lambda kind, key: store.manifest(kind, key) is not None)
            made, reused = made + len(embeds - there), reused + len(there)
            if there < embeds:
                events, summary = _log(prepared, begun, embeds - there, there, progress)
                graph = TaskGraph({task: () for task in plan.prerequisites if task in embeds}, done=there)
                _logged(prepared, graph, events, progress, embeds - there, there, summary)
                _finish(prepared, events, summary, begun, progress)
        progress.say(
            f"Embedded {made} shards of {len(study.models)} models in {time.time() - started:.0f} s; "
            f"{reused} were in the store ({store.uri})."
        )


def _log(
    prepared: Prepared,
    started: float,
    wanted: frozenset[Task],
    there: frozenset[Task],
    progress: ProgressDisplay,
) -> tuple[EventLog, Summary]:
    """Begin the log of a run that was started then, and what adds it up."""
    # With milliseconds, so that names order two runs that begin in one second.
    moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime(started)) + f".{int(started % 1 * 1000):03d}"
    name = f"{moment}-{uuid.uuid4().hex[:6]}"
    events, summary = EventLog(prepared.context.store, run=name), Summary(reused=len(there))
    progress.run = name
    events.listeners += [summary.add, progress.event]
    events.add(
        "started",
        study=prepared.study.name,
        key=prepared.key,
        todo=_counts(wanted),
        found=_counts(there),
    )
    events.flush()
    return events, summary


def _finish(
    prepared: Prepared, events: EventLog, summary: Summary, started: float, progress: ProgressDisplay
) -> None:
    """End the log of a run, and say what it did and where its time went."""
    seconds, prices = time.time() - started, prepared.study.run.price_per_hour
    events.add(
        "finished",
        seconds=seconds,
        counts=dict(events.counts),
        totals=dict(events.totals),
        summary=summary.facts(prices),
    )
    events.flush()
    for line in summary.lines(events.run, seconds, prices):
        progress.say(line)


def _logged(
    prepared: Prepared,
    graph: TaskGraph,
    events: EventLog,
    progress: ProgressDisplay,
    wanted: frozenset[Task],
    there: frozenset[Task],
    summary: Summary,
) -> tuple[dict[Score, pa.Table], str]:
    """Run the graph; the log says if it is stopped."""
    reuse = Reuse.of(prepared.context.plan, there)
    events.add("reuse", **reuse.facts())
    _announce(progress, prepared.context.plan, wanted)
    for line in reuse.lines():
        progress.say(line)
    try:
        if prepared.study.run.engine == "local":
            from platonic_ray.engine.local import LocalRunner

            start = time.monotonic()
            with _stopping(events):
                scores = LocalRunner(prepared.context, graph, events, progress).run()
            summary.core_s = time.monotonic() - start
            if prepared.study.run.price_per_hour is not None:
                summary.node_s = {"cpu": summary.core_s}
            return scores, "local"
        return _on_ray(prepared, graph, events, progress, summary)
    finally:
        events.flush()


@contextmanager
def _stopping(events: EventLog) -> Iterator[None]:
    """Have the log say at once that the run is stopped, whatever has to be ended after it."""
    try:
        yield
    except BaseException as error:
        events.add("stopped", error=type(error).__name__)
        events.flush()
        raise


def _on_ray(
    prepared: Prepared, graph: TaskGraph, events: EventLog, progress: ProgressDisplay, summary: Summary
) -> tuple[dict[Score, pa.Table], str]:
    """Run the graph on the Ray that is there, or on one that is started for it."""
    import ray

    from platonic_ray.engine import cluster
    from platonic_ray.engine.counters import Counters
    from platonic_ray.engine.planning import peaks_of, relative_costs, weight_bytes_of
    from platonic_ray.engine.scheduler import Scheduler
    from platonic_ray.engine.sharing import Sharing, local_paths

    with _stopping(events), sigterm_kept():  # connecting to Ray replaces the handler
        started_here = cluster.connect()
    with sigterm_interrupts() as told:
        try:
            with _stopping(events):
                events.listeners.append(Counters(summary.reused).add)
                sharing = Sharing(
                    prepared.context.store, local_paths(prepared.study.dataset, prepared.study.models)
                )
                sharing.check()
                expected = relative_costs(prepared), weight_bytes_of(prepared), peaks_of(prepared)
                scheduler = Scheduler(prepared.context, graph, events, progress, sharing, *expected, told)
                with Footprint() as footprint:
                    scores = scheduler.run()
            summary.driver_bytes = footprint.peak_bytes
            events.add("driver", fetched_bytes=scheduler.fetched_bytes)
            machines = scheduler.machines
            machines.look(force=True)
            summary.core_s, summary.node_s = machines.core_s, machines.node_s
            summary.spilled_bytes = machines.spilled_bytes()
        except BaseException as error:
            if started_here:
                # Who is told to end has no time: `ray job stop` kills after three seconds.
                cluster.end(at_once=isinstance(error, KeyboardInterrupt))
            raise
        if started_here:
            cluster.end(at_once=False)
    return scores, f"ray {ray.__version__}"


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
    progress.expect("tiles", sum(type(task).__name__ in TILES for task in wanted))
    progress.expect("pairs", sum(isinstance(task, Score) for task in wanted))


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


_FRAMES = ("scores", "models", "layers", "growth", "examples", "samples", "capability")
