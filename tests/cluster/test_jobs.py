"""`jobs/align.py`, by hand and through Ray's Jobs API on a real local head."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from support import changed, score_bytes

import platonic_ray as pr

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]


def write_toml(study, path, **run):
    """Write the small study as a user would."""

    def table(header, values):
        return [header, *(f"{key} = {json.dumps(value)}" for key, value in values.items())]

    lines = [f'name = "{study.name}"', f"shard_rows = {study.shard_rows}"]
    lines += table("[dataset]", {"source": study.dataset.source})
    for metric in study.metrics:
        lines += table("[[metrics]]", {"name": metric.name, **metric.options})
    for model in study.models:
        lines += table("[[models]]", model.model_dump(exclude_defaults=True))
    lines += table("[null]", study.null.model_dump(exclude_defaults=True))
    lines += table("[run]", run)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_job_script_runs_by_hand_and_its_tables_open_in_polars(small_study, tmp_path):
    toml = write_toml(small_study, tmp_path / "study.toml", store="store", block_rows=256, engine="local")
    ran = subprocess.run(
        [sys.executable, "jobs/align.py", str(toml), "--out", str(tmp_path / "out"), "--quiet"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip().endswith("done")
    expected = pr.align(changed(small_study, store=str(tmp_path / "other")), quiet=True)
    assert pl.read_parquet(tmp_path / "out" / "scores.parquet").equals(expected.scores)
    assert score_bytes(pr.load(tmp_path / "out")) == score_bytes(expected)
    assert (tmp_path / "out" / "mutual_knn.png").stat().st_size > 10_000


def test_the_job_script_fails_with_the_statuses_of_the_command_line(small_study, tmp_path):
    small = small_study.replace(metrics=[{"name": "mutual_knn", "k": 600}])
    toml = write_toml(small, tmp_path / "study.toml", store="store", engine="local")
    ran = subprocess.run(
        [sys.executable, "jobs/align.py", str(toml)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert "k = 600" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stdout.strip().endswith("failed with exit status 2")


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A Ray head with its dashboard, on free ports: the address of its Jobs API."""
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    log = (tmp_path_factory.mktemp("head") / "log").open("w+")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *(f"--port={ports[0]}", f"--dashboard-port={ports[1]}", "--dashboard-host=127.0.0.1"),
            *("--num-cpus=2", "--disable-usage-stats", f"--object-store-memory={200 * 2**20}"),
        ],
        stdout=log,
        stderr=log,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
    )
    from ray.job_submission import JobSubmissionClient

    until = time.monotonic() + 60
    while True:
        try:
            client = JobSubmissionClient(f"http://127.0.0.1:{ports[1]}")
            client.list_jobs()
            break
        except (ConnectionError, RuntimeError):
            log.seek(0)
            assert time.monotonic() < until, log.read()
            time.sleep(0.5)
    yield client
    process.terminate()
    process.wait(30)
    log.close()


def test_a_submitted_job_ends_with_the_scores_of_a_run_here(head, small_study, tmp_path):
    toml = write_toml(small_study, tmp_path / "study.toml", store="store", block_rows=256)
    job = head.submit_job(
        entrypoint=f"{sys.executable} jobs/align.py {toml} --out {tmp_path / 'out'}",
        runtime_env={"working_dir": str(ROOT), "excludes": [".git", "tests", "*.parquet.tmp"]},
    )
    until = time.monotonic() + 240
    while not head.get_job_status(job).is_terminal():
        assert time.monotonic() < until, head.get_job_logs(job)
        time.sleep(1)
    logs = head.get_job_logs(job)
    assert head.get_job_info(job).driver_exit_code == 0, logs
    assert re.search(r"^done$", logs, re.MULTILINE)
    expected = pr.align(small_study, quiet=True)
    result = pr.load(tmp_path / "out")
    assert score_bytes(result) == score_bytes(expected)
    assert result.provenance["engine"].startswith("ray")


def test_a_submitted_job_that_fails_says_why_in_its_log(head, small_study, tmp_path):
    small = small_study.replace(metrics=[{"name": "mutual_knn", "k": 600}])
    toml = write_toml(small, tmp_path / "study.toml", store="store")
    job = head.submit_job(
        entrypoint=f"{sys.executable} jobs/align.py {toml}",
        runtime_env={"working_dir": str(ROOT), "excludes": [".git", "tests"]},
    )
    until = time.monotonic() + 120
    while not head.get_job_status(job).is_terminal():
        assert time.monotonic() < until
        time.sleep(0.5)
    assert head.get_job_info(job).driver_exit_code == 2
    assert "k = 600" in head.get_job_logs(job)
