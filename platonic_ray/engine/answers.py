"""Which result a submitted job came to, kept in its store under the job's name: for who sent it, from anywhere.

A store is shared, and a study that was finished before leaves no log: of the runs in a store none tells
whose result it was.
"""

from __future__ import annotations

import os

from platonic_ray.digest import digest
from platonic_ray.store import Store

JOB_VARIABLE = "PLATONIC_RAY_JOB"
"""In the environment of a submitted job: its name."""


def answer_job(store: Store, result: str) -> None:
    """Note the key of the result that this job came to, if this process is one that was submitted."""
    job = os.environ.get(JOB_VARIABLE)
    if job:
        store.put("jobs", _key(job), {}, {"job": job, "result": result})


def answer_of(store: Store, job: str) -> str | None:
    """Return the key of the result that a job came to, or None if it came to none yet."""
    manifest = store.manifest("jobs", _key(job))
    return None if manifest is None else str(manifest.meta["result"])


def _key(job: str) -> str:
    return digest({"kind": "jobs", "job": job})
