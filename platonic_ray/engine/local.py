"""Running a plan in this process, one task after another: the oracle of the run on Ray.

No Ray, no objects, no concurrency: every task reads its features from the store and does what
`platonic_ray.engine.work` says. A run on Ray must end with the same bytes.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pyarrow as pa
import torch

from platonic_ray.engine.context import MOST_ATTEMPTS, Context, MissingInputError, event_of, facts_of, label
from platonic_ray.engine.embedding import ModelRunner
from platonic_ray.engine.events import EventLog
from platonic_ray.engine.progress import ProgressDisplay
from platonic_ray.engine.work import OBJECTS_ONLY, TILES, Clock, perform
from platonic_ray.errors import RunError
from platonic_ray.plan import Embed, Score, Task, TaskGraph


class LocalRunner:
    """Runs a plan's graph to its end, holding one model at a time."""

    def __init__(
        self, context: Context, graph: TaskGraph, events: EventLog, progress: ProgressDisplay
    ) -> None:
        self.context, self.graph, self.events, self.progress = context, graph, events, progress
        self.scores: dict[Score, pa.Table] = {}
        self._partials: dict[Task, pa.Table] = {}  # results that live as objects only
        self._model: tuple[int, ModelRunner] | None = None
        self._losses: Counter[Task] = Counter()

    def run(self) -> dict[Score, pa.Table]:
        """Run until every task is done; return the score tables.

        :raises PlatonicRayError: the first error of a task.
        """
        threads = torch.get_num_threads()  # models run on the study's number; the caller's comes back
        try:
            while not self.graph.finished:
                self._step()
        finally:
            torch.set_num_threads(threads)
        return self.scores

    def _step(self) -> None:
        task = self.graph.take() or self._take_embed()
        try:
            report = self._do(task)
        except MissingInputError as error:
            self._undo(task, error)
            return
        self.events.add(event_of(task), **facts_of(self.context.plan, task), attempt=1, **report)
        for unread in self.graph.complete(task):
            self._partials.pop(unread, None)
        what, amount = self._progress_of(task)
        self.progress.advance(what, amount)

    def _take_embed(self) -> Embed:
        pending = self.graph.pending_embeds()
        if not pending:
            raise RunError("Nothing is ready and nothing can be embedded: this is a fault of platonic_ray.")
        current = self._model[0] if self._model else None
        task = self.graph.take_embed(current if current in pending else min(pending))
        assert task is not None
        return task

    def _do(self, task: Task) -> dict[str, Any]:
        if isinstance(task, Embed):
            runner = self._runner(task.model)
            with Clock() as clock:
                *_, report = runner.embed(task.shard)
                assert isinstance(report, dict)
                return {**clock.spent(), **report}
        needs = self.graph.needs(task)
        given = {need: (self._partials[need],) for need in needs if need in self._partials}
        report, result = perform(self.context, task, given)
        if isinstance(task, Score):
            self.scores[task] = result
        elif isinstance(task, OBJECTS_ONLY):
            self._partials[task] = result
        return report

    def _runner(self, model: int) -> ModelRunner:
        if self._model is None or self._model[0] != model:
            self._model = None  # let the last model go before the next is loaded
            runner = ModelRunner(self.context, model)
            start = time.time()
            layers = runner.load()
            facts = {"start": start, "end": time.time(), "layers": layers}
            self.events.add("model_loaded", model=self.context.plan.models[model].name, **facts)
            self.progress.advance("models loaded")
            self._model = (model, runner)
        return self._model[1]

    def _undo(self, task: Task, error: MissingInputError) -> None:
        for missing in error.tasks:
            self._losses[missing] += 1
            if self._losses[missing] >= MOST_ATTEMPTS:
                raise RunError(
                    f"{label(self.context.plan, missing)} was made {MOST_ATTEMPTS} times and could not be read back. "
                    "Check the store's disk."
                )
            self.graph.undo(missing)
            self.events.add("missing", **facts_of(self.context.plan, missing))
        self.graph.give_back(task)

    def _progress_of(self, task: Task) -> tuple[str, int]:
        if isinstance(task, Embed):
            return "samples embedded", len(self.context.plan.shards[task.shard])
        if isinstance(task, Score):
            return "pairs", 1
        return "tiles", int(isinstance(task, TILES))
