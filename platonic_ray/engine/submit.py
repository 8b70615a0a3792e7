"""A study sent from here to a cluster as a job: packed with all it needs, followed, its result fetched.

The package holds this library, the study, and the files of this machine that it names (its samples, its
weights): a node of a cluster sees no other file of it. The store must be one that nodes reach.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from platonic_ray.errors import RunError, StudyError
from platonic_ray.results import Result
from platonic_ray.store import Store
from platonic_ray.study import Study

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

MOST_BYTES = 400 * 2**20
"""Ray refuses packages beyond 500 MiB."""

_PATIENCE_S = 90.0


def submit_study(
    study: Study, address: str | None = None, say: Callable[[str], None] = print, python: str = "python"
) -> Result:
    """Run a study on the cluster whose Jobs API is at `address`; return its result from the store.

    :param address: as `http://127.0.0.1:8265`; None takes $RAY_API_SERVER_ADDRESS, then $RAY_ADDRESS.
    :param say: is handed the lines of the job's log as they come.
    :param python: the interpreter's name on the cluster.
    :raises StudyError: if the study needs what the cluster cannot see.
    :raises RunError: if the cluster cannot be reached, or if the job failed; its log has said why.
    :raises StoreError: if the result cannot be read from here.
    """
    from ray.job_submission import JobStatus, JobSubmissionClient

    from platonic_ray.engine.follow import fetch_result

    store = study.run.store
    if store is None or "://" not in store:
        raise StudyError(
            f"A cluster's nodes do not see the store {store or 'in your cache'}. "
            "Give one that they and this machine reach: --store s3://bucket/store."
        )
    study = study.replace(run=study.run.model_dump() | {"engine": "ray"})
    try:
        client = JobSubmissionClient(address)
    except Exception as error:  # Ray raises whatever its transport does
        raise RunError(
            f"No Jobs API answers at {address or '$RAY_ADDRESS'}: {_first_line(error)} Is the cluster up, and its "
            "dashboard forwarded (`ray dashboard cluster.yaml`)? With token authentication export "
            "RAY_AUTH_MODE=token, and have the cluster's token in ~/.ray/auth_token."
        ) from None
    with tempfile.TemporaryDirectory() as folder:
        pack(study, Path(folder))
        job = _submitted(client, f"{python} jobs/align.py study.toml --out result", folder, study.name)
    say(f"Submitted as {job}. Ctrl-C stops following it, not the job: `ray job stop {job}` does.")

    async def follow() -> None:
        async for text in client.tail_job_logs(job):
            for line in text.splitlines():
                say(line)

    asyncio.run(follow())
    info = client.get_job_info(job)
    if info.status != JobStatus.SUCCEEDED:
        code = "" if info.driver_exit_code is None else f" (exit status {info.driver_exit_code})"
        raise RunError(
            f"The job {job} ended as {info.status}{code}: its log is above. What it finished is in {store}; "
            "submit it again to go on."
        )
    return fetch_result(Store(store))


def _submitted(client: JobSubmissionClient, entrypoint: str, folder: str, name: str) -> str:
    """Submit a job; a head that has just come up has no agent to start it yet."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return client.submit_job(
                entrypoint=entrypoint, runtime_env={"working_dir": folder}, metadata={"study": name}
            )
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > until:
                raise RunError(f"The cluster did not take the job: {_first_line(error)}") from None
            time.sleep(1)


def pack(study: Study, folder: Path) -> None:
    """Lay out in a folder what a job needs: the library, its job script, the study and its files.

    :raises StudyError: if a file is missing, or if all of them are too large to be sent.
    """
    package = Path(__file__).resolve().parent.parent
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(package, folder / "platonic_ray", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "jobs").mkdir()
    (folder / "jobs" / "align.py").write_text(_JOB)
    packed = _Packed(folder)
    dataset = study.dataset
    if _is_path(dataset.source):
        # Columns may name files beside the table: then its folder goes along.
        source = packed.add(Path(dataset.source), with_folder=bool(dataset.views))
        dataset = dataset.model_copy(update={"source": source})
    models = [
        model.model_copy(update={"weights": packed.add(Path(model.weights))})
        if model.weights is not None and not model.weights.startswith(("hub:", "pypi:"))
        else model
        for model in study.models
    ]
    (folder / "study.toml").write_text(
        study.model_copy(update={"dataset": dataset, "models": tuple(models)}).to_toml(), encoding="utf-8"
    )


_JOB = '''"""Runs the study that was sent along with it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from platonic_ray.cli import run_as_job

if __name__ == "__main__":
    run_as_job(["run", *sys.argv[1:]])
'''


class _Packed:
    """Files that go along, each under a number, so that no two collide."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count, self._bytes = folder, 0, 0

    def add(self, path: Path, *, with_folder: bool = False) -> str:
        """Copy a file or folder; return its path relative to the study."""
        if not path.exists():
            raise StudyError(f"{path} is not there: it cannot be sent along.")
        root = path.parent if with_folder and path.is_file() else path
        files = [root] if root.is_file() else [file for file in root.rglob("*") if file.is_file()]
        self._bytes += sum(file.stat().st_size for file in files)
        if self._bytes > MOST_BYTES:
            raise StudyError(
                f"The files of the study come to more than {MOST_BYTES / 2**20:.0f} MiB with {path}: too much to "
                "send along. Put them where the cluster's nodes see them, and name them there."
            )
        target = Path("files") / str(self._count) / root.name
        self._count += 1
        (self._folder / target).parent.mkdir(parents=True)
        if root.is_file():
            shutil.copy2(root, self._folder / target)
        else:
            shutil.copytree(root, self._folder / target)
        return f"./{target / path.relative_to(root)}" if root != path else f"./{target}"


def _is_path(source: str) -> bool:
    return not source.startswith("hub:") and "://" not in source and any(mark in source for mark in "./\\")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
