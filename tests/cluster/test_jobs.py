"""`jobs/align.py`, by hand and through Ray's Jobs API on a real local head."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cut_connections import CutConnections
from processes import PATIENCE_S, end, free_ports, wait_until
from ray.job_submission import JobSubmissionClient
from support import changed, make_owned_study, score_bytes

import platonic_ray as pr
from platonic_ray.engine import submit
from platonic_ray.store import Store

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


@pytest.mark.slow
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


def test_the_job_script_fails_with_the_statuses_of_the_command_line(tiny_study, tmp_path):
    refused = tiny_study.replace(metrics=[{"name": "mutual_knn", "k": 600}])
    toml = write_toml(refused, tmp_path / "study.toml", store="store", engine="local")
    ran = subprocess.run(
        [sys.executable, "jobs/align.py", str(toml)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert "k = 600" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stdout.strip().endswith("failed with exit status 2")


@pytest.fixture(scope="module")
def head(tmp_path_factory, object_store):
    """A Ray head with its dashboard, on free ports, that asks for a token: its Jobs API and an environment."""
    ports = free_ports(3)
    # A job joins the cluster that was started last in its head's folder: another head's must not be it.
    folder = tempfile.mkdtemp(prefix="ray-")  # short, for the names of sockets
    token = f"planted-{uuid.uuid4().hex}"
    # A busy machine may need longer to end a job than the three seconds that Ray gives it.
    environment = {
        **os.environ,
        **{"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_JOB_STOP_WAIT_TIME_S": "180"},
    }
    log = (tmp_path_factory.mktemp("head") / "log").open("w+")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *(f"--port={ports[0]}", f"--dashboard-port={ports[1]}", "--dashboard-host=127.0.0.1"),
            f"--dashboard-agent-listen-port={ports[2]}",  # its default may be another head's
            f"--temp-dir={folder}",
            *("--num-cpus=2", "--disable-usage-stats", f"--object-store-memory={200 * 2**20}"),
        ],
        stdout=log,
        stderr=log,
        env=environment,
    )
    address = f"http://127.0.0.1:{ports[1]}"

    def answers():
        log.seek(0)
        assert process.poll() is None, log.read()
        try:
            client_of((address, environment)).list_jobs()
        except (ConnectionError, RuntimeError):
            return False
        return True

    wait_until(answers, log.read, every_s=0.2)
    yield address, environment
    end(process)
    log.close()
    shutil.rmtree(folder, ignore_errors=True)


def ray_job(address, environment, verb, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "job", verb, "--address", address, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def client_of(head):
    address, environment = head
    return JobSubmissionClient(address, headers={"Authorization": f"Bearer {environment['RAY_AUTH_TOKEN']}"})


def submitted(head, toml, *options, python=sys.executable):
    address, environment = head
    return subprocess.run(
        [
            *(sys.executable, "-m", "platonic_ray.cli", "submit", str(toml), "--address", address),
            *("--python", python, *options),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_study_sent_from_here_comes_back_as_the_result_of_a_run_here(
    head, object_store, tmp_path, monkeypatch
):
    """With its tables, images, network and metric, and over a connection that is cut and closed early."""
    address, environment = head
    study = make_owned_study(tmp_path / "own")
    code = str(tmp_path / "own" / "code")
    toml, store, out = tmp_path / "study.toml", object_store.new_uri(), tmp_path / "out"
    toml.write_text(study.to_toml())
    with CutConnections(address, "/logs/tail", "cut", "closed") as cut:
        through = cut.address, {**environment, "PYTHONPATH": code}
        ran = submitted(through, toml, "--store", store, "--out", str(out))
        assert ran.returncode == 0, ran.stderr
        assert cut.done == ["cut", "closed"]
    (job,) = re.findall(r"^Submitted as (\S+)\.", ran.stderr, re.MULTILINE)
    log = client_of(head).get_job_logs(job).splitlines()
    followed = [line for line in ran.stderr.splitlines() if not re.search(r"INFO \w*sdk\.py", line)]
    begin = followed.index(log[0])
    assert followed[begin : begin + len(log)] == log  # each line once, whatever was cut
    assert log[-1] == "done"
    result = pr.load(out)
    monkeypatch.syspath_prepend(code)
    here = pr.align(changed(study, engine="local", store=str(tmp_path / "here")), quiet=True)
    assert score_bytes(result) == score_bytes(here)
    assert result.provenance["engine"].startswith("ray")
    # What was planted as a secret is nowhere: not in what was printed, the store, or the result.
    kept = [object_store.files.open_input_file(p).readall() for p in object_store.files_below(store)]
    kept += [path.read_bytes() for path in out.iterdir()]
    for secret in (object_store.environment["AWS_SECRET_ACCESS_KEY"], head[1]["RAY_AUTH_TOKEN"]):
        assert secret not in ran.stdout + ran.stderr
        assert not any(secret.encode() in content for content in kept)


def test_a_job_without_the_token_is_refused(head, tiny_study, tmp_path):
    toml = tmp_path / "study.toml"
    toml.write_text(tiny_study.to_toml())
    address, environment = head
    wrong = {**environment, "RAY_AUTH_TOKEN": "x" * 52}
    for refused in ({**environment, "RAY_AUTH_MODE": "disabled"}, wrong):
        ran = submitted((address, refused), toml, "--store", "s3://bucket/store")
        assert ran.returncode == 6, ran.stderr
        assert "RAY_AUTH_MODE=token" in ran.stderr
        assert "Traceback" not in ran.stderr


def test_a_job_that_fails_says_why_and_its_exit_status_is_that_of_submit(
    head, object_store, tiny_study, tmp_path
):
    """From a notebook's cell, where an event loop runs already."""
    address, environment = head
    toml = tmp_path / "study.toml"
    refused = tiny_study.replace(metrics=[{"name": "mutual_knn", "k": 600}])
    toml.write_text(changed(refused, store=object_store.new_uri()).to_toml())
    cell = textwrap.dedent(
        """
        import asyncio, sys
        import platonic_ray as pr

        async def cell():
            try:
                pr.submit(sys.argv[1], sys.argv[2], python=sys.executable)
            except pr.errors.StudyError as error:
                print(f"{error.exit_status}: {error}")

        asyncio.run(cell())
        """
    )
    ran = subprocess.run(
        [sys.executable, "-c", cell, str(toml), address],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "k = 600" in ran.stdout
    assert re.search(r"^2: The job \S+ ended as FAILED \(exit status 2\)", ran.stdout, re.MULTILINE)


def test_ctrl_c_ends_the_following_and_says_how_the_job_is_followed_and_stopped(
    head, object_store, tiny_study, tmp_path
):
    address, environment = head
    toml = tmp_path / "study.toml"
    toml.write_text(tiny_study.to_toml())
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "platonic_ray.cli", "submit", str(toml), "--address", address),
            *("--python", sys.executable, "--store", object_store.new_uri()),
        ],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    (job,) = next(
        found for line in process.stderr if (found := re.findall(r"^Submitted as (\S+)\. Ctrl-C", line))
    )
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, said
    assert f"No longer following {job}, which goes on" in said
    assert f"ray job stop --address {address} {job}" in said
    assert "same command" not in said
    stopped = ray_job(address, environment, "stop", "--no-wait", job)
    assert stopped.returncode == 0, stopped.stderr


def write_stalling_study(folder):
    """A study of two shards, the second of which never ends; where its model says that it has come to it."""
    stalls = folder / "stalls"
    texts = [f"text {row}" for row in range(59)] + [f"stall {stalls}"]
    pq.write_table(pa.table({"id": [str(row) for row in range(60)], "en": texts}), folder / "s.parquet")
    study = pr.Study.from_dict(
        {
            "shard_rows": 30,
            "dataset": {"source": str(folder / "s.parquet")},
            "models": [{"name": "stalls", "kind": "module", "weights": "faulty:build", "view": "en"}],
            "null": {"permutations": 0},
        }
    )
    (folder / "study.toml").write_text(study.to_toml())
    return folder / "study.toml", stalls


def test_ray_job_stop_ends_a_job_with_what_it_finished_kept(head, object_store, tmp_path, monkeypatch):
    """`jobs/align.py` of this folder, sent by Ray's own client, as docs/cluster.md says; followed meanwhile over a
    connection that falls silent.
    """
    monkeypatch.setattr(submit, "_LOOK_S", 2.0)
    address, environment = head
    toml, stalls = write_stalling_study(tmp_path)
    store = Store(object_store.new_uri())
    client = client_of(head)
    job = client.submit_job(
        entrypoint=f"{sys.executable} jobs/align.py {toml} --store {store.uri}",
        runtime_env={
            "working_dir": str(ROOT),
            "excludes": [".git", ".venv", ".*_cache", "docs", "tests"],
            "env_vars": {"PYTHONPATH": str(ROOT / "tests")},
        },
    )
    said: list[str] = []
    with CutConnections(address, "/logs/tail", "silent") as cut, ThreadPoolExecutor(1) as beside:
        through = JobSubmissionClient(
            cut.address, headers={"Authorization": f"Bearer {environment['RAY_AUTH_TOKEN']}"}
        )
        following = beside.submit(submit._followed, through, job, said.append)
        wait_until(
            lambda: stalls.exists() and store.keys("features"), lambda: client.get_job_logs(job), every_s=0.1
        )
        ran = ray_job(address, environment, "stop", job)
        assert following.result(timeout=PATIENCE_S).status == "STOPPED"
        assert cut.done == ["silent"]
    assert said == client.get_job_logs(job).splitlines()
    assert ran.returncode == 0, ran.stderr
    assert client.get_job_status(job) == "STOPPED"
    assert client.get_job_logs(job).strip().endswith("stopped: submit the same job again to go on")
    last = store.events(store.runs()[-1])[-1]
    assert (last["event"], last["error"]) == ("stopped", "KeyboardInterrupt")
    assert len(store.keys("features")) == 1


def job_of_this_folder(head, *command):
    """What `ray job submit --working-dir . -- python …` prints of a job that succeeds."""
    address, environment = head
    ran = ray_job(
        *(address, environment, "submit", "--working-dir", "."),
        *("--runtime-env-json", json.dumps({"excludes": [".git", ".venv", ".*_cache", "tests", "docs"]})),
        *("--", sys.executable, *command),
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "\ndone\n" in ran.stdout
    return ran.stdout


@pytest.mark.slow
def test_features_alone_as_a_job_of_this_folder(head, object_store, tiny_study, tmp_path):
    toml = tmp_path / "study.toml"
    toml.write_text(tiny_study.to_toml())
    store = object_store.new_uri()
    job_of_this_folder(head, "jobs/embed.py", str(toml), "--store", store)
    assert len(Store(store).keys("features")) == 8


@pytest.mark.slow
def test_a_benchmark_as_a_job_of_this_folder(head):
    said = job_of_this_folder(
        head, "jobs/benchmark.py", "scorer", *("--samples", "40", "--references", "1", "--repeats", "1")
    )
    assert json.loads(re.search(r"^\{.*^\}", said, re.MULTILINE | re.DOTALL)[0])


@pytest.mark.parametrize("job", ["align", pytest.param("embed", marks=pytest.mark.slow)])
def test_a_job_that_is_told_to_end_does_so_soon_and_says_how_to_go_on(tmp_path, job):
    toml, stalls = write_stalling_study(tmp_path)
    store = Store(str(tmp_path / "store"))
    process = subprocess.Popen(
        [sys.executable, f"jobs/{job}.py", str(toml), "--store", store.uri, "--engine", "ray", "--quiet"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: stalls.exists() and store.keys("features"))
    sent = time.time()
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, errors
    assert said.strip().endswith("stopped: submit the same job again to go on")
    assert "Traceback" not in errors
    last = store.events(store.runs()[-1])[-1]
    assert (last["event"], last["error"]) == ("stopped", "KeyboardInterrupt")
    print(f"{job}: the log says so {last['time'] - sent:.2f} s after SIGTERM")
    # Meant to be within two seconds, on a machine that does nothing else. A spot machine is given half a minute.
    assert last["time"] - sent < 30
