"""Which samples are bad, found once: kept in the store by the samples' content, so that no run decodes them again."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from platonic_ray.datasets import Dataset, Problem, decoders_of, without_bad
from platonic_ray.digest import digest
from platonic_ray.store import CorruptArtifactError, Store

_PART = "problems"


def checked(
    opened: Dataset, views: Sequence[str], on_bad_sample: str, store: Store
) -> tuple[Dataset, tuple[int, ...]]:
    """Return the dataset without samples that are bad in any of the views, and the rows left out.

    :raises DataError: as `platonic_ray.datasets.check_samples`.
    """
    problems = _problems(opened, views, store)
    return without_bad(opened, problems, on_bad_sample), tuple(sorted({bad.row for bad in problems}))


def _problems(opened: Dataset, views: Sequence[str], store: Store) -> list[Problem]:
    """Return what `Dataset.problems` does, from the store where it has been asked before."""
    made_of = {
        "version": 2,
        "fingerprint": opened.fingerprint(views),
        "decoders": decoders_of({opened.kind(view) for view in views}),
    }
    key = digest({"kind": "checks", **made_of})
    manifest = store.manifest("checks", key)
    if manifest is not None:
        try:
            rows = store.read(manifest, _PART).to_pylist() if _PART in manifest.parts else []
            return [Problem(row["row"], opened.ids[row["row"]], row["view"], row["reason"]) for row in rows]
        except CorruptArtifactError:
            store.discard("checks", key)
    problems = opened.problems(views)
    if not all(bad.lasting for bad in problems):
        return problems  # the fingerprint says nothing of files that could not be read this time
    parts = {_PART: _table(problems)} if problems else {}
    store.put("checks", key, parts, {"views": list(views), "samples": len(opened)})
    return problems


def _table(problems: Sequence[Problem]) -> pa.Table:
    return pa.table(
        {
            "row": pa.array([bad.row for bad in problems], pa.int64()),
            "view": pa.array([bad.view for bad in problems], pa.large_string()),
            "reason": pa.array([bad.reason for bad in problems], pa.large_string()),
        }
    )
