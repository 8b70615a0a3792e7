"""What a run adds up to: shares of time, node-seconds, cost; and clocks that differ."""

import time

import pytest

from platonic_ray.engine.events import EventLog
from platonic_ray.engine.follow import run_status
from platonic_ray.engine.summary import Summary
from platonic_ray.store import Store
from platonic_ray.study import RunEntry


def of(*events):
    summary = Summary(reused=3)
    for event, facts in events:
        summary.add(event, facts)
    return summary


def test_shares_of_the_cores_seconds_add_up_and_name_what_is_not_arithmetic():
    summary = of(
        ("model_loaded", {"start": 0.0, "end": 10.0}),
        ("shard", {"start": 10.0, "end": 30.0, "cpu_s": 15.0, "bytes_out": 100}),
        ("NeighborTile", {"start": 30.0, "end": 40.0, "cpu_s": 4.0, "store_s": 3.0, "bytes_from_store": 7}),
    )
    summary.core_s = 100.0
    assert summary.shares == pytest.approx(
        {"arithmetic": 0.19, "store": 0.03, "hand-over": 0.08, "loading models": 0.1, "idle": 0.6}
    )
    assert summary.read["bytes_from_store"] == 7


def test_the_memory_of_the_largest_process_is_told_apart_from_what_it_shares():
    summary = of(
        ("shard", {"peak_bytes": 2**30, "resident_bytes": 5 * 2**30}),
        ("Score", {"peak_bytes": 3 * 2**30, "resident_bytes": 4 * 2**30}),
        ("shard", {}),
    )
    assert summary.facts(None)["peak_bytes"] == 3 * 2**30
    told = "Memory: the largest worker had 3.00 GiB of its own (5.00 with shared objects and mapped files)"
    assert f"{told}." in summary.lines("a-run", 1.0, None)
    summary.driver_bytes = 2**29
    assert f"{told}, the driver 0.50." in summary.lines("a-run", 1.0, None)


def test_nodes_cost_the_price_of_their_hours():
    summary = of()
    summary.node_s = {"cpu": 7200.0, "gpu": 1800.0}
    one_price = RunEntry(price_per_hour=0.8).price_per_hour
    assert summary.cost(one_price) == pytest.approx(2.0)
    assert summary.cost(None) is None
    lines = summary.lines("a-run", 3600.0, one_price)
    told = "Machines: 7,200 node-seconds without GPUs and 1,800 node-seconds with GPUs, which cost 2.00."
    assert lines[-1] == told


def test_nodes_of_each_kind_cost_their_own_price():
    summary = of()
    summary.node_s = {"cpu": 7200.0, "gpu": 1800.0, "head": 3600.0}
    each = RunEntry(price_per_hour={"gpu": 4.0, "cpu": 0.5, "head": 0.1}).price_per_hour
    assert summary.cost(each) == pytest.approx(2 * 0.5 + 0.5 * 4.0 + 0.1)
    without_head = RunEntry(price_per_hour={"gpu": 4.0, "cpu": 0.5}).price_per_hour
    assert summary.cost(without_head) == pytest.approx(2 * 0.5 + 0.5 * 4.0 + 0.5)
    assert "3,600 node-seconds of a head without tasks" in summary.lines("a-run", 1.0, each)[-1]


def test_losses_are_told_by_their_kind():
    lost = [("lost", {"loss": loss}) for loss in ("worker", "memory", "worker")]
    (line,) = of(*lost).lines("a-run", 1.0, None)
    assert "3 lost and done again (1 memory, 2 worker)" in line
    assert "reused 3 from the store" in line


def test_clocks_that_differ_between_machines_neither_hide_a_run_nor_give_negative_times(
    tmp_path, monkeypatch
):
    summary = of(("shard", {"start": 50.0, "end": 40.0, "cpu_s": 5.0}))
    assert summary.seconds["tasks"] == 0
    store = Store.open(str(tmp_path / "store"))
    events, now = EventLog(store, run="ahead"), time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    events.add("started", todo={}, found={})
    events.flush()
    monkeypatch.undo()
    status = run_status(store)
    assert status.state == "running"
    assert 0 <= status.silent_s < 60
