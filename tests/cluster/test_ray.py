"""Runs on a real Ray of several raylets: equal to the run in this process, streamed, bounded."""

import contextlib
import os
import shutil
import sys
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import ray
from processes import wait_until
from support import (
    changed,
    events_of,
    make_light_study,
    make_mixed_study,
    score_bytes,
)

import platonic_ray as pr
from platonic_ray.engine import cluster as cluster_module
from platonic_ray.engine import planning, remote
from platonic_ray.engine.calibration import write_study
from platonic_ray.engine.embedding import ModelRunner
from platonic_ray.engine.fleet import Fleet
from platonic_ray.engine.footprint import private_bytes
from platonic_ray.engine.prepare import prepare
from platonic_ray.engine.scheduler import Scheduler
from platonic_ray.plan import NeighborTile
from platonic_ray.store import Store

pytestmark = pytest.mark.cluster


def on_ray(study, store):
    return changed(study, engine="ray", store=str(store))


def floors_of(study, samples):
    """The light study of its two floors, which load at once, and so many of its samples."""
    return study.replace(
        dataset={**study.dataset.model_dump(), "samples": samples},
        models=[model.model_dump() for model in study.models[2:]],
        metrics=[{"name": "mutual_knn", "k": 5}, {"name": "cka"}],
        null={"permutations": 0},
    )


@pytest.fixture(scope="module")
def ran(cluster, samples, tmp_path_factory):
    """The light study, run once on the cluster: the study, its result, its events."""
    study = on_ray(make_light_study(samples), tmp_path_factory.mktemp("ran") / "store")
    result = pr.align(study, quiet=True)
    return study, result, events_of(study)


def test_a_run_on_ray_equals_the_run_in_this_process(ran, light_study, light_undisturbed):
    _, distributed, _ = ran
    assert light_undisturbed == score_bytes(distributed)


@pytest.mark.slow
def test_kernels_on_the_median_distance_are_those_of_the_run_in_this_process(cluster, light_study, tmp_path):
    study = light_study.replace(
        dataset={**light_study.dataset.model_dump(), "samples": 300},
        models=[model.model_dump() for model in light_study.models[2:]],
        metrics=[{"name": "cka", "kernel": "rbf"}, {"name": "distance_correlation"}, {"name": "rsa"}],
    )
    distributed = on_ray(study, tmp_path / "ray")
    assert score_bytes(pr.align(distributed, quiet=True)) == score_bytes(pr.align(study, quiet=True))
    events = events_of(distributed)
    assert sum(event["event"] == "Scale" for event in events) == 2
    assert not any(event["event"] == "lost" for event in events)


def test_products_of_ranges_of_rows_are_those_of_the_run_in_this_process(cluster, tmp_path):
    study = write_study(tmp_path / "features", 20_000, [[24, 16], [32]]).replace(
        metrics=[{"name": "cka"}, {"name": "unbiased_cka"}],
        shard_rows=8000,
        run={"engine": "local", "store": str(tmp_path / "local")},
    )
    distributed = on_ray(study, tmp_path / "ray")
    assert score_bytes(pr.align(distributed, quiet=True)) == score_bytes(pr.align(study, quiet=True))
    events = events_of(distributed)
    assert sum(event["event"] == "KernelProducts" for event in events) == 2
    assert not any(event["event"] == "lost" for event in events)


@ray.remote
def growth_of_a_worker(contexts, tiles):
    """Do tiles twice, and twice more; return by how many bytes the latter made this worker grow."""

    def do_twice():
        for tile in 2 * tiles:
            remote.run_task._function(contexts, tile, 0, ())

    do_twice()
    held = private_bytes()
    do_twice()
    return private_bytes() - held


def test_a_worker_does_its_next_tasks_in_the_memory_that_the_last_have_freed(cluster, tmp_path):
    study = write_study(tmp_path / "features", 8192, [[384]])
    study = study.replace(run={"engine": "ray", "store": str(tmp_path / "store"), "block_rows": 4096})
    context = prepare(study, Store.open(str(tmp_path / "store"))).context
    runner = ModelRunner(context, 0)
    runner.load()
    for shard in range(len(context.plan.shards)):
        list(runner.embed(shard))
    tiles = [NeighborTile(0, 0, 0), NeighborTile(0, 0, 1), NeighborTile(0, 1, 1)]
    assert ray.get(growth_of_a_worker.remote([ray.put(context)], tiles)) < 24 * 2**20


def test_tasks_and_models_meant_for_a_larger_node_that_has_gone_are_sent_again(
    cluster, light_study, tmp_path, monkeypatch
):
    asked, of_models = Counter(), set()
    there = cluster_module.cores_for

    def more_than_any_node_has(peak, resources):
        caller = sys._getframe(1).f_code.co_name
        asked[caller] += 1
        if caller == "_cores_of":
            of_models.add(peak)
        return 8.0 if asked[caller] <= 2 else there(peak, resources)

    monkeypatch.setattr(cluster_module, "cores_for", more_than_any_node_has)
    monkeypatch.setattr(planning, "weight_bytes_of", lambda prepared: (7, 9))
    study = floors_of(light_study, 60)
    distributed = on_ray(study, tmp_path / "ray")
    assert score_bytes(pr.align(distributed, quiet=True)) == score_bytes(pr.align(study, quiet=True))
    assert all(asked[caller] > 2 for caller in ("cores_of_task", "_cores_of"))
    assert of_models == {7, 9}  # a model asks for the cores that have its memory


@pytest.mark.slow
def test_layers_that_one_half_chose_are_those_of_the_run_in_this_process(cluster, light_study, tmp_path):
    study = light_study.replace(
        choose_layers="held-out",
        dataset={**light_study.dataset.model_dump(), "samples": 120},
        models=[model.model_dump() for model in light_study.models[2:]],
        metrics=[{"name": "mutual_knn", "k": 5}, {"name": "cka"}],
        null={"permutations": 9},
    )
    distributed = pr.align(on_ray(study, tmp_path / "ray"), quiet=True)
    assert distributed.models["n"].unique().to_list() == [60]
    assert distributed.models.equals(pr.align(study, quiet=True).models)


def test_tiles_read_the_objects_that_shards_were_streamed_into(ran):
    _, _, events = ran
    shards = [event for event in events if event["event"] == "shard"]
    tiles = [event for event in events if event["event"] in ("NeighborTile", "KernelTile")]
    assert len(shards) == 4 * 10
    assert len(tiles) == 4 * 6 + 6
    # Blocks came out of the object store, the driver saw references and reports alone.
    embedded = sum(event["bytes_out"] for event in shards)
    from_objects = sum(tile["bytes_from_objects"] for tile in tiles)
    assert from_objects > embedded
    assert sum(tile["bytes_from_store"] for tile in tiles) == 0
    (driver,) = [event for event in events if event["event"] == "driver"]
    assert 0 < driver["fetched_bytes"] < embedded / 20
    # Both workers took part, and the head did not.
    assert len({event["node"] for event in (*shards, *tiles)}) == 2


def test_a_run_says_what_it_did_and_where_its_time_went(ran):
    summary = ran[2][-1]["summary"]
    assert summary["losses"] == {}
    assert sum(summary["shares"].values()) == pytest.approx(1)
    assert all(share >= 0 for share in summary["shares"].values())
    assert summary["shares"]["arithmetic"] > 0
    # Two nodes with a core and a head without, for as long as the run lasted; no price was given.
    assert summary["node_s"]["cpu"] == pytest.approx(summary["core_s"])
    assert summary["node_s"]["head"] == pytest.approx(summary["core_s"] / 2)
    assert summary["cost"] is None
    assert summary["spilled_bytes"] == 0
    # More than Python alone, less than with what is shared, and that less than this machine.
    assert 2**27 < summary["peak_bytes"] < summary["resident_bytes"] < 2**33
    assert 2**27 < summary["driver_bytes"] < 2**33


def test_objects_that_memory_has_no_room_for_are_counted_as_spilled(cluster):
    before, size = cluster_module.spilled_bytes(), 90 * 2**20
    held = [ray.put(np.zeros(size, np.uint8)) for _ in range(4)]  # the head's object store has 200 MiB
    wait_until(lambda: cluster_module.spilled_bytes() - before >= size, every_s=0.2)
    assert len(held) == 4


def test_what_a_run_counts_can_be_read_by_prometheus(cluster, ran):
    ports = {node["MetricsExportPort"] for node in ray.nodes() if node["Alive"]}
    host = ray.util.get_node_ip_address()
    wanted = {
        f"platonic_ray_{name}"
        for name in ("samples_total", "tiles_total", "bytes_total", "task_seconds_bucket")
    }

    def all_told():
        told = ""
        for port in ports:
            with contextlib.suppress(OSError):
                told += urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=30).read().decode()
        return told if all(name in told for name in wanted) else None

    told = wait_until(all_told, every_s=0.5)
    assert "ray_platonic_ray_tiles_total{" in told
    assert 'kind="KernelTile"' in told


def test_vision_models_chosen_layers_and_stored_features_are_the_same_bytes_on_ray(
    cluster, samples, tiny_bert, tmp_path
):
    study = make_mixed_study(samples, tiny_bert, tmp_path, engine="local", store=str(tmp_path / "here"))
    here = pr.align(study, quiet=True)
    assert score_bytes(here) == score_bytes(pr.align(on_ray(study, tmp_path / "there"), quiet=True))
    kept = here.layers.filter(model="stored")
    assert kept["width"].to_list() == [4, 6, 9]


def test_no_process_that_held_a_model_is_left_behind(ran):
    _, _, events = ran
    loaded = [event["pid"] for event in events if event["event"] == "model_loaded"]
    assert loaded
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in loaded))


def test_a_finished_study_starts_nothing(ran, capsys):
    study, result, _ = ran
    assert score_bytes(pr.align(study)) == score_bytes(result)
    assert "nothing was computed" in capsys.readouterr().err
    assert len(Store(study.run.store).runs()) == 1


@pytest.mark.slow
def test_what_one_engine_finished_the_other_goes_on_with(cluster, ran, light_study, tmp_path):
    three = light_study.replace(models=[model.model_dump() for model in light_study.models[:3]])
    store = tmp_path / "shared"
    pr.align(changed(three, store=str(store)), quiet=True)
    study = on_ray(light_study, store)
    assert score_bytes(pr.align(study, quiet=True)) == score_bytes(ran[1])
    assert {e["task"] for e in events_of(study) if e["event"] == "shard"} == {
        f"embed[pixels, {shard}]" for shard in range(10)
    }


def test_a_damaged_shard_is_found_by_all_its_readers_and_made_once(cluster, light_study):
    study = floors_of(light_study, 600)  # three blocks: several tiles read each shard
    whole = pr.align(study, quiet=True)
    store = Path(study.run.store)
    for folder in ("results", "scores", "neighbors", "kernels"):
        shutil.rmtree(store / folder)
    shard = sorted((store / "features").rglob("layer.0000-*.arrow"))[7]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    shard.write_bytes(data)
    assert score_bytes(pr.align(on_ray(study, study.run.store), quiet=True)) == score_bytes(whole)
    assert sum(event["event"] == "shard" for event in events_of(study)) == 1


@pytest.mark.slow
def test_a_store_named_by_a_relative_path_is_one_place_for_all_workers(cluster, ran, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models = [model.model_dump() for model in ran[0].models[2:]]
    growth = {"sizes": [100], "splits": 2}
    study = ran[0].replace(models=models, recipe="huh2024", growth=growth, null={"permutations": 0})
    distributed = pr.align(on_ray(study, "store"), quiet=True)
    alone = pr.align(changed(study, engine="local", store=str(tmp_path / "alone")), quiet=True)
    assert score_bytes(distributed) == score_bytes(alone)
    assert distributed.provenance["clamp"] == alone.provenance["clamp"]
    assert alone.provenance["clamp"]["pixels"][0] > 0
    assert alone.growth.height == 1
    assert (tmp_path / "store" / "features").is_dir()


@pytest.mark.slow
def test_more_threads_than_cores_do_not_wait_for_a_larger_node(cluster, ran, tmp_path):
    study = ran[0].replace(models=[ran[0].models[3].model_dump()])
    assert pr.align(changed(on_ray(study, tmp_path / "s"), threads=16), quiet=True).models.height == len(
        study.metrics
    )


@pytest.mark.slow
def test_asking_for_machines_that_never_come_harms_nothing(cluster, ran, tmp_path, monkeypatch):
    monkeypatch.setattr(Fleet, "_pays", lambda *_: True)
    send, waiting = Scheduler._send, []

    def noted(scheduler, *args):
        send(scheduler, *args)
        waiting.append(sum(attempt.cores for attempt in scheduler.running.values()))

    monkeypatch.setattr(Scheduler, "_send", noted)
    study = changed(on_ray(ran[0], tmp_path / "asking"), ask_cpus=6)
    assert score_bytes(pr.align(study, quiet=True)) == score_bytes(ran[1])
    assert (
        1.5 * ray.cluster_resources()["CPU"] < max(waiting) < 7
    )  # tiles ask for what is not there, all at once; each for a core at most
    states = [actor["State"] for actor in ray._private.state.actors().values()]
    assert set(states) == {"DEAD"}


def test_row_sums_and_a_users_own_metric_are_those_of_this_process(cluster, light_study, tmp_path):
    metrics = [{"name": "cknna_paper", "k": 6}, {"name": "own_metrics:UNSHARED", "k": 6}]
    study = floors_of(light_study, 300).replace(metrics=metrics)  # of two blocks
    distributed = pr.align(on_ray(study, tmp_path / "ray"), quiet=True)
    local = pr.align(study, quiet=True)
    assert distributed.metrics == ("cknna_paper", "unshared")
    assert score_bytes(distributed) == score_bytes(local)
