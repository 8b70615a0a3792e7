"""Alignment as a metric of training: a callback for Lightning (extra `[lightning]`); `training` has transformers'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from platonic_ray.engine.scorer import Alignments, Scorer
from platonic_ray.errors import StudyError

_Callback: Any
try:
    from lightning import Callback as _Callback
except ImportError:  # the class can be looked at; making one says what is missing
    _Callback = object


class LightningAlignment(_Callback):
    """Scores a module in training against the references of a `Scorer`, and logs it with Lightning's loggers.

    ::

        scorer = pr.Scorer(["minilm-l6", "efficientnet-lite0"], dataset="emoji")
        features = lambda module: pr.extract(module.encoder, "emoji", embed, view="name.en")
        trainer = lightning.Trainer(…, callbacks=[pr.LightningAlignment(scorer, features, every=100)])

    Values are named `alignment/<metric>/<model>`, and after a validation `val_alignment/…`, so that a
    `ModelCheckpoint` can monitor one. They are made by the first process alone where there are several.
    """

    def __init__(self, scorer: Scorer, features: Callable[[Any], Any], *, every: int | None = None) -> None:
        """Say what is scored, and when.

        :param features: called with the module in training; returns what `Scorer.score` takes.
        :param every: score after every so many optimizer steps; and after every validation in any case.
        :raises StudyError: if Lightning is not installed, or `every` is below 1.
        """
        if _Callback is object:
            raise StudyError("LightningAlignment needs Lightning: pip install 'platonic-ray[lightning]'.")
        if every is not None and every < 1:
            raise StudyError(f"LightningAlignment: every must be at least 1 step (given: {every}).")
        super().__init__()
        self._scorer, self._features, self._every = scorer, features, every
        self._scored_at = 0
        self.last: Alignments | None = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *given: Any, **named: Any) -> None:
        """Score, if it is time: once a step, also where several batches make one."""
        step = trainer.global_step
        if self._every is not None and step % self._every == 0 and step > self._scored_at:
            self._scored_at = step
            self._log(trainer, pl_module, "")

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Score after a validation, but not after the one that only tries whether it works."""
        if not trainer.sanity_checking:
            self._log(trainer, pl_module, "val_")

    def _log(self, trainer: Any, pl_module: Any, prefix: str) -> None:
        if not trainer.is_global_zero:
            return
        self.last = self._scorer.score(self._features(pl_module))
        found = {f"{prefix}{name}": value for name, value in self.last.log().items()}
        pl_module.log_dict(found, rank_zero_only=True, batch_size=1)
