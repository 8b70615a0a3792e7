"""Two runs at once on one store: nothing is locked, writes are idempotent, and what one has made the other takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import changed, score_bytes

import platonic_ray as pr
from platonic_ray.engine.context import MissingInputError
from platonic_ray.engine.events import EventLog
from platonic_ray.engine.local import LocalRunner
from platonic_ray.engine.prepare import prepare
from platonic_ray.engine.progress import ProgressDisplay
from platonic_ray.engine.work import perform
from platonic_ray.plan import NeighborBlock, NeighborTile, TaskGraph
from platonic_ray.store import Store

pytestmark = pytest.mark.cluster

DRIVER = """
import json, signal, sys
import platonic_ray as pr
handler = signal.getsignal(signal.SIGTERM)
pr.align(pr.Study.from_dict(json.loads(sys.argv[1])), quiet=True).save(sys.argv[2])
assert signal.getsignal(signal.SIGTERM) is handler  # Ray has its own, and a run has
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


def test_what_another_run_has_made_meanwhile_is_taken_from_the_store(tiny_study, tiny_undisturbed):
    """Both planned it; this one comes to it second."""
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
    tiles = [event for event in store.events("second") if event["event"] in ("NeighborTile", "KernelTile")]
    assert tiles
    assert not any(event["bytes_from_objects"] + event["bytes_from_store"] for event in tiles)


def test_a_tile_that_was_left_out_for_what_is_damaged_is_made_after_all(tiny_study, tiny_undisturbed):
    assert score_bytes(pr.align(tiny_study, quiet=True)) == tiny_undisturbed
    store = Store.open(tiny_study.run.store)
    context = prepare(tiny_study, store).context
    blocks = [task for task in context.plan.prerequisites if isinstance(task, NeighborBlock)]
    of_block = blocks[0]
    tiles = [
        NeighborTile(of_block.model, min(of_block.a, b), max(of_block.a, b))
        for b in range(len(context.plan.blocks))
    ]
    left_out = {tile: (perform(context, tile, {})[1],) for tile in tiles}
    assert all(table.num_rows == 0 for (table,) in left_out.values())
    key = context.plan.neighbors_key(of_block.model, of_block.a)
    whole = store.read(store.manifest("neighbors", key), "topk")
    parts = (Path(tiny_study.run.store) / "neighbors").rglob("*.arrow")
    part = next(path for path in parts if key in str(path))
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(MissingInputError) as missing:
        perform(context, of_block, left_out)
    assert set(missing.value.tasks) == set(tiles)
    made = {tile: (perform(context, tile, {})[1],) for tile in tiles}
    assert perform(context, of_block, made)[1].equals(whole)
