"""Two runs at once on one store: nothing is locked, writes are idempotent, and what one has made the other takes."""

import json
import os
import subprocess
import sys

import pytest
from support import changed, score_bytes

import platonic_ray as pr
from platonic_ray.store import Store

pytestmark = pytest.mark.cluster

DRIVER = """
import json, sys
import platonic_ray as pr
pr.align(pr.Study.from_dict(json.loads(sys.argv[1])), quiet=True).save(sys.argv[2])
"""


def test_two_drivers_at_once_end_with_the_same_bytes(two_nodes, tiny_study, tiny_undisturbed, tmp_path):
    study = changed(tiny_study, engine="ray", store=str(tmp_path / "store"))
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", DRIVER, json.dumps(study.model_dump(mode="json")), str(tmp_path / name)],
            env={**os.environ, "RAY_ADDRESS": two_nodes.address},
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("first", "second")
    ]
    for driver in drivers:
        _, said = driver.communicate(timeout=300)
        assert driver.returncode == 0, said
    for name in ("first", "second"):
        assert score_bytes(pr.load(tmp_path / name)) == tiny_undisturbed
    store = Store(study.run.store)
    for kind in ("features", "neighbors", "kernels", "results"):
        for key in store.keys(kind):
            manifest = store.manifest(kind, key)
            assert all(store.read(manifest, part).num_rows >= 0 for part in manifest.parts)
    # Whoever comes third finds everything.
    runs = len(store.runs())
    assert score_bytes(pr.align(study, quiet=True)) == tiny_undisturbed
    assert len(store.runs()) == runs


def test_a_shard_that_another_run_has_made_meanwhile_is_taken_from_the_store(tiny_study, tiny_undisturbed):
    """Both planned it; this one comes to it second."""
    from platonic_ray.engine.events import EventLog
    from platonic_ray.engine.local import LocalRunner
    from platonic_ray.engine.prepare import prepare
    from platonic_ray.engine.progress import ProgressDisplay
    from platonic_ray.plan import TaskGraph

    store = Store.open(tiny_study.run.store)
    prepared = prepare(tiny_study, store)
    plan = prepared.context.plan
    assert score_bytes(pr.align(tiny_study, quiet=True)) == tiny_undisturbed
    before = {key: store.manifest("features", key) for key in store.keys("features")}
    events = EventLog(store, run="second")
    LocalRunner(
        prepared.context, TaskGraph(plan.prerequisites, done=[]), events, ProgressDisplay(quiet=True)
    ).run()
    events.flush()
    shards = [event for event in store.events("second") if event["event"] == "shard"]
    assert len(shards) == 8
    assert all(event["found"] and event["bytes_out"] == 0 for event in shards)
    assert {key: store.manifest("features", key) for key in store.keys("features")} == before
