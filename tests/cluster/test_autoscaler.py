"""Ray's own autoscaler, with imagined machines: from no worker to those that a study needs, and back."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import ray
from processes import PATIENCE_S, end, free_ports
from support import changed, committed, events_of, make_tiny_study, score_bytes

import platonic_ray as pr
from platonic_ray.cli import main

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
def environment(tmp_path, request):
    """A head without cores, whose autoscaler starts raylets as they are asked for: of an imagined GPU, by default."""
    offers = getattr(request, "param", {"CPU": 2, "GPU": 1})
    (port,) = free_ports(1)
    host = ray.util.get_node_ip_address()
    node = {"resources": {"CPU": 0, "GPU": 0, "object_store_memory": 100 * 2**20}, "node_config": {}}
    worker = {
        **{"resources": {**offers, "object_store_memory": 100 * 2**20}, "node_config": {}},
        **{"min_workers": 0, "max_workers": 3},
    }
    config = {
        "cluster_name": "imagined",
        "max_workers": 3,
        "idle_timeout_minutes": 0.1,
        "upscaling_speed": 10.0,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": f"{host}:{port}",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {"ray.head.default": {**node, "max_workers": 0}, "worker": worker},
        "head_node_type": "ray.head.default",
        **{"file_mounts": {}, "cluster_synced_files": [], "file_mounts_sync_continuously": False},
        **{"rsync_exclude": [], "rsync_filter": [], "initialization_commands": [], "setup_commands": []},
        **{"head_setup_commands": [], "worker_setup_commands": [], "head_start_ray_commands": []},
        **{"worker_start_ray_commands": [], "auth": {}},
    }
    (tmp_path / "autoscaler.json").write_text(json.dumps(config))
    folder = tempfile.mkdtemp(prefix="ray-")
    environment = {
        **os.environ,
        **{"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", "RAY_AUTH_MODE": "disabled"},
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "PYTHONUNBUFFERED": "1",
    }
    log = (tmp_path / "head.log").open("w+")
    head = subprocess.Popen(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"),
            *("--num-cpus=0", "--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}"),
            *(f"--object-store-memory={100 * 2**20}", f"--autoscaling-config={tmp_path / 'autoscaler.json'}"),
        ],
        env=environment,
        stdout=log,
        stderr=log,
    )
    try:
        until = time.monotonic() + PATIENCE_S
        while "Ray runtime started" not in (said := (tmp_path / "head.log").read_text()):
            assert head.poll() is None, said
            assert time.monotonic() < until, said
            time.sleep(0.5)
        yield {**environment, "RAY_ADDRESS": f"{host}:{port}"}
    finally:
        end(head)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


DRIVER = """
import json, sys, threading, time
import ray
import platonic_ray as pr
from platonic_ray.engine import cluster
from platonic_ray.engine.fleet import Fleet
Fleet._pays = lambda *_: True  # shards of this study take no time that would pay for a further machine
cluster.connect()
there = lambda: ray.cluster_resources().get(sys.argv[3], 0)
before, start, seen, over = there(), time.monotonic(), [0], threading.Event()
def look():
    while not over.wait(0.2):
        seen.append(there())
threading.Thread(target=look, daemon=True).start()
pr.align(pr.Study.from_dict(json.loads(sys.argv[1])), quiet=True).save(sys.argv[2])
end = time.monotonic()
over.set()
while there() and time.monotonic() < end + 120:
    time.sleep(0.5)
told = {"before": before, "most": max(seen), "took": end - start}
print(json.dumps({**told, "after": there(), "gone": time.monotonic() - end}))
"""


def driven(environment, study, out, resource):
    """What a driver tells of how much of a resource there was before, during and after the study."""
    ran = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(study.model_dump(mode="json")), str(out), resource],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=350,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.strip().splitlines()[-1])


def test_machines_come_for_a_study_and_go_after_it(environment, samples, tmp_path, tiny_undisturbed):
    study = changed(
        make_tiny_study(samples, engine="ray", store=str(tmp_path / "store")),
        **{"device": "gpu", "ask_gpus": 3, "wait_s": 300, "price_per_hour": 3600.0},
    )
    told = driven(environment, study, tmp_path / "result", "GPU")
    # Two models, and a third actor for what they leave: as many machines as the study says may be asked for.
    assert (told["before"], told["most"], told["after"]) == (0, 3, 0)
    assert score_bytes(pr.load(tmp_path / "result")) == tiny_undisturbed
    events = events_of(study)
    loaded = [event for event in events if event["event"] == "model_loaded"]
    first = loaded[0]["end"] - events[0]["time"]
    print(f"first model loaded {first:.1f} s after the run began; no machine {told['gone']:.1f} s after it")
    assert len(loaded) in (2, 3)  # the third may come when no shard is left, and is withdrawn then
    assert all(event["gpus"] for event in loaded)  # there was none before
    # Machines are paid for while they are there, and not before.
    summary = events[-1]["summary"]
    assert 0 < summary["node_s"]["gpu"] <= 3 * told["took"]
    assert summary["cost"] == pytest.approx(sum(summary["node_s"].values()))


@pytest.mark.parametrize("environment", [{"CPU": 1}], indirect=True)
def test_tiles_ask_for_as_many_cores_as_the_study_says(environment, samples, tmp_path):
    """Models are embedded already: what is left of the study asks for machines as well."""
    study = make_tiny_study(samples, engine="local", store=str(tmp_path / "store"), block_rows=256)
    study = study.replace(dataset={"source": str(samples), "samples": 600})  # 3 blocks: 18 tiles
    (tmp_path / "study.toml").write_text(study.to_toml())
    assert main(["embed", str(tmp_path / "study.toml")]) == 0
    assert committed(study, "features")
    assert not committed(study, "kernels")
    asking = changed(study, engine="ray", ask_cpus=3, wait_s=300)
    told = driven(environment, asking, tmp_path / "result", "CPU")
    assert (told["before"], told["most"], told["after"]) == (0, 3, 0)
    here = pr.align(changed(study, store=str(tmp_path / "here")), quiet=True)
    assert score_bytes(pr.load(tmp_path / "result")) == score_bytes(here)
