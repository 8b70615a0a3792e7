"""What a store tells of its runs, and the package that a study is sent to a cluster in."""

import json
import time

import pytest
from support import changed, score_bytes

import platonic_ray as pr
from platonic_ray.cli import main
from platonic_ray.engine import embed_study
from platonic_ray.engine.events import EventLog
from platonic_ray.engine.follow import fetch_result, run_status
from platonic_ray.engine.submit import pack
from platonic_ray.errors import StoreError, StudyError
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


def test_what_is_sent_runs_where_nothing_else_of_this_machine_is(
    tiny_study, tiny_bert, samples, tmp_path, monkeypatch
):
    models = [
        *(model.model_dump() for model in tiny_study.models),
        {"name": "b", "kind": "transformers-text", "weights": str(tiny_bert), "view": "en"},
    ]
    study = changed(tiny_study.replace(models=models), store="s3://bucket/store")
    pack(study, tmp_path / "sent")
    sent = Study.from_toml(tmp_path / "sent" / "study.toml")
    for path in (sent.dataset.source, sent.models[2].weights):
        assert path.startswith(str(tmp_path / "sent"))
    here, there = (
        pr.align(changed(s, store=str(tmp_path / name)), quiet=True)
        for name, s in (("a", study), ("b", sent))
    )
    assert score_bytes(here) == score_bytes(there)
    assert (tmp_path / "sent" / "jobs" / "align.py").is_file()


def test_what_cannot_be_sent_is_refused_before_the_cluster_is_asked(tiny_study, monkeypatch, tmp_path):
    with pytest.raises(StudyError, match="--store s3://"):
        pr.submit(tiny_study)
    monkeypatch.setattr("platonic_ray.engine.submit.MOST_BYTES", 1000)
    with pytest.raises(StudyError, match="too much to send along"):
        pack(changed(tiny_study, store="s3://bucket/store"), tmp_path / "sent")
