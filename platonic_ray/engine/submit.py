"""A study sent from here to a cluster as a job, followed to its end, and its result fetched from the store.

What is sent stands in `package`. The job goes on by itself: whatever happens to the connection, or to this
process, changes nothing of it. The store must be one that nodes reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import re
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

from platonic_ray.engine.answers import JOB_VARIABLE
from platonic_ray.engine.package import pack
from platonic_ray.errors import (
    DataError,
    PlatonicRayError,
    RunError,
    StoppedError,
    StoreError,
    StudyError,
    WeightsError,
)
from platonic_ray.results import Result
from platonic_ray.store import Store
from platonic_ray.study import Study

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

_PATIENCE_S = 90.0
_LOOK_S = 60.0
_AWAY_S = 1800.0
_LONGEST_PAUSE_S = 10.0
_ENDED_AS: dict[int | None, type[PlatonicRayError]] = {
    error.exit_status: error
    for error in (PlatonicRayError, StudyError, DataError, WeightsError, StoreError, RunError, StoppedError)
}


def submit_study(
    study: Study, address: str | None = None, say: Callable[[str], None] = print, python: str = "python"
) -> Result:
    """Run a study on the cluster whose Jobs API is at `address`; return its result from the store.

    :param address: as `http://127.0.0.1:8265`; None takes $RAY_API_SERVER_ADDRESS, then $RAY_ADDRESS.
    :param say: is handed the lines of the job's log as they come.
    :param python: the interpreter's name on the cluster.
    :raises StudyError: if the study needs what the cluster cannot see.
    :raises PlatonicRayError: of the class that the job ended with, if it failed; its log has said why.
    :raises StoppedError: if the job was stopped.
    :raises RunError: if the cluster cannot be reached, or is not for half an hour while the job is followed.
    :raises StoreError: if the store cannot be opened, or the result cannot be read from here.
    :raises KeyboardInterrupt: saying how the job, which goes on, is followed and stopped.
    """
    from ray.job_submission import JobStatus, JobSubmissionClient

    from platonic_ray.engine.follow import fetch_result

    uri = study.run.store
    if uri is None or "://" not in uri:
        raise StudyError(
            f"A cluster's nodes do not see the store {uri or 'in your cache'}. "
            "Give one that they and this machine reach: --store s3://bucket/store."
        )
    store = Store(uri)
    study = study.replace(run=study.run.model_dump() | {"engine": "ray"})
    try:
        client = JobSubmissionClient(address)
    except Exception as error:  # Ray raises whatever its transport does
        raise RunError(
            f"No Jobs API answers at {address or '$RAY_ADDRESS'}: {_first_line(error)} Is the cluster up, and its "
            "dashboard forwarded (`ray dashboard cluster.yaml`)? With token authentication export "
            "RAY_AUTH_MODE=token, and have the cluster's token in ~/.ray/auth_token."
        ) from None
    job = f"{study.name}-{uuid.uuid4().hex[:12]}"
    at = f"--address {address} {job}" if address else job
    ways = (
        f"Its log: `ray job logs --follow {at}`. To stop it: `ray job stop {at}`. Its result, when it has ended: "
        f"`platonic-ray fetch {uri} --job {job}`."
    )
    sent = False
    try:
        with tempfile.TemporaryDirectory() as folder:
            pack(study, Path(folder))
            _send(client, job, f"{python} jobs/align.py study.toml --out result", folder, study.name)
            sent = True
        say(f"Submitted as {job}. Ctrl-C stops following it, not the job: `ray job stop {at}` does.")
        info = _followed(client, job, say)
    except KeyboardInterrupt:
        if not sent:
            raise KeyboardInterrupt(
                f"Interrupted while the study was sent: `ray job list` says whether {job} is there."
            ) from None
        raise KeyboardInterrupt(f"No longer following {job}, which goes on. {ways}") from None
    except _AwayError as error:
        raise RunError(f"{error} The job {job} may go on without it. {ways}") from None
    if info.status == JobStatus.SUCCEEDED:
        return fetch_result(store, job=job)
    code, why = info.driver_exit_code, f"exit status {info.driver_exit_code}"
    if info.status == JobStatus.STOPPED:
        code, why = StoppedError.exit_status, "it was told to"
    elif code is None:
        why = _first_line(info.message or "it did not begin")
    raise _ENDED_AS.get(code, RunError)(
        f"The job {job} ended as {info.status.value} ({why}): its log is above. What it finished is in {uri}; "
        "submit it again to go on."
    )


def _send(client: JobSubmissionClient, job: str, entrypoint: str, folder: str, name: str) -> None:
    """Submit a job; a head that has just come up has no agent to start it yet."""
    until = time.monotonic() + _PATIENCE_S
    environment = {"working_dir": folder, "env_vars": {JOB_VARIABLE: job}}
    while True:
        try:
            client.submit_job(
                entrypoint=entrypoint, submission_id=job, runtime_env=environment, metadata={"study": name}
            )
            return
        except Exception as error:
            if "No available agent" not in str(error) or time.monotonic() > until:
                raise RunError(f"The cluster did not take the job: {_first_line(error)}") from None
            time.sleep(1)


class _AwayError(Exception):
    """Nothing has been heard of the cluster for too long."""


def _followed(client: JobSubmissionClient, job: str, say: Callable[[str], None]) -> JobDetails:
    """Hand on a job's log, each line once, until the job has ended; return how it did.

    A connection that is cut, closed early, or silent for a minute is made again: a laptop sleeps, a tunnel drops,
    and whoever forwarded it may say nothing of that.
    """
    lines, heard, pause = _Lines(say), time.monotonic(), 1.0
    while True:
        lines.begin_again()
        with contextlib.closing(_pieces(client, job)) as pieces:
            while (piece := _next(pieces)) is not None:
                lines.add(piece)
        info = _info(client, job)
        if info is not None and info.status.is_terminal():
            lines.begin_again()
            with contextlib.suppress(RuntimeError, OSError):  # what it says is known, but for the last lines
                lines.add(client.get_job_logs(job))
            lines.end()
            return info
        if info is not None:
            heard, pause = time.monotonic(), 1.0
        elif time.monotonic() - heard > _AWAY_S:
            raise _AwayError(f"The cluster has not answered for {_AWAY_S / 60:.0f} minutes.")
        elif pause == 1.0:
            say("The connection to the cluster is lost; the job goes on. Trying to reach it again.")
        time.sleep(pause)
        pause = pause if info is not None else min(2 * pause, _LONGEST_PAUSE_S)


def _next(pieces: Generator[str | None]) -> str | None:
    """Return the next piece; None where the connection ended, was lost, or was silent."""
    with contextlib.suppress(ConnectionError):
        return next(pieces, None)
    return None


class _Lines:
    """A log that is read from its beginning each time, of which each line is handed on once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._line = say, ""
        self._known = self._read = 0

    def begin_again(self) -> None:
        self._read = 0

    def add(self, piece: str) -> None:
        new = piece[max(0, self._known - self._read) :]
        self._read += len(piece)
        self._known = max(self._known, self._read)
        *whole, self._line = (self._line + new).split("\n")
        for line in whole:
            self._say(line)

    def end(self) -> None:
        if self._line:
            self._say(self._line)


def _pieces(client: JobSubmissionClient, job: str) -> Generator[str | None]:
    """Yield the pieces of a job's log, from its beginning, as they come; None when there is none for a minute.

    Read by a thread of its own: where this one runs an event loop already, as in a notebook, it can run no other.

    :raises ConnectionError: if the connection is lost.
    """
    came: queue.SimpleQueue[str | Exception | None] = queue.SimpleQueue()

    async def read() -> None:
        try:
            async for piece in client.tail_job_logs(job):
                came.put(piece)
            came.put(None)
        except Exception as error:  # Ray raises whatever its transport does
            came.put(error)

    loop = asyncio.new_event_loop()
    reading = loop.create_task(read())

    def run() -> None:
        with contextlib.closing(loop), contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(reading)

    thread = threading.Thread(target=run, name=f"log of {job}", daemon=True)
    thread.start()
    try:
        while True:
            try:
                piece = came.get(timeout=_LOOK_S)
            except queue.Empty:
                yield None
                continue
            if isinstance(piece, Exception):
                raise ConnectionError(str(piece)) from None
            if piece is None:
                return
            yield piece
    finally:
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(reading.cancel)
        thread.join(timeout=5)


def _info(client: JobSubmissionClient, job: str) -> JobDetails | None:
    """Return what the cluster says of a job, or None if it does not answer.

    :raises RunError: if it answers that it knows no such job, or that we may not ask.
    """
    try:
        return client.get_job_info(job)
    except Exception as error:  # Ray raises whatever its transport does
        if re.search(r"status code 40[134]|Unauthorized|Forbidden", str(error)):
            raise RunError(f"The cluster no longer tells of the job {job}: {_first_line(error)}") from None
        return None


def _first_line(error: BaseException | str) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "" if isinstance(error, str) else type(error).__name__
