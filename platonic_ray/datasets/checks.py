"""Bad samples are found before the models run: refused with their reasons, or left out in every view."""

from __future__ import annotations

from collections.abc import Sequence

from platonic_ray.datasets.base import Dataset
from platonic_ray.datasets.items import Problem
from platonic_ray.errors import DataError

_SHOWN = 20


def check_samples(
    dataset: Dataset, views: Sequence[str], on_bad_sample: str = "refuse"
) -> tuple[Dataset, list[Problem]]:
    """Return the dataset without samples that are bad in any of the views, and what was wrong with them.

    A sample that is bad in two views has two problems; their `row` is that of the given dataset.

    :raises StudyError: for a name that is not a view.
    :raises DataError: as `without_bad`.
    """
    problems = dataset.problems(views)
    return without_bad(dataset, problems, on_bad_sample), problems


def without_bad(dataset: Dataset, problems: Sequence[Problem], on_bad_sample: str = "refuse") -> Dataset:
    """Return the dataset without the samples that have problems.

    :raises DataError: if there are any and `on_bad_sample` is not "drop" (the first 20 are listed, and
        their number), or if no sample would be left.
    """
    if not problems:
        return dataset
    bad = {problem.row for problem in problems}
    listed = "\n".join(f"  {problem}" for problem in problems[:_SHOWN])
    if len(problems) > _SHOWN:
        listed += f"\n  … and {len(problems) - _SHOWN} more"
    count = (
        f"{len(bad)} of {len(dataset)} samples of {dataset.name} cannot be used ({len(problems)} problems)"
    )
    if on_bad_sample != "drop":
        raise DataError(
            f'{count}:\n{listed}\nRepair them, or set on_bad_sample = "drop" under [dataset] to go on '
            "without them in every view."
        )
    if len(bad) == len(dataset):
        raise DataError(f"{count}; none is left:\n{listed}\nRepair them, or choose other views.")
    return dataset.take([row for row in range(len(dataset)) if row not in bad])
