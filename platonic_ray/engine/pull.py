"""Taking what a study needs from another store: a colleague's, or a cluster's, onto this machine."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from platonic_ray.engine.prepare import prepare
from platonic_ray.engine.run import default_store
from platonic_ray.errors import StoreError
from platonic_ray.store import Store
from platonic_ray.study import Study


@dataclass(frozen=True)
class Pulled:
    """What was copied, by kind of artifact; how many were here already, and how many are nowhere."""

    copied: dict[str, int]
    size_bytes: int
    here: int
    missing: int


def pull_study(study: Study, source: str) -> Pulled:
    """Copy to a study's store what another store has of it; the next run computes the rest.

    Everything is addressed by its content, so what has the key is what would be computed; every part is
    checked against its sha256 on the way. The other store is only read.

    :raises StoreError: if the other is no store, or a file in it is damaged.
    """
    other = Store(source)
    if not other.exists():
        raise StoreError(f"There is no platonic_ray store at {source}.")
    store = Store.open(default_store() if study.run.store is None else study.run.store)
    plans = [part.context.plan for part in prepare(study, store).parts]
    copied: Counter[str] = Counter()
    size = here = missing = 0
    artifacts = dict.fromkeys(
        artifact for plan in plans for task in plan.prerequisites for artifact in plan.artifacts(task)
    )
    for kind, key in artifacts:
        if store.manifest(kind, key) is not None:
            here += 1
            continue
        manifest = other.manifest(kind, key)
        if manifest is None:
            missing += 1
            continue
        draft = store.draft(kind, key)
        for part in manifest.parts:
            draft.add(part, other.read(manifest, part))
        size += draft.commit(manifest.meta).size_bytes
        copied[kind] += 1
    return Pulled(dict(copied), size, here, missing)
