"""Alignment as a metric of training: a callback for the `Trainer` of transformers.

Not imported by the rest: it is the one module here that a training script takes besides the verbs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from platonic_ray.engine.scorer import Alignments, Scorer
from platonic_ray.errors import StudyError


class AlignmentCallback(TrainerCallback):
    """Scores a network in training against the references of a `Scorer`, and logs it beside the loss.

    ::

        scorer = pr.Scorer(["minilm-l6", "efficientnet-lite0"], dataset="emoji")
        features = lambda model: pr.extract(model, "emoji", embed, view="name.en")
        trainer = Trainer(…, callbacks=[pr.AlignmentCallback(scorer, features, every=100)])

    Values are named `alignment/<metric>/<model>`. They are in `trainer.state.log_history` and in what
    loggers are given (those that come after this callback in the trainer's list; `attach` puts it
    first). After an evaluation they are in its metrics too, as `eval_alignment/…`, so that
    `metric_for_best_model` can name one.
    """

    def __init__(self, scorer: Scorer, features: Callable[[Any], Any], *, every: int | None = None) -> None:
        """Say what is scored, and when.

        :param features: called with the network in training; returns what `Scorer.score` takes.
        :param every: score at every so many steps, logged with the training's next log; and at every
            evaluation in any case.
        :raises StudyError: if `every` is below 1.
        """
        if every is not None and every < 1:
            raise StudyError(f"AlignmentCallback: every must be at least 1 step (given: {every}).")
        self._scorer, self._features, self._every = scorer, features, every
        self._waiting: dict[str, float] = {}
        self.last: Alignments | None = None

    def attach(self, trainer: Any) -> None:
        """Add the callback to a trainer, before its loggers."""
        trainer.callback_handler.callbacks.insert(0, self)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> Any:
        """Score, if it is time, and ask for a log."""
        if self._every is not None and state.global_step % self._every == 0:
            self._waiting = self._score(model)
            control.should_log = True
        return control

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, model: Any = None, **kwargs: Any
    ) -> None:
        """Score, and add the scores to the metrics of the evaluation and to its log."""
        found = {f"eval_{name}": value for name, value in self._score(model).items()}
        if metrics is not None:
            metrics.update(found)
        if state.log_history:
            state.log_history[-1].update(found)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Add the scores that wait to what is logged."""
        if self._waiting and logs is not None:
            logs.update(self._waiting)
            if state.log_history:
                state.log_history[-1].update(self._waiting)
            self._waiting = {}

    def _score(self, model: Any) -> dict[str, float]:
        self.last = self._scorer.score(self._features(model))
        return self.last.log()
