"""What ends, stalls or starves a process of a run, and what the run makes of it. Every process is a real one."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from processes import with_tests
from ray._raylet import GcsClient
from ray.core.generated import autoscaler_pb2
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from support import changed, committed, dense_features, events_of, score_bytes

import platonic_ray as pr
from platonic_ray.engine import attempts, replica, watching
from platonic_ray.errors import DataError, RunError
from platonic_ray.plan import calls as plan_calls

pytestmark = pytest.mark.cluster

WORDS = ("red", "green", "blue", "grey")


def study_of(folder, orders=(), models=1, order="", **run):
    """120 texts in 4 shards, some of them orders; models that obey them, and one that does not."""
    texts = [f"{WORDS[row % 4]} {WORDS[row // 4 % 4]} {row}" for row in range(120)]
    # Each view its own texts: features of the same texts would be the same artifacts.
    views = {f"text{model}": [f"{text} {model}" for text in texts] for model in range(models)}
    for view, row, text in orders:
        views[view][row] = text
    folder.mkdir(exist_ok=True)
    pq.write_table(
        pa.table({"id": [f"row{row}" for row in range(120)], "plain": texts, **views}), folder / "s.parquet"
    )
    obeying = [
        {"name": view, "kind": "module", "weights": "faulty:build", "view": view, "layers": ["table"]}
        for view in views
    ]
    return pr.Study.from_dict(
        {
            "name": "losses",
            "shard_rows": 30,
            "dataset": {"source": str(folder / "s.parquet")},
            "models": [*obeying, {"name": "tfidf", "use": "char-tfidf", "view": "plain"}],
            "metrics": [{"name": "faulty:SHARED", "order": order}, {"name": "cka"}],
            "null": {"permutations": 0},
            "run": {"engine": "ray", "store": str(folder / "store"), **run},
        }
    )


def lost(study):
    return [event for event in events_of(study) if event["event"] == "lost"]


def shards_of(study, model):
    events = events_of(study)
    return [e for e in events if e["event"] == "shard" and e["task"].startswith(f"embed[{model}")]


def in_this_process(study, folder, markers):
    """The scores of a study whose orders have all been obeyed."""
    for marker in markers:
        Path(marker).touch()
    return score_bytes(pr.align(changed(study, engine="local", store=str(folder / "here")), quiet=True))


def test_a_model_and_a_task_that_are_killed_once_are_replaced(cluster, tmp_path, calls):
    markers = [str(tmp_path / name) for name in ("model", "task")]
    study = study_of(tmp_path / "s", [("text0", 70, f"kill {markers[0]}")], order=f"kill {markers[1]}")
    result = pr.align(study, quiet=True)
    assert {(event["what"].partition("[")[0], event["loss"]) for event in lost(study)} == {
        ("embed", "worker"),
        ("score", "worker"),
    }
    of_shard = next(event for event in lost(study) if event["what"].startswith("embed["))
    assert (of_shard["model"], of_shard["shard"]) == ("text0", 2)
    assert score_bytes(result) == in_this_process(study, tmp_path, markers)
    # What was done twice is what the lost process had in hand, and no more.
    assert [(e["shard"], e["attempt"], e.get("found", False)) for e in shards_of(study, "text0")] == [
        *[(0, 1, False), (1, 1, True), (3, 1, False), (2, 2, False)]
    ]
    assert [shards for model, shards in calls if model == 0] == [[0], [1, 2, 3], [1, 3], [2]]
    assert events_of(study)[-1]["summary"]["losses"] == {"worker": 2}


def test_short_shards_go_to_a_model_in_one_call_and_come_as_the_same_bytes(cluster, tmp_path, calls):
    study = study_of(tmp_path / "s")
    result = pr.align(study, quiet=True)
    assert sorted(calls) == [(0, [0]), (0, [1, 2, 3]), (1, [0]), (1, [1, 2, 3])]
    for model in ("text0", "tfidf"):  # one after another, each with its own times
        ends = [(event["start"], event["end"]) for event in shards_of(study, model)]
        assert all(start < end for start, end in ends)
        assert [time for both in ends for time in both] == sorted(time for both in ends for time in both)
    (driver,) = [event for event in events_of(study) if event["event"] == "driver"]
    assert driver["fetched_bytes"] > 0
    assert score_bytes(result) == in_this_process(study, tmp_path, [])


def test_a_call_that_takes_long_ends_early_and_what_is_left_of_it_is_done_later(
    cluster, tmp_path, calls, monkeypatch
):
    monkeypatch.setattr(replica, "CALL_S", 0.0)
    study = study_of(tmp_path / "s")
    result = pr.align(study, quiet=True)
    assert [shards for model, shards in calls if model == 0] == [[0], [1, 2, 3], [2, 3], [3]]
    assert not lost(study)
    assert score_bytes(result) == in_this_process(study, tmp_path, [])


def test_a_sample_that_kills_every_process_is_named_and_the_rest_is_finished(cluster, tmp_path, calls):
    study = study_of(tmp_path / "s", [("text0", 37, "kill always")])
    with pytest.raises(
        DataError, match=r"Sample 'row37' ends the process of model 'text0' every time \(3 tries"
    ):
        pr.align(study, quiet=True)
    assert [shards for model, shards in calls if model == 0] == [[0], [1, 2, 3], [2, 3], [1], [1]]
    assert [event["shard"] for event in lost(study)] == [1, 1, 1]
    assert len(shards_of(study, "text0")) == 3
    assert len(committed(study, "features")) == 7
    assert len(committed(study, "neighbors")) == 1  # of the model that has all its shards
    assert events_of(study)[-1]["event"] == "stopped"


def test_an_error_of_the_data_reaches_the_caller_and_keeps_what_was_finished(cluster, tmp_path):
    marker = str(tmp_path / "mended")
    study = study_of(tmp_path / "s", [("text0", 70, f"spoil {marker}")])
    with pytest.raises(DataError, match=r"Model 'text0', layer 'table': .*'row70'"):
        pr.align(study, quiet=True)
    assert events_of(study)[-1]["event"] == "stopped"
    kept = committed(study, "features")
    assert kept
    expected = in_this_process(study, tmp_path, [marker])
    assert score_bytes(pr.align(study, quiet=True)) == expected
    assert kept <= committed(study, "features")
    assert events_of(study)[0]["found"]["Embed"] >= len(kept)


def test_a_metric_that_workers_cannot_import_ends_the_run_at_once(cluster, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("from faulty import SHARED")
    monkeypatch.syspath_prepend(tmp_path)
    study = study_of(tmp_path / "s").replace(metrics=[{"name": "only_here:SHARED"}])
    with pytest.raises(
        RunError, match=r"^A model's process cannot begin\. The metric 'only_here:SHARED' cannot be"
    ):
        pr.align(study, quiet=True)
    assert not lost(study)


@pytest.mark.slow
def test_what_runs_out_of_memory_is_tried_in_smaller_batches_and_says_so(cluster, tmp_path):
    study = study_of(tmp_path / "s", [("text0", 3, "few 8")])
    result = pr.align(study, quiet=True)
    assert [event["loss"] for event in lost(study)] == ["memory", "memory"]  # 30 at a time, then 16
    (note,) = [note for note in result.provenance["notes"] if "smaller batches" in note]
    assert note.startswith("text0: 4 of 4 shards")
    whole = study_of(tmp_path / "whole", [("text0", 3, "few 99")])
    pr.align(changed(whole, engine="local"), quiet=True)
    for mine, other in zip(dense_features(study)["text0"], dense_features(whole)["text0"], strict=True):
        np.testing.assert_allclose(np.delete(mine, 3, 0), np.delete(other, 3, 0), rtol=1e-6)


@pytest.mark.slow
def test_what_never_fits_into_memory_is_given_up_after_three_tries(cluster, tmp_path):
    study = study_of(tmp_path / "s", [("text0", 3, "few 0")])
    with pytest.raises(RunError, match=r"embed\[text0, 0\] was lost 3 times.*too little memory"):
        pr.align(study, quiet=True)
    assert len(shards_of(study, "tfidf")) == 4


def test_a_shard_and_a_task_that_stall_are_done_elsewhere(cluster, tmp_path, monkeypatch, calls):
    monkeypatch.setattr(attempts, "STRAGGLER_S", 3.0)
    markers = [str(tmp_path / name) for name in ("shard", "task")]
    # The first shard has told how long one takes when the second stalls; so have two of three scores.
    study = study_of(tmp_path / "s", [("text0", 31, f"stall {markers[0]}")], order=f"stall {markers[1]}")
    result = pr.align(study, quiet=True)  # either would have taken an hour
    assert all(Path(marker).exists() for marker in markers)
    assert not lost(study)
    assert (0, [1, 2, 3]) in calls  # of which the first stalls, and all are done elsewhere
    assert len(shards_of(study, "text0")) == 4
    late = {event["task"].partition("[")[0] for event in events_of(study) if event["event"] == "late"}
    assert late >= {"embed", "score"}  # on a busy machine others may be, too
    assert score_bytes(result) == in_this_process(study, tmp_path, markers)


@pytest.mark.slow
def test_a_node_that_joins_takes_work_and_one_that_is_drained_gets_no_more(cluster, tmp_path, monkeypatch):
    """Two models hold both cores until the third is embedded; half of it, then its node is told to go."""
    monkeypatch.setattr(watching, "_LOOK_S", 0.0)
    monkeypatch.setattr(plan_calls, "CALL_S", 0.0)  # shard by shard
    monkeypatch.setenv("PYTHONPATH", with_tests()["PYTHONPATH"])  # of the node that joins
    others, rest = str(tmp_path / "others"), str(tmp_path / "rest")
    orders = [("text0", 0, f"wait {others}"), ("text1", 0, f"wait {others}"), ("text2", 30, f"wait {rest}")]
    study = study_of(tmp_path / "s", orders, models=3)

    @ray.remote(num_cpus=0.5)
    class Block:
        def ready(self):
            return True

    joined, blocks = None, []
    for node in cluster.worker_nodes:  # the half of each core that the two leave
        pinned = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        blocks.append(Block.options(scheduling_strategy=pinned).remote())
    ray.get([block.ready.remote() for block in blocks])
    with ThreadPoolExecutor(1) as other_thread:  # nodes are added by the main one
        running = other_thread.submit(pr.align, study, quiet=True)
        try:
            until(lambda: loaded(study, 2), running)
            joined = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
            until(lambda: loaded(study, 3), running)
            for block in blocks:
                ray.kill(block)
            until(lambda: len(shards_of(study, "text2")) == 1, running)
            accepted, why = GcsClient(address=cluster.address).drain_node(
                joined.node_id,
                autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
                "a spot notice",
                int((time.time() + 600) * 1000),
            )
            assert accepted, why
            Path(rest).touch()
            until(lambda: len(shards_of(study, "text2")) == 2, running)
        finally:
            Path(rest).touch()
            Path(others).touch()
            result = running.result()
            if joined is not None:
                cluster.remove_node(joined)
    nodes = {event["task"]: event["node"] for event in shards_of(study, "text2")}
    there = joined.node_id[:8]
    assert [nodes[f"embed[text2, {shard}]"] == there for shard in range(4)] == [True, True, False, False]
    assert score_bytes(result) == in_this_process(study, tmp_path, [])


def test_tiles_are_made_while_a_shard_of_another_model_is_still_being_embedded(cluster, tmp_path):
    rest = tmp_path / "rest"
    study = study_of(tmp_path / "s", [("text0", 110, f"wait {rest}")])
    with ThreadPoolExecutor(1) as other_thread:
        running = other_thread.submit(pr.align, study, quiet=True)
        try:
            until(lambda: [e for e in events_of(study) if e["event"] == "NeighborTile"], running)
            embedded = len(shards_of(study, "text0"))
        finally:
            rest.touch()
            result = running.result()
    assert embedded < 4
    assert score_bytes(result) == in_this_process(study, tmp_path, [])


def loaded(study, count):
    events = [event for event in events_of(study) if event["event"] == "model_loaded"]
    return events if len(events) >= count else None


def until(condition, running):
    """Wait for what the log of a run says; there may be no log yet."""
    while not running.done():
        try:
            if found := condition():
                return found
        except (IndexError, FileNotFoundError):
            pass
        time.sleep(0.05)
    raise AssertionError(f"the run ended before that: {running.exception()}")
