"""What a store tells of its runs, and of what submitted jobs came to."""

import json
import time

import pytest
from support import score_bytes

import platonic_ray as pr
from platonic_ray.cli import main
from platonic_ray.engine import embed_study
from platonic_ray.engine.answers import JOB_VARIABLE
from platonic_ray.engine.events import EventLog
from platonic_ray.engine.follow import fetch_result, run_status
from platonic_ray.errors import StoreError
from platonic_ray.store import Store
from platonic_ray.study import Study


def test_a_finished_run_is_told_and_its_result_fetched_from_the_store_alone(tiny_study, capsys, tmp_path):
    result = pr.align(tiny_study, quiet=True)
    status = run_status(Store(tiny_study.run.store))
    assert (status.state, status.study, status.lost) == ("finished", "tiny", 0)
    assert status.todo["Embed"] == status.done["Embed"] == 8
    assert score_bytes(fetch_result(Store(tiny_study.run.store))) == score_bytes(result)
    assert main(["status", tiny_study.run.store]) == 0
    assert "shards of features          8 of 8" in capsys.readouterr().out
    assert main(["fetch", tiny_study.run.store, "--out", str(tmp_path / "out"), "--json"]) == 0
    assert score_bytes(pr.load(tmp_path / "out")) == score_bytes(result)


def test_a_job_gets_the_result_of_its_own_study_whatever_runs_beside_it_or_was_finished_before(
    tiny_study, tiny_undisturbed, monkeypatch
):
    other = tiny_study.replace(name="other", seed=7)
    store = Store(tiny_study.run.store)
    for job, study in (("first", tiny_study), ("second", other), ("third", tiny_study)):
        monkeypatch.setenv(JOB_VARIABLE, job)
        pr.align(study, quiet=True)
    assert len(store.runs()) == 2  # the third found everything
    assert score_bytes(fetch_result(store, job="first")) == tiny_undisturbed
    assert score_bytes(fetch_result(store, job="third")) == tiny_undisturbed
    assert score_bytes(fetch_result(store, job="second")) != tiny_undisturbed
    assert main(["fetch", tiny_study.run.store, "--job", "fourth"]) == StoreError.exit_status
    # Without a job: of the run that was started last, or of a study by its name.
    assert run_status(store).study == "other"
    assert run_status(store, study="tiny").study == "tiny"
    assert score_bytes(fetch_result(store, study="tiny")) == tiny_undisturbed
    with pytest.raises(StoreError, match="no run of a study 'third'"):
        run_status(store, study="third")


def test_features_alone_are_embedded_once_and_found_by_the_study(tiny_study, tiny_undisturbed):
    embed_study(tiny_study, quiet=True)
    store = Store(tiny_study.run.store)
    assert len(store.keys("features")) == 8
    assert not store.keys("kernels")
    embed_study(tiny_study, quiet=True)
    assert len(store.runs()) == 1
    assert score_bytes(pr.align(tiny_study, quiet=True)) == tiny_undisturbed
    assert run_status(store).todo.get("Embed", 0) == 0


def test_a_run_that_was_killed_is_told_from_one_that_lives(tmp_path, monkeypatch):
    store = Store.open(str(tmp_path))
    log = EventLog(store, "20300101T000000-aaaaaa")
    log.add("started", study="s", key="0" * 64, todo={"Embed": 3}, found={"Embed": 2})
    log.add("shard", task="embed[m, 0]", node="a")
    log.flush()
    assert run_status(store).state == "running"
    assert dict(run_status(store).done) == {"Embed": 1}
    with pytest.raises(StoreError, match="is running and has no result yet"):
        fetch_result(store)
    later = time.time() + 60
    monkeypatch.setattr("platonic_ray.engine.follow.time.time", lambda: later)
    status = run_status(store)
    assert status.state == "silent"
    assert "run the same study" in status.lines()[-1]


def test_a_driver_whose_clock_is_wrong_is_not_taken_for_a_dead_one(tmp_path):
    store = Store.open(str(tmp_path))
    started = {"event": "started", "time": time.time() - 600, "study": "s", "todo": {"Embed": 1}}
    store.append_events("20300101T000000-aaaaaa", 0, [json.dumps(started)])
    assert run_status(store).state == "running"


def test_a_store_without_runs_and_a_run_that_is_not_there_are_clear_errors(tmp_path):
    store = Store.open(str(tmp_path))
    with pytest.raises(StoreError, match="holds no run"):
        run_status(store)
    store.append_events("one", 0, [json.dumps({"event": "started", "time": 0})])
    with pytest.raises(StoreError, match="Its last: one"):
        run_status(store, "two")


def test_a_study_file_of_a_study_is_that_study(small_study):
    import tomllib

    assert Study.from_dict(tomllib.loads(small_study.to_toml())) == small_study
