"""The null of a study or a table: which metrics have one, of how many permutations, within which groups."""

from __future__ import annotations

from collections.abc import Sequence

from platonic_ray.datasets import Dataset
from platonic_ray.engine.expanded import owners_of
from platonic_ray.errors import StudyError
from platonic_ray.kernels import MOST_PERMUTED
from platonic_ray.metrics import Metric
from platonic_ray.statistics import Groups, Null, choose_permutations, has_cheap_null, has_null
from platonic_ray.study import NullEntry, Study


def groups_of_null(study: Study, dataset: Dataset) -> Groups | None:
    """Return which samples change places under the study's null; None where all may, or there is none.

    :raises StudyError: if none can.
    """
    name = study.null.groups
    labels = None if name is None else dataset.labels(name)
    where = "" if name is None else f"null.groups = {name!r}"
    if dataset.owners is not None and study.null.permutations != 0:
        return Groups.of_owners(owners_of(dataset.owners), where, labels)
    return None if labels is None else Groups.of(where, labels, len(dataset))


def null_of(
    entry: NullEntry,
    metrics: Sequence[Metric],
    pairs: int,
    n: int,
    seed: int,
    groups: Groups | None = None,
) -> tuple[Null | None, tuple[str, ...]]:
    """Return the null of a table of so many pairs of different models, and what to note about it.

    A metric of the rows family has a null where it is named; one that cannot have any has none in
    silence, unless it is named.

    :raises StudyError: if a metric is named that the table does not have, or that has no null.
    """
    for name in entry.metrics or ():
        of_name = [metric for metric in metrics if name in (metric.name, metric.label)]
        if not of_name:
            listed = ", ".join(dict.fromkeys(metric.name for metric in metrics))
            raise StudyError(f"null.metrics: {name!r} is none of the metrics asked for ({listed}).")
        if not all(has_null(metric, n) for metric in of_name):
            raise StudyError(f"null.metrics: {name} has no null by permutation{_beyond(of_name[0], n)}.")
    if entry.permutations == 0 or pairs == 0:
        return None, ()
    given = None if entry.permutations == "auto" else entry.permutations
    counts: dict[str, int] = {}
    few: dict[str, list[str]] = {}
    without: list[str] = []
    dear: list[str] = []
    for metric in metrics:
        asked = entry.metrics is None or metric.name in entry.metrics or metric.label in entry.metrics
        if not asked or not has_null(metric, n):
            if asked and _beyond(metric, n):
                without.append(metric.label)
            continue
        if metric.family == "rows" and entry.metrics is None:
            dear.append(metric.label)
            continue
        chosen = choose_permutations(pairs, entry.alpha, cheap=has_cheap_null(metric), given=given)
        counts[metric.label] = chosen.count
        if chosen.note is not None:
            few.setdefault(chosen.note, []).append(metric.label)
    notes = [note if len(few[note]) == len(metrics) else f"{', '.join(few[note])}: {note}" for note in few]
    if dear:
        notes.append(
            f"{', '.join(dear)}: no null; a permutation takes as long as the scores. Name a metric under "
            "null.metrics to have one"
        )
    if without:
        notes.append(
            f"{', '.join(without)}: no null; permuted kernels are held for up to {MOST_PERMUTED} samples"
        )
    return Null(counts, entry.alpha, seed, groups) if counts else None, tuple(notes)


def _beyond(metric: Metric, n: int) -> str:
    """Say that there are too many samples for the null of a metric; nothing if that is not why."""
    if metric.kernel is None or n <= MOST_PERMUTED:
        return ""
    return f" for more than {MOST_PERMUTED} samples"
